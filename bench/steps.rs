//! What a step of the core costs by the number of nodes. The bar: under 10 ms at 10,000 nodes, and linear in them.
//!
//! `cargo bench -p gapless-core`

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::rollout::step;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::{Duration, Instant as Clock};

fn declaration(version: u8, nodes: u32) -> Declaration {
    let second = Duration::from_secs(1);
    let policy = Policy {
        floor: nodes,
        gate_passes: 1,
        gate_failures: 3,
        progress_deadline: second * 60,
        drain_deadline: second * 30,
        bake: Duration::ZERO,
        ..Policy::default()
    };
    let digest = Digest([version; 32]);
    Declaration {
        content: digest,
        artifact: ArtifactVersion(version.into()),
        image: digest,
        nodes,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// A world in which everything that was asked for is done at once.
#[derive(Default)]
struct Eager {
    state: ServiceState,
    seen: Observation,
    slowest: Duration,
}

impl Eager {
    fn feed(&mut self, event: &Event) -> bool {
        let began = Clock::now();
        let step = step(&self.state, event, Instant(1000));
        self.slowest = self.slowest.max(began.elapsed());
        let changed = step.state != self.state;
        self.state = step.state;
        for (id, effect) in step.effects {
            if self.done(&effect) {
                self.feed(&Event::EffectEnded { effect: id, result: Ok(()) });
            }
        }
        changed
    }

    fn done(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::EnsureGroup { group, size } => {
                let health = Health { passes: 5, ..Health::default() };
                let image = self.state.releases[&group.release].image;
                let node = NodeSeen { condition: Condition::Running, image, health, requests_in_flight: 0 };
                self.seen.nodes.extend((0..*size).map(|ordinal| (group.node(ordinal), node.clone())));
            }
            Effect::Route(route) => {
                self.seen.proxies.insert("a".into(), Some(route.generation));
            }
            Effect::DestroyNodes { nodes } => self.seen.nodes.retain(|node, _| !nodes.contains(node)),
            Effect::Drain { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } => {}
            Effect::Notify(_) => return false,
        }
        true
    }
}

fn main() {
    for nodes in [100, 1_000, 10_000, 100_000] {
        let mut world = Eager::default();
        for version in 1..=2 {
            world.feed(&Event::declared(declaration(version, nodes)));
            while world.feed(&Event::Observed(world.seen.clone())) {}
        }
        println!("{nodes:>7} nodes: slowest step {:?}", world.slowest);
    }
}
