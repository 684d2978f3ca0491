//! Hosts that services answer: two cannot answer the same one, because the proxy would have to choose.

use crate::problem::Refused;
use gapless_core::name::ServiceName;
use gapless_core::release::ReleaseNumber;
use gapless_core::service::ServiceState;
use gapless_engine::Engine;
use hyper::StatusCode;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hosts whose services are being declared: the engine does not know of these yet.
#[derive(Clone, Default)]
pub(crate) struct Hosts {
    claims: Arc<Mutex<Vec<(ServiceName, String)>>>,
}

/// A service may be declared with a host. It ends when it is dropped: the engine knows of it by then, or it was refused.
pub(crate) struct Claim {
    hosts: Hosts,
    service: ServiceName,
    host: String,
}

impl Hosts {
    /// Claims a host for a service. Of two that want the same at once, one gets it.
    pub(crate) async fn claim(&self, engine: &Engine, service: &ServiceName, host: &str) -> Result<Claim, Refused> {
        let claim = self.enter(service, host)?;
        self.is_free(engine, service, host).await?;
        Ok(claim)
    }

    /// No other service answers this host, or will when what was declared of it is carried out. A worker answers none (the empty one), and stands in nobody's way.
    pub(crate) async fn is_free(&self, engine: &Engine, service: &ServiceName, host: &str) -> Result<(), Refused> {
        if host.is_empty() {
            return Ok(());
        }
        for other in engine.services().into_iter().filter(|other| other != service) {
            let Some(state) = engine.state(&other) else { continue };
            for release in answering(&state) {
                if engine.declaration(&other, release).await?.host == host {
                    return Err(taken(service, host, &format!("{other} answers with {}-{release}", other.service())));
                }
            }
        }
        Ok(())
    }

    fn enter(&self, service: &ServiceName, host: &str) -> Result<Claim, Refused> {
        let mut claims = self.lock();
        if let Some((other, _)) = claims.iter().find(|(other, claimed)| other != service && claimed == host && !host.is_empty()) {
            return Err(taken(service, host, &format!("{other} is being declared with")));
        }
        claims.push((service.clone(), host.to_string()));
        Ok(Claim { hosts: self.clone(), service: service.clone(), host: host.to_string() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ServiceName, String)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.hosts.lock();
        let mine = |(service, host): &(ServiceName, String)| *service == self.service && *host == self.host;
        if let Some(at) = claims.iter().position(mine) {
            claims.swap_remove(at);
        }
    }
}

/// The releases of a service that have traffic, will have it, or are what it was declared to be.
fn answering(state: &ServiceState) -> BTreeSet<ReleaseNumber> {
    let live = state.live.map(|group| group.release);
    let coming = state.rollout.as_ref().map(|rollout| rollout.to.release);
    [live, state.declared, coming].into_iter().flatten().collect()
}

fn taken(service: &ServiceName, host: &str, by: &str) -> Refused {
    let what = format!("{service} wants the host \"{host}\", which {by}");
    Refused::new(StatusCode::CONFLICT, what, "give each service a host of its own in gapless.hcl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::notice::{RolloutKind, RolloutNumber};
    use gapless_core::service::{Rollout, Stage};

    fn service(name: &str) -> ServiceName {
        name.parse().expect("a name")
    }

    #[test]
    fn of_two_that_want_one_host_at_once_one_gets_it() {
        let hosts = Hosts::default();
        let first = hosts.enter(&service("a/web"), "localhost").map_err(|refused| refused.problem).expect("free");
        let again = hosts.enter(&service("a/web"), "localhost").map_err(|refused| refused.problem).expect("its own");
        assert!(hosts.enter(&service("a/web"), "other").is_ok());
        let workers = [hosts.enter(&service("a/worker"), ""), hosts.enter(&service("b/worker"), "")];
        assert!(workers.iter().all(Result::is_ok), "workers answer no host");
        drop(again);
        let refused = hosts.enter(&service("b/web"), "localhost").map(drop).expect_err("taken");
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.problem.what.contains("a/web is being declared"), "{:?}", refused.problem);
        drop(first);
        assert!(hosts.enter(&service("b/web"), "localhost").is_ok(), "a claim that ended stands in nobody's way");
    }

    #[test]
    fn what_is_on_its_way_answers_too() {
        let group = |release| GroupId { release: ReleaseNumber(release), instance: InstanceId(u64::from(release)) };
        let rollout = Rollout::new(RolloutNumber(3), RolloutKind::Rollback, Some(group(1)), group(2), Stage::Shift);
        let declared = ServiceState { declared: Some(ReleaseNumber(3)), ..ServiceState::default() };
        assert_eq!(answering(&declared), BTreeSet::from([ReleaseNumber(3)]));
        let going_back = ServiceState { live: Some(group(1)), rollout: Some(rollout), ..declared };
        assert_eq!(answering(&going_back), BTreeSet::from([1, 2, 3].map(ReleaseNumber)));
    }
}
