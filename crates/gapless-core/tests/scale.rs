//! Many nodes: a step's time is linear in them.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::rollout::step;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::time::{Duration, Instant as Clock};

const NODES: u32 = 10_000;
/// The bar is 10 ms in a release build; this is for the development profile on a busy machine, where a quadratic loop would take minutes.
const LONGEST_STEP: Duration = Duration::from_secs(2);

fn declaration(version: u8) -> Declaration {
    let second = Duration::from_secs(1);
    let policy = Policy {
        floor: NODES,
        gate_passes: 1,
        gate_failures: 3,
        progress_deadline: second * 60,
        drain_deadline: second * 30,
        bake: Duration::ZERO,
    };
    Declaration {
        content: Digest([version; 32]),
        artifact: ArtifactVersion(version.into()),
        image: Digest([version; 32]),
        nodes: NODES,
        policy,
    }
}

/// A world in which everything that was asked for is done at once, and the slowest step so far.
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
                let image = self.state.releases[&group.release].image;
                let health = Health { passes: 5, ..Health::default() };
                let node = NodeSeen { condition: Condition::Running, image, health, requests_in_flight: 0 };
                self.seen.nodes.extend((0..*size).map(|ordinal| (group.node(ordinal), node.clone())));
            }
            Effect::Route(route) => drop(self.seen.proxies.insert("a".into(), Some(route.generation))),
            Effect::DestroyNodes { nodes } => self.seen.nodes.retain(|node, _| !nodes.contains(node)),
            Effect::Drain { .. } => {}
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

#[test]
fn a_rollout_of_ten_thousand_nodes_takes_short_steps() {
    let mut world = Eager { state: ServiceState::default(), seen: Observation::default(), slowest: Duration::ZERO };
    for version in 1..=2 {
        world.feed(&Event::Declared(declaration(version)));
        world.settle();
    }
    assert_eq!(world.state.live_release(), world.state.declared);
    assert_eq!(world.seen.nodes.len(), NODES as usize, "the old nodes are gone and the new ones are there");
    println!("slowest step at {NODES} nodes: {:?}", world.slowest);
    assert!(world.slowest < LONGEST_STEP, "a step took {:?}", world.slowest);
}
