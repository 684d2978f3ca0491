//! A rollout's records, run through the core again.

use crate::story;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, RolloutNumber};
use gapless_core::rollout::step;
use gapless_core::service::ServiceState;
use gapless_engine::store::{JournalRecord, Sequence};
use gapless_wire::replay::{Replay, ReplayStep};

/// Runs a service's records from the beginning through the core, and tells those of one rollout. It runs in the server, because only the server may open the journal, and because
/// what the engine decides with stands in no other process.
pub(super) fn replay(
    service: &ServiceName,
    rollout: RolloutNumber,
    (before, begin): (Sequence, ServiceState),
    records: &[(Sequence, JournalRecord)],
) -> Replay {
    let mut state = begin;
    let mut told =
        Replay { service: service.to_string(), rollout: rollout.0, from_record: before.0, records: 0, agrees: true, steps: Vec::new() };
    for (sequence, record) in records {
        let decided = step(&state, &record.event, record.at);
        let agrees = decided.effects == record.effects;
        told.records += 1;
        told.agrees &= agrees;
        let begins = tells(&record.effects, |notice| matches!(notice, Notice::RolloutStarted { rollout: begun, .. } if *begun == rollout));
        if begins || !told.steps.is_empty() {
            told.steps.push(ReplayStep {
                record: sequence.0,
                at_ms: record.at.0,
                event: story::event(service, &state, &record.event),
                decided: words(service, &decided.effects),
                recorded: (!agrees).then(|| words(service, &record.effects)),
                state: story::state_line(service, &decided.state),
            });
        }
        state = decided.state;
        if tells(&record.effects, |notice| matches!(notice, Notice::RolloutEnded { rollout: ended, .. } if *ended == rollout)) {
            break;
        }
    }
    told
}

fn tells(effects: &[(EffectId, Effect)], is_it: impl Fn(&Notice) -> bool) -> bool {
    effects.iter().any(|(_, effect)| matches!(effect, Effect::Notify(notice) if is_it(notice)))
}

fn words(service: &ServiceName, effects: &[(EffectId, Effect)]) -> Vec<String> {
    let word = |(id, effect): &(EffectId, Effect)| match effect {
        Effect::Notify(_) => story::effect(service, effect),
        _ => format!("{id} {}", story::effect(service, effect)),
    };
    effects.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::event::Event;
    use gapless_core::observation::Observation;
    use gapless_core::policy::Policy;
    use gapless_core::release::{ArtifactVersion, Declaration};
    use gapless_core::time::Instant;
    use std::collections::BTreeSet;

    /// A first declaration and two looks at a world in which nothing comes to be.
    fn records() -> Vec<(Sequence, JournalRecord)> {
        let digest = gapless_core::digest::Digest([1; 32]);
        let declaration = Declaration {
            content: digest,
            artifact: ArtifactVersion(7),
            image: digest,
            nodes: 2,
            policy: Policy::default(),
            serves: true,
            tasks: BTreeSet::new(),
        };
        let look = || Event::Observed(Observation::default());
        let mut state = ServiceState::default();
        let mut records = Vec::new();
        for (sequence, event) in (1..).zip([Event::declared(declaration), look(), look()]) {
            let at = Instant(sequence * 1_000);
            let decided = step(&state, &event, at);
            records.push((Sequence(sequence), JournalRecord { at, event, effects: decided.effects }));
            state = decided.state;
        }
        records
    }

    fn replayed(records: &[(Sequence, JournalRecord)]) -> Replay {
        replay(&"hello/web".parse().expect("a name"), RolloutNumber(1), (Sequence(0), ServiceState::default()), records)
    }

    #[test]
    fn a_journal_is_run_again_record_by_record() {
        let replay = replayed(&records());
        assert!(replay.agrees, "{replay:?}");
        assert_eq!((replay.from_record, replay.records, replay.steps.len()), (0, 3, 3));
        let first = &replay.steps[0];
        assert_eq!(first.event, "declared: artifact v7, 2 nodes");
        assert!(first.decided.iter().any(|decided| decided.contains("EnsureGroup: the nodes of r1-i1")), "{first:?}");
        assert!(first.state.starts_with("prepare · nothing live · route g0 () · wanted r1-i1 × 2"), "{}", first.state);
    }

    #[test]
    fn a_decision_that_was_another_one_is_shown() {
        let mut records = records();
        records[0].1.effects.pop();
        let replay = replayed(&records);
        assert!(!replay.agrees);
        let first = &replay.steps[0];
        assert_eq!(first.recorded.as_ref().map(Vec::len), Some(first.decided.len() - 1), "{first:?}");
    }
}
