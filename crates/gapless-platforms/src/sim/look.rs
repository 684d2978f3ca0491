//! Looks at the world: put together from parts that each were seen at an instant of their own.

use super::node::Node;
use super::service::behaviour;
use super::world::World;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::route::Generation;
use std::collections::BTreeMap;

/// What the machines show: a node's condition, its image, and of a worker its health and whether it is ending.
pub(super) type MachinesSeen = BTreeMap<NodeId, MachineSeen>;

/// What one proxy says, all of it at one instant.
#[derive(Clone, Debug)]
pub(super) struct ProxySeen {
    name: String,
    /// `None`: it does not answer.
    says: Option<Says>,
}

#[derive(Clone, Debug)]
struct Says {
    generation: Option<Generation>,
    nodes: BTreeMap<NodeId, (Health, u32)>,
}

impl World {
    pub(super) fn see_machines(&self, name: &ServiceName) -> MachinesSeen {
        let nodes = self.services.get(name).into_iter().flat_map(|service| &service.existing);
        let image = |artifact, declared| behaviour(&self.behaviours, artifact).image.unwrap_or(declared);
        let worker = |node: &Node| Some((node.worker.as_ref()?.checked.health.clone(), u32::from(node.runs_out())));
        nodes.map(|(id, node)| (*id, (node.condition.clone(), image(node.artifact, node.declared_image), worker(node)))).collect()
    }

    pub(super) fn see_proxy(&self, name: &ServiceName, proxy: usize) -> Option<ProxySeen> {
        if self.services.get(name).is_some_and(|service| service.worker) {
            return None;
        }
        let known = self.proxies.get(proxy)?;
        let answers = known.reachable && known.present;
        let service = self.services.get(name).filter(|_| answers);
        let says = service.and_then(|service| {
            let at = service.at.get(proxy)?;
            let health = |node: &NodeId| at.checks.get(node).map_or_else(Health::default, |checked| checked.health.clone());
            let nodes = service.existing.keys().map(|node| (*node, (health(node), service.in_flight_at(*node, proxy))));
            Some(Says { generation: at.generation(), nodes: nodes.collect() })
        });
        Some(ProxySeen { name: known.name.clone(), says })
    }

    /// The whole world at this instant.
    pub(super) fn see(&self, name: &ServiceName) -> Observation {
        let proxies = (0..self.proxies.len()).filter_map(|proxy| self.see_proxy(name, proxy)).collect();
        compose(self.see_machines(name), proxies)
    }
}

/// What is seen of a machine; of a worker also its health and what it is at.
type MachineSeen = (Condition, Digest, Option<(Health, u32)>);

/// One look from its parts. Health is the worst that a proxy says, the requests in flight are those of all.
pub(super) fn compose(machines: MachinesSeen, proxies: Vec<ProxySeen>) -> Observation {
    let seen = |(id, (condition, image, worker)): (NodeId, MachineSeen)| {
        if let Some((health, requests_in_flight)) = worker {
            return (id, NodeSeen { condition, image, health, requests_in_flight });
        }
        let says = || proxies.iter().filter_map(|proxy| proxy.says.as_ref());
        let health = says().map(|says| says.nodes.get(&id).map(|(health, _)| health.clone()).unwrap_or_default()).reduce(worse);
        let requests_in_flight = says().filter_map(|says| says.nodes.get(&id)).map(|(_, in_flight)| in_flight).sum();
        (id, NodeSeen { condition, image, health: health.unwrap_or_default(), requests_in_flight })
    };
    let nodes = machines.into_iter().map(seen).collect();
    let generation = |says: Says| says.generation;
    Observation { nodes, proxies: proxies.into_iter().map(|proxy| (proxy.name, proxy.says.and_then(generation))).collect() }
}

fn worse(one: Health, other: Health) -> Health {
    let failures = one.failures.max(other.failures);
    Health {
        passes: if failures > 0 { 0 } else { one.passes.min(other.passes) },
        failures,
        failures_after_answer: one.failures_after_answer.max(other.failures_after_answer),
        evidence: if one.failures >= other.failures { one.evidence } else { other.evidence },
    }
}
