//! Releases, groups and nodes that the states are made of. The group of a release has its number.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::rollout::Step;
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::{Group, ServiceState};
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

/// Now, in all tests.
pub const NOW: Instant = Instant(10_000);

/// How many nodes a release has.
pub const NODES: u32 = 3;

pub fn release(number: u32) -> ReleaseNumber {
    ReleaseNumber(number)
}

pub fn group(number: u32) -> GroupId {
    GroupId { release: release(number), instance: InstanceId(number.into()) }
}

/// Blue-green, with a bake window.
pub fn declaration(number: u32) -> Declaration {
    let policy = Policy {
        floor: 2,
        gate_passes: 2,
        gate_failures: 3,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_secs(30),
        bake: Duration::from_secs(60),
        ..Policy::default()
    };
    let digest = Digest([number as u8; 32]);
    Declaration {
        content: digest,
        artifact: ArtifactVersion(number),
        image: digest,
        nodes: NODES,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// A group that is there with all of its nodes, and had traffic.
pub fn whole() -> Group {
    Group { size: NODES, made: NODES, nodes: (0..NODES).collect(), exposed: true, runs_task: false }
}

/// Four releases are kept; the given one is live and declared, and has all the traffic at generation 3.
pub fn live(number: u32) -> ServiceState {
    let mut state = ServiceState { live: Some(group(number)), declared: Some(release(number)), ..ServiceState::default() };
    state.releases.extend((1..=4).map(|number| (release(number), declaration(number))));
    state.groups.insert(group(number), whole());
    state.route =
        Route { generation: Generation(3), members: (0..NODES).map(|ordinal| (group(number).node(ordinal), Weight::EQUAL)).collect() };
    state.next.releases = 4;
    state
}

/// A node that runs, and has passed so many checks in a row.
pub fn running(number: u32, passes: u32) -> NodeSeen {
    let health = Health { passes, ..Health::default() };
    NodeSeen { condition: Condition::Running, image: Digest([number as u8; 32]), health, requests_in_flight: 0 }
}

/// All nodes of these groups run well, and the one proxy has acknowledged generation 3.
pub fn seen(groups: &[u32]) -> Observation {
    let mut seen = Observation::default();
    seen.proxies.insert("a".into(), Some(Generation(3)));
    let nodes = |number: &u32| (0..NODES).map(|ordinal| (group(*number).node(ordinal), running(*number, 9))).collect::<Vec<_>>();
    seen.nodes.extend(groups.iter().flat_map(nodes));
    seen
}

/// The effects of a step, by their names.
pub fn effects(step: &Step) -> Vec<&'static str> {
    step.effects.iter().map(|(_, effect)| effect).filter(|effect| !matches!(effect, Effect::Notify(_))).map(Effect::name).collect()
}
