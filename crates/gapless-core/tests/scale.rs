//! Many nodes: a rollout of ten thousand takes as many steps and effects as one of ten. What a step costs in time is measured in `bench/steps.rs`.

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
use std::time::Duration;

const FEW: u32 = 10;
const MANY: u32 = 10_000;

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
    Declaration {
        content: Digest([version; 32]),
        artifact: ArtifactVersion(version.into()),
        image: Digest([version; 32]),
        nodes,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// A world in which everything that was asked for is done at once, and the work so far.
struct Eager {
    state: ServiceState,
    seen: Observation,
    steps: usize,
    effects: usize,
}

impl Eager {
    fn feed(&mut self, event: &Event) -> bool {
        let step = step(&self.state, event, Instant(1000));
        self.steps += 1;
        self.effects += step.effects.len();
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
                let image = self.state.releases[&group.release].image;
                let health = Health { passes: 5, ..Health::default() };
                let node = NodeSeen { condition: Condition::Running, image, health, requests_in_flight: 0 };
                self.seen.nodes.extend((0..*size).map(|ordinal| (group.node(ordinal), node.clone())));
            }
            Effect::Route(route) => drop(self.seen.proxies.insert("a".into(), Some(route.generation))),
            Effect::DestroyNodes { nodes } => self.seen.nodes.retain(|node, _| !nodes.contains(node)),
            Effect::Drain { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } => {}
            Effect::Notify(_) => return false,
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..30 {
            if !self.feed(&Event::Observed(self.seen.clone())) {
                return;
            }
        }
        panic!("does not come to rest");
    }
}

/// Steps and effects of two rollouts of so many nodes.
fn work(nodes: u32) -> (usize, usize) {
    let mut world = Eager { state: ServiceState::default(), seen: Observation::default(), steps: 0, effects: 0 };
    for version in 1..=2 {
        world.feed(&Event::declared(declaration(version, nodes)));
        world.settle();
    }
    assert_eq!(world.state.live_release(), world.state.declared);
    assert_eq!(world.seen.nodes.len(), nodes as usize, "the old nodes are gone and the new ones are there");
    (world.steps, world.effects)
}

#[test]
fn many_nodes_take_no_more_steps_or_effects_than_few() {
    assert_eq!(work(MANY), work(FEW));
}
