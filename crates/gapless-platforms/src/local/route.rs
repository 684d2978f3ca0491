//! The routes of all services, as they were decided last: what every proxy shall have.

use super::file;
use crate::host;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::route::Route;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Declarations;
use gapless_wire::route::{Check, Member, SNAPSHOT_VERSION, ServiceRoute, Snapshot};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The kept routes. They are durable before a proxy hears of them, so that after a crash no proxy knows more than the platform does.
#[derive(Debug)]
pub struct Routes {
    path: PathBuf,
    kept: Mutex<Snapshot>,
}

impl Routes {
    /// The routes kept in this file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let kept = file::read(&path)?.unwrap_or(Snapshot { version: SNAPSHOT_VERSION, services: BTreeMap::new() });
        Ok(Self { path, kept: Mutex::new(kept) })
    }

    /// What every proxy shall have.
    pub fn latest(&self) -> Snapshot {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a service ever had a route.
    pub fn is_known(&self, service: &ServiceName) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).services.contains_key(&service.to_string())
    }

    /// Whether a service's route names anybody.
    pub fn has_members(&self, service: &ServiceName) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.services.get(&service.to_string()).is_some_and(|route| !route.members.is_empty())
    }

    /// The host that each service answers by its kept route.
    pub fn hosts(&self) -> BTreeMap<String, String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.services.iter().map(|(name, route)| (name.clone(), route.host.clone())).collect()
    }

    /// A host is for this service to answer, if no other one has it by its kept route.
    ///
    /// # Errors
    /// When one has.
    pub fn refuse_taken(&self, service: &ServiceName, host: &str) -> Result<(), Error> {
        refuse_taken(&self.kept.lock().unwrap_or_else(PoisonError::into_inner), service, host)
    }

    /// Keeps a service's route, unless one of the same or a later generation is kept.
    ///
    /// # Errors
    /// When it cannot be built or written, or another service has its host: no proxy would take a route of any service any more.
    pub fn keep(
        &self,
        service: &ServiceName,
        generation: u64,
        build: impl FnOnce(Option<&ServiceRoute>) -> Result<ServiceRoute, Error>,
    ) -> Result<(), Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let name = service.to_string();
        let present = kept.services.get(&name);
        if present.is_some_and(|present| present.generation >= generation) {
            return Ok(());
        }
        let route = build(present)?;
        refuse_taken(&kept, service, &route.host)?;
        let mut next = kept.clone();
        next.services.insert(name, route);
        file::write(&self.path, &next)?;
        *kept = next;
        Ok(())
    }
}

fn refuse_taken(kept: &Snapshot, service: &ServiceName, host: &str) -> Result<(), Error> {
    let name = service.to_string();
    host::refuse_taken(
        service,
        host,
        kept.services.iter().filter(|(other, _)| **other != name).map(|(other, route)| (other, route.host.as_str())),
    )
}

/// How requests are treated when nodes fail.
#[derive(Clone, Copy, Debug)]
pub struct Treatment {
    /// Whether an idempotent request may be sent again to another node.
    pub retry: bool,
    /// How long a request is held when no node is ready.
    pub hold: Duration,
}

/// A service's route as the proxies are told it.
///
/// # Errors
/// When a member does not exist or its declaration is missing.
pub fn service_route(
    service: &ServiceName,
    route: &Route,
    declarations: &Declarations,
    treatment: Treatment,
    present: Option<&ServiceRoute>,
    address: impl Fn(NodeId) -> Option<Ipv4Addr>,
) -> Result<ServiceRoute, Error> {
    let mut members = BTreeMap::new();
    for (node, weight) in &route.members {
        let release = node.group.release;
        let declaration = declarations
            .get(&release)
            .ok_or_else(|| Error::new(format!("the route names {node}, but no declaration of {release} came with it")))?;
        let address = address(*node)
            .ok_or_else(|| Error::new(format!("the route of {service} names {node}, which does not exist")).kind(ErrorKind::NotFound))?;
        members.insert(node.to_string(), member(declaration, *node, weight.0, address)?);
    }
    let host = host::of_route(route, declarations).or_else(|| present.map(|present| present.host.as_str())).unwrap_or("*");
    Ok(ServiceRoute {
        generation: route.generation.0,
        host: host.to_string(),
        members,
        retry: treatment.retry,
        hold_ms: milliseconds(treatment.hold),
    })
}

fn member(declaration: &ServiceDeclaration, node: NodeId, weight: u16, address: Ipv4Addr) -> Result<Member, Error> {
    let Some(port) = declaration.node.port else {
        let error = Error::new(format!("the route of {} names {node}, which is a worker's and has no port", declaration.service));
        return Err(error.kind(ErrorKind::Invalid));
    };
    Ok(Member {
        address: SocketAddr::from((address, port)),
        weight,
        release: format!("{}-{}", declaration.service.service(), node.group.release),
        check: Check {
            path: declaration.health.path().to_string(),
            interval_ms: milliseconds(declaration.health.interval),
            timeout_ms: milliseconds(declaration.health.timeout),
            passes: declaration.policy.gate_passes,
            failures: declaration.policy.gate_failures,
        },
    })
}

/// A span in whole milliseconds.
pub fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(generation: u64, host: &str) -> ServiceRoute {
        ServiceRoute { generation, host: host.to_string(), members: BTreeMap::new(), retry: true, hold_ms: 0 }
    }

    #[test]
    fn a_host_that_another_service_has_is_refused_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.json");
        let routes = Routes::open(path.clone()).unwrap();
        let keep = |service: &str, generation, host| routes.keep(&service.parse().unwrap(), generation, |_| Ok(route(generation, host)));
        keep("hello/a", 1, "x").unwrap();
        keep("hello/b", 1, "y").unwrap();
        let kept = routes.latest();
        let refused = keep("hello/a", 2, "y").unwrap_err();
        assert_eq!(refused.to_string(), "hello/a cannot answer the host \"y\", which hello/b answers");
        assert_eq!(routes.latest(), kept);
        assert_eq!(Routes::open(path).unwrap().latest(), kept, "it was written");
        keep("hello/b", 2, "z").unwrap();
        keep("hello/a", 2, "y").unwrap();
    }
}
