//! A service that is rolled out again and again in a world where everything that is asked for is done at once: a journal as long as one likes.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::rollout::step;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::store::JournalRecord;
use std::collections::BTreeSet;

/// The service, its world, and how often it was rolled out.
#[derive(Default)]
pub struct Rollouts {
    pub state: ServiceState,
    seen: Observation,
    now: u64,
    rounds: u32,
}

impl Rollouts {
    /// The records of the next rollout, from its declaration to its end.
    pub fn next(&mut self) -> Vec<JournalRecord> {
        let mut records = Vec::new();
        self.rounds += 1;
        let mut content = [0; 32];
        content[..4].copy_from_slice(&self.rounds.to_be_bytes());
        let policy = Policy { floor: 2, ..Policy::default() };
        let (content, artifact) = (Digest(content), ArtifactVersion(self.rounds));
        let declaration = Declaration { content, artifact, image: content, nodes: 3, policy, serves: true, tasks: BTreeSet::new() };
        self.feed(Event::declared(declaration), &mut records);
        while self.feed(Event::Observed(self.seen.clone()), &mut records) {}
        assert!(self.state.rollout.is_none() && self.state.pending.is_empty(), "it did not end: {:?}", self.state);
        records
    }

    fn feed(&mut self, event: Event, records: &mut Vec<JournalRecord>) -> bool {
        self.now += 10;
        let at = Instant(1_767_225_600_000 + self.now);
        let step = step(&self.state, &event, at);
        if step.state == self.state && step.effects.is_empty() {
            return false;
        }
        self.state = step.state;
        records.push(JournalRecord { at, event, effects: step.effects.clone() });
        for (effect, wanted) in step.effects {
            if self.is_done(&wanted) {
                self.feed(Event::EffectEnded { effect, result: Ok(()) }, records);
            }
        }
        true
    }

    fn is_done(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::EnsureGroup { group, size } => {
                let health = Health { passes: 5, ..Health::default() };
                let image = self.state.releases[&group.release].image;
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
}
