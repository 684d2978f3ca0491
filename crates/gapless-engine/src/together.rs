//! Services that move together: none shifts before all are ready, and when one cannot, none does.
//!
//! Nothing is remembered here. What has to be said to whom follows from the services' durable states, and every core bears to be told twice, so a crash between two of them
//! changes nothing.

use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::service::{Rollout, ServiceState, Stage, Together};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a partner stands.
enum Standing {
    /// It has not passed its gate, or is held there, or has not even been declared.
    OnItsWay,
    /// It passed its gate, or went further.
    Ready,
    /// It was rejected.
    Failed,
}

/// Whether any service moves together with another one just now.
pub(crate) fn is_any(states: &BTreeMap<ServiceName, Arc<ServiceState>>) -> bool {
    states.values().any(|state| state.rollout.as_ref().is_some_and(|rollout| rollout.together.is_some()))
}

/// What the services have to be told of each other now.
pub(crate) fn messages(states: &BTreeMap<ServiceName, Arc<ServiceState>>) -> Vec<(ServiceName, Event)> {
    states.iter().filter_map(|(service, state)| Some((service.clone(), message(state.rollout.as_ref()?, states)?))).collect()
}

fn message(rollout: &Rollout, states: &BTreeMap<ServiceName, Arc<ServiceState>>) -> Option<Event> {
    let together = rollout.together.as_ref()?;
    let given_up = matches!(rollout.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } | Stage::Retire);
    if given_up {
        return None;
    }
    let partners: Vec<(&ServiceName, Standing)> =
        together.with.iter().map(|partner| (partner, standing(together, states.get(partner)))).collect();
    if let Some((partner, _)) = partners.iter().find(|(_, standing)| matches!(standing, Standing::Failed)) {
        return Some(Event::PartnersFailed { reason: format!("{partner}, which moves together with it, was rejected") });
    }
    // What is paused is not told: while it is, the others may turn out not to be ready after all.
    let waits = matches!(rollout.stage, Stage::Await { .. }) && !rollout.partners_ready && rollout.paused.is_none();
    let all_ready = partners.iter().all(|(_, standing)| matches!(standing, Standing::Ready));
    (waits && all_ready).then_some(Event::PartnersReady)
}

fn standing(together: &Together, partner: Option<&Arc<ServiceState>>) -> Standing {
    let Some(state) = partner else { return Standing::OnItsWay };
    if let Some(rollout) = state.rollout.as_ref().filter(|rollout| rollout.together.as_ref().is_some_and(|known| known.id == together.id)) {
        return match rollout.stage {
            Stage::Vacate | Stage::Command | Stage::Prepare { .. } => Standing::OnItsWay,
            Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } => Standing::Failed,
            // It would not follow at once, and whoever paused it may cancel it yet.
            Stage::Await { .. } if rollout.paused.is_some() => Standing::OnItsWay,
            Stage::Await { .. }
            | Stage::Canary(_)
            | Stage::Roll { .. }
            | Stage::Shift
            | Stage::Confirm
            | Stage::Bake { .. }
            | Stage::Retire => Standing::Ready,
        };
    }
    match state.together.filter(|end| end.id == together.id) {
        Some(end) if end.live => Standing::Ready,
        Some(_) => Standing::Failed,
        None => Standing::OnItsWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::digest::Digest;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
    use gapless_core::release::ReleaseNumber;
    use gapless_core::service::TogetherEnd;
    use gapless_core::time::Instant;
    use std::collections::BTreeSet;

    const ID: Digest = Digest([7; 32]);

    fn name(service: &str) -> ServiceName {
        ServiceName::new("app", service).expect("a name")
    }

    fn at(stage: Stage, other: &str) -> ServiceState {
        let to = GroupId { release: ReleaseNumber(2), instance: InstanceId(2) };
        let mut rollout = Rollout::new(RolloutNumber(1), RolloutKind::Deploy, None, to, stage);
        rollout.together = Some(Together { id: ID, with: BTreeSet::from([name(other)]) });
        ServiceState { rollout: Some(rollout), ..ServiceState::default() }
    }

    fn told(web: ServiceState, worker: Option<ServiceState>) -> Vec<(String, &'static str)> {
        let mut states = BTreeMap::from([(name("web"), Arc::new(web))]);
        states.extend(worker.map(|worker| (name("worker"), Arc::new(worker))));
        let kind = |event: &Event| if matches!(event, Event::PartnersReady) { "ready" } else { "failed" };
        messages(&states).iter().map(|(service, event)| (service.service().to_string(), kind(event))).collect()
    }

    fn waiting(other: &str) -> ServiceState {
        at(Stage::Await { deadline: Instant(9) }, other)
    }

    #[test]
    fn nobody_shifts_before_all_are_ready() {
        let preparing = at(Stage::Prepare { deadline: Instant(9), booted: false }, "web");
        assert_eq!(told(waiting("worker"), None), []);
        assert_eq!(told(waiting("worker"), Some(preparing)), []);
        assert_eq!(told(waiting("worker"), Some(waiting("web"))), [("web".to_string(), "ready"), ("worker".to_string(), "ready")]);
    }

    #[test]
    fn nobody_shifts_while_one_is_paused() {
        let paused = |mut state: ServiceState| {
            state.rollout.iter_mut().for_each(|rollout| rollout.paused = Some(Instant(1)));
            state
        };
        assert_eq!(told(waiting("worker"), Some(paused(waiting("web")))), [], "the other one may be cancelled yet");
        assert_eq!(told(paused(waiting("worker")), Some(paused(waiting("web")))), []);
        assert_eq!(told(waiting("worker"), Some(paused(at(Stage::Shift, "web")))), [("web".to_string(), "ready")], "it has gone ahead");
        let undone = at(Stage::Undo { reason: Rejection::Cancelled }, "web");
        assert_eq!(told(paused(waiting("worker")), Some(undone)), [("web".to_string(), "failed")]);
    }

    #[test]
    fn who_has_gone_ahead_is_followed_also_after_a_crash() {
        assert_eq!(told(waiting("worker"), Some(at(Stage::Shift, "web"))), [("web".to_string(), "ready")]);
        let ended = ServiceState { together: Some(TogetherEnd { id: ID, live: true }), ..ServiceState::default() };
        assert_eq!(told(waiting("worker"), Some(ended)), [("web".to_string(), "ready")]);
    }

    #[test]
    fn when_one_is_rejected_none_moves() {
        let undone = at(Stage::Undo { reason: Rejection::Cancelled }, "web");
        assert_eq!(told(waiting("worker"), Some(undone)), [("web".to_string(), "failed")]);
        let ended = ServiceState { together: Some(TogetherEnd { id: ID, live: false }), ..ServiceState::default() };
        assert_eq!(told(at(Stage::Bake { until: Instant(9) }, "worker"), Some(ended)), [("web".to_string(), "failed")]);
        let other = ServiceState { together: Some(TogetherEnd { id: Digest([8; 32]), live: false }), ..ServiceState::default() };
        assert_eq!(told(waiting("worker"), Some(other)), [], "another deployment says nothing");
    }
}
