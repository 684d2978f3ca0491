//! Services that move together: none shifts before all are ready, and when one cannot, none does.
//!
//! Nothing is remembered here. What has to be said to whom follows from the services' durable states, and every core bears to be told twice, so a crash between two of them
//! changes nothing.

use crate::engine::{DeclareError, Declared, Engine};
use crate::operation::Operation;
use gapless_core::digest::Digest;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::Rejection;
use gapless_core::rollout::step;
use gapless_core::service::{Rollout, ServiceState, Stage, Together, TogetherOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state of every service.
type States = BTreeMap<ServiceName, Arc<ServiceState>>;

/// How a partner stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not passed its gate, or is held there, or has not even been declared.
    OnItsWay,
    /// It passed its gate, or went further.
    Ready,
    /// It was rejected, or has gone back.
    Failed,
    /// Somebody took it back.
    TakenBack,
}

/// Whether any service moves together with another one just now.
pub(crate) fn is_any(states: &States) -> bool {
    states.values().any(|state| state.moves_with().is_some())
}

/// What the services have to be told of each other now, each with what it is about.
pub(crate) fn messages(states: &States) -> Vec<(ServiceName, Digest, Event)> {
    let message = |service: &ServiceName, state: &ServiceState| match &state.rollout {
        Some(rollout) => while_it_moves(rollout, states),
        None => after_it_moved(service, state, states),
    };
    let told = states.iter().filter_map(|(service, state)| Some((service.clone(), message_id(state)?, message(service, state)?)));
    told.collect()
}

/// What a service moves in together with others, or came with.
fn message_id(state: &ServiceState) -> Option<Digest> {
    match &state.rollout {
        Some(_) => state.moves_with().map(|together| together.id),
        None => state.came_together().map(|(_, end)| end.id),
    }
}

/// Whether the service still moves in this together with others, or came with it and has not gone on.
pub(crate) fn concerns(state: &ServiceState, id: Digest) -> bool {
    message_id(state) == Some(id)
}

fn while_it_moves(rollout: &Rollout, states: &States) -> Option<Event> {
    let together = rollout.together.as_ref()?;
    let given_up = matches!(rollout.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } | Stage::Retire);
    if given_up {
        return None;
    }
    let partners: Vec<(&ServiceName, Standing)> =
        together.with.iter().filter_map(|partner| Some((partner, standing(together.id, states.get(partner)?)))).collect();
    if let Some(event) = somebody_went_back(&partners) {
        return Some(event);
    }
    // What is paused is not told: while it is, the others may turn out not to be ready after all.
    let waits = matches!(rollout.stage, Stage::Await { .. }) && !rollout.partners_ready && rollout.paused.is_none();
    let all_ready = partners.len() == together.with.len() && partners.iter().all(|(_, standing)| *standing == Standing::Ready);
    (waits && all_ready).then_some(Event::PartnersReady)
}

/// What came together goes back together, also when its own rollout is over.
fn after_it_moved(service: &ServiceName, state: &ServiceState, states: &States) -> Option<Event> {
    let (_, end) = state.came_together()?;
    let others = states.iter().filter(|(other, state)| *other != service && !state.has_gone_on_from(end.id));
    let partners: Vec<(&ServiceName, Standing)> = others.map(|(other, state)| (other, standing(end.id, state))).collect();
    somebody_went_back(&partners)
}

/// A person's word goes before what failed because of it.
fn somebody_went_back(partners: &[(&ServiceName, Standing)]) -> Option<Event> {
    let who = |wanted: Standing| partners.iter().find(|(_, standing)| *standing == wanted).map(|(partner, _)| partner);
    if let Some(partner) = who(Standing::TakenBack) {
        return Some(Event::PartnersTakenBack { reason: format!("{partner}, which moves together with it, was taken back") });
    }
    who(Standing::Failed).map(|partner| Event::PartnersFailed { reason: format!("{partner}, which moves together with it, was rejected") })
}

fn standing(id: Digest, state: &ServiceState) -> Standing {
    if let Some(rollout) = state.rollout.as_ref().filter(|rollout| rollout.together.as_ref().is_some_and(|known| known.id == id)) {
        return match &rollout.stage {
            Stage::Vacate | Stage::Command | Stage::Prepare { .. } => Standing::OnItsWay,
            Stage::Undo { reason: Rejection::PartnerTakenBack { .. } } => Standing::TakenBack,
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
    match state.together.of(id).map(|(_, end)| end.outcome) {
        Some(TogetherOutcome::Live) => Standing::Ready,
        Some(TogetherOutcome::Failed) => Standing::Failed,
        Some(TogetherOutcome::TakenBack) => Standing::TakenBack,
        None => Standing::OnItsWay,
    }
}

/// Why nothing can be tried again together now.
#[derive(Debug, PartialEq, Eq)]
enum Hindrance {
    /// Its part is not over.
    NotAtRest(ServiceName),
    /// It was to move with the other one, and was never declared: something came between.
    LeftOut(ServiceName, ServiceName),
}

/// What is tried again.
#[derive(Debug, PartialEq, Eq)]
struct Again {
    /// What those that are on their way already move in; `None`: nobody is.
    id: Option<Digest>,
    /// All that belong together.
    all: BTreeSet<ServiceName>,
}

impl Engine {
    /// Tries the declared release again, as [`Operation::Retry`] does. What was to move together with others is tried again with all of those that were left behind, too; `id` says from
    /// then on that they belong together, and was never used before.
    ///
    /// # Errors
    /// As [`Engine::operate`]. When one of them would be refused, or is not at rest yet, none is tried again.
    pub async fn retry(&self, service: &ServiceName, id: Digest) -> Result<Declared, DeclareError> {
        let Some(again) = self.again(service)? else { return self.operate(service, Operation::Retry).await };
        let id = again.id.unwrap_or(id);
        let event = |service: &ServiceName| {
            let with = again.all.iter().filter(|other| *other != service).cloned().collect();
            Event::RetriedTogether { together: Together { id, with } }
        };
        let members = self.members(&again);
        for member in &members {
            self.may_be_tried_again(member, &event(member))?;
        }
        for other in members.iter().filter(|other| *other != service) {
            self.work_on(other, event(other)).await?;
        }
        self.work_on(service, event(service)).await
    }

    /// The services that [`Engine::retry`] would try again, this one among them.
    ///
    /// # Errors
    /// When one of them is not at rest yet.
    pub fn tried_again_with(&self, service: &ServiceName) -> Result<BTreeSet<ServiceName>, DeclareError> {
        Ok(self.again(service)?.map_or_else(|| BTreeSet::from([service.clone()]), |again| self.members(&again)))
    }

    /// What this service is waited for in by another one, none of `but`: that one was declared, or is tried again, and something came between before this one was; or this one's own part
    /// still waits for its turn, and makes way for what is declared now.
    #[must_use]
    pub fn is_waited_for(&self, service: &ServiceName, but: &BTreeSet<ServiceName>) -> Option<Together> {
        waited_for(&self.states(), service, but, false)
    }

    fn again(&self, service: &ServiceName) -> Result<Option<Again>, DeclareError> {
        again(&self.states(), service).map_err(Hindrance::into)
    }

    fn states(&self) -> States {
        self.services().into_iter().filter_map(|name| Some((name.clone(), self.state(&name)?))).collect()
    }

    /// Those that are not on their way yet.
    fn members(&self, again: &Again) -> BTreeSet<ServiceName> {
        let moves = |service: &&ServiceName| again.id.is_some_and(|id| self.state(service).is_some_and(|state| state.has_part_in(id)));
        again.all.iter().filter(|service| !moves(service)).cloned().collect()
    }

    fn may_be_tried_again(&self, service: &ServiceName, event: &Event) -> Result<(), DeclareError> {
        let state = self.state(service).unwrap_or_default();
        let refused = |why: &str, hint: String| {
            let reason = format!("{service}: {why} (it moves together with others, so none of them is tried again)");
            Err(DeclareError::Refused { reason, hint })
        };
        if state.healing.stopped {
            return refused("its nodes die again and again", format!("`gapless retry --service {}` makes them again", service.service()));
        }
        match step(&state, event, self.parts().clock.now()).refusal {
            Some(refusal) => refused(&refusal.reason, refusal.hint),
            None => Ok(()),
        }
    }
}

/// With `queued`, a part that waits for its turn counts as one.
fn waited_for(states: &States, service: &ServiceName, but: &BTreeSet<ServiceName>, queued: bool) -> Option<Together> {
    let mut others = states.iter().filter(|(other, _)| *other != service && !but.contains(other));
    others.find_map(|(other, state)| {
        let Together { id, with } = state.is_about_to_move_with().filter(|together| together.with.contains(service))?;
        let with = with.iter().filter(|name| *name != service).chain([other]).cloned().collect();
        let has_part = |own: &Arc<ServiceState>| if queued { own.has_part_in(*id) } else { own.is_part_begun(*id) };
        (!states.get(service).is_some_and(has_part)).then_some(Together { id: *id, with })
    })
}

/// What is tried again together with this service.
fn again(states: &States, service: &ServiceName) -> Result<Option<Again>, Hindrance> {
    // Nodes of what is live are made again after a crash loop, which concerns nobody else.
    let Some(state) = states.get(service).filter(|state| !state.healing.stopped) else { return Ok(None) };
    if let Some(Together { id, with }) = waited_for(states, service, &BTreeSet::new(), true) {
        return Ok(Some(Again { id: Some(id), all: with.into_iter().chain([service.clone()]).collect() }));
    }
    if state.left_together().is_some() {
        return Ok(Some(Again { id: None, all: left_behind_with(states, service)? }));
    }
    if state.is_leaving_together() { Err(Hindrance::NotAtRest(service.clone())) } else { Ok(None) }
}

/// The services that were to move together with this one's declared release, directly or with one of the others, and are not live with theirs either, this one among them.
fn left_behind_with(states: &States, service: &ServiceName) -> Result<BTreeSet<ServiceName>, Hindrance> {
    let left = |service: &ServiceName| states.get(service)?.left_together().map(|(_, end)| end);
    let mut all = BTreeSet::new();
    let mut found = vec![service.clone()];
    while let Some(service) = found.pop() {
        let Some(end) = left(&service).filter(|_| all.insert(service.clone())) else { continue };
        let follows = |state: &ServiceState| state.is_leaving(end.id) || states.get(&service).is_some_and(|own| state.is_left_by(own));
        if let Some((other, _)) = states.iter().find(|(other, state)| **other != service && follows(state)) {
            return Err(Hindrance::NotAtRest(other.clone()));
        }
        let belongs = |other: &ServiceName| left(other).is_some_and(|known| known.id == end.id || known.with.contains(&service));
        let has_part = |other: &ServiceName| belongs(other) || states.get(other).is_some_and(|state| state.has_part_in(end.id));
        // Somebody took it back, so all of them had come.
        let came = end.outcome == TogetherOutcome::TakenBack;
        if let Some(other) = end.with.iter().find(|other| !came && !has_part(other)) {
            return Err(Hindrance::LeftOut(other.clone(), service));
        }
        found.extend(states.keys().filter(|other| belongs(other)).cloned());
    }
    Ok(all)
}

impl From<Hindrance> for DeclareError {
    fn from(hindrance: Hindrance) -> DeclareError {
        let (reason, hint) = match hindrance {
            Hindrance::NotAtRest(service) => {
                (format!("{service}, which moves together with others, is not at rest yet"), "try again when it is: `gapless status` tells")
            }
            Hindrance::LeftOut(other, service) => (
                format!("{other}, which was to move together with {service}, has no release for that, and {service} would go alone"),
                "`gapless deploy` declares all of them",
            ),
        };
        DeclareError::Refused { reason, hint: hint.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::notice::{RolloutKind, RolloutNumber};
    use gapless_core::release::ReleaseNumber;
    use gapless_core::service::{Queued, Ties, TogetherEnd};
    use gapless_core::time::Instant;

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
        let kind = |event: &Event| match event {
            Event::PartnersReady => "ready",
            Event::PartnersTakenBack { .. } => "taken back",
            _ => "failed",
        };
        messages(&states).iter().map(|(service, _, event)| (service.service().to_string(), kind(event))).collect()
    }

    /// A service whose rollout is over: what it was to make live, what is, and what came of it.
    fn ended(id: Digest, release: u32, live: u32, outcome: TogetherOutcome) -> ServiceState {
        let live = GroupId { release: ReleaseNumber(live), instance: InstanceId(live.into()) };
        let together = Ties(BTreeMap::from([(
            ReleaseNumber(release),
            TogetherEnd { id, with: BTreeSet::new(), from: Some(ReleaseNumber(1)), outcome },
        )]));
        ServiceState { live: Some(live), together, ..ServiceState::default() }
    }

    fn waiting(other: &str) -> ServiceState {
        at(Stage::Await { deadline: Instant(9) }, other)
    }

    /// Its part waits for its turn.
    fn queued() -> ServiceState {
        let together = Some(Together { id: ID, with: BTreeSet::new() });
        let queued = Queued { release: ReleaseNumber(2), urgent: false, not_before: None, together };
        ServiceState { queued: Some(queued), ..ServiceState::default() }
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
        let ended = ended(ID, 2, 2, TogetherOutcome::Live);
        assert_eq!(told(waiting("worker"), Some(ended)), [("web".to_string(), "ready")]);
    }

    #[test]
    fn when_one_is_rejected_none_moves() {
        let undone = at(Stage::Undo { reason: Rejection::Cancelled }, "web");
        assert_eq!(told(waiting("worker"), Some(undone)), [("web".to_string(), "failed")]);
        let baking = at(Stage::Bake { until: Instant(9) }, "worker");
        assert_eq!(told(baking.clone(), Some(ended(ID, 2, 1, TogetherOutcome::Failed))), [("web".to_string(), "failed")]);
        assert_eq!(told(baking, Some(ended(ID, 2, 1, TogetherOutcome::TakenBack))), [("web".to_string(), "taken back")]);
        let other = ended(Digest([8; 32]), 2, 1, TogetherOutcome::Failed);
        assert_eq!(told(waiting("worker"), Some(other)), [], "another deployment says nothing");
    }

    /// A service that was left behind: its declared release is not live.
    fn left(id: Digest, with: &str, outcome: TogetherOutcome) -> ServiceState {
        let mut state = ended(id, 2, 1, outcome);
        state.declared = Some(ReleaseNumber(2));
        state.together.0.values_mut().for_each(|end| end.with = BTreeSet::from([name(with)]));
        state
    }

    fn tried_again(web: ServiceState, worker: ServiceState) -> Result<Option<Again>, Hindrance> {
        again(&BTreeMap::from([(name("web"), Arc::new(web)), (name("worker"), Arc::new(worker))]), &name("web"))
    }

    #[test]
    fn what_was_left_behind_is_tried_again_when_all_are_at_rest() {
        let both = Again { id: None, all: BTreeSet::from([name("web"), name("worker")]) };
        let web = || left(ID, "worker", TogetherOutcome::Failed);
        let worker = || left(ID, "web", TogetherOutcome::Failed);
        assert_eq!(tried_again(web(), worker()).as_ref(), Ok(&Some(both)));
        let not_told = ended(ID, 2, 2, TogetherOutcome::Live);
        assert_eq!(tried_again(web(), not_told), Err(Hindrance::NotAtRest(name("worker"))), "it goes back as soon as it is told");
        let group = |release: u32| GroupId { release: ReleaseNumber(release), instance: InstanceId(release.into()) };
        let mut follows = ended(ID, 2, 2, TogetherOutcome::Failed);
        follows.together.0.values_mut().for_each(|end| end.from = Some(ReleaseNumber(1)));
        let stage = Stage::Prepare { deadline: Instant(9), booted: false };
        follows.rollout = Some(Rollout::new(RolloutNumber(2), RolloutKind::Rollback, Some(group(2)), group(1), stage));
        assert_eq!(tried_again(web(), follows), Err(Hindrance::NotAtRest(name("worker"))), "it is on its way back");
        let given_up = at(Stage::Undo { reason: Rejection::Cancelled }, "web");
        assert_eq!(tried_again(web(), given_up), Err(Hindrance::NotAtRest(name("worker"))), "it is being given up");
        let mut own = at(Stage::Undo { reason: Rejection::Cancelled }, "worker");
        own.declared = Some(ReleaseNumber(2));
        assert_eq!(tried_again(own, waiting("web")), Err(Hindrance::NotAtRest(name("web"))), "it is being given up itself");
        let mut gone_on = ended(ID, 2, 3, TogetherOutcome::Failed);
        let alone = || Ok(Some(BTreeSet::from([name("web")])));
        assert_eq!(tried_again(web(), gone_on.clone()).map(|again| again.map(|again| again.all)), alone());
        gone_on.together = Ties::default();
        let left_out = Hindrance::LeftOut(name("worker"), name("web"));
        assert_eq!(tried_again(web(), gone_on.clone()), Err(left_out), "something came between, and it was never declared");
        let taken_back = left(ID, "worker", TogetherOutcome::TakenBack);
        assert_eq!(
            tried_again(taken_back, gone_on.clone()).map(|again| again.map(|again| again.all)),
            alone(),
            "its part is long forgotten"
        );
        let mut further_back = web();
        further_back.together.0.values_mut().for_each(|end| end.from = Some(ReleaseNumber(7)));
        let stays = ended(ID, 2, 2, TogetherOutcome::Live);
        assert_eq!(
            tried_again(further_back, stays).map(|again| again.map(|again| again.all)),
            alone(),
            "the other one stays, and is told nothing"
        );
        assert_eq!(tried_again(web(), queued()), Err(Hindrance::NotAtRest(name("worker"))), "its turn comes yet");
    }

    #[test]
    fn after_a_crash_loop_a_retry_concerns_nobody_else() {
        let mut looping = left(ID, "worker", TogetherOutcome::Failed);
        looping.healing.stopped = true;
        assert_eq!(tried_again(looping, left(ID, "web", TogetherOutcome::Failed)), Ok(None));
    }

    #[test]
    fn who_was_left_out_by_a_crash_joins_those_that_wait_for_it() {
        let joined = Again { id: Some(ID), all: BTreeSet::from([name("web"), name("worker")]) };
        let earlier = Digest([8; 32]);
        assert_eq!(tried_again(left(earlier, "worker", TogetherOutcome::Failed), waiting("web")), Ok(Some(joined)));
        let states = BTreeMap::from([(name("worker"), Arc::new(waiting("web")))]);
        let together = waited_for(&states, &name("web"), &BTreeSet::new(), true);
        assert_eq!(together, Some(Together { id: ID, with: BTreeSet::from([name("worker")]) }), "it was never declared");
        assert_eq!(waited_for(&states, &name("web"), &BTreeSet::from([name("worker")]), true), None, "that one moves again itself");
        assert_eq!(waited_for(&states, &name("other"), &BTreeSet::new(), true), None);
        let own = Arc::new(queued());
        let states = BTreeMap::from([(name("worker"), Arc::new(waiting("web"))), (name("web"), own)]);
        assert_eq!(waited_for(&states, &name("web"), &BTreeSet::new(), true), None, "its turn comes yet");
        let with = BTreeSet::from([name("worker")]);
        assert_eq!(
            waited_for(&states, &name("web"), &BTreeSet::new(), false),
            Some(Together { id: ID, with }),
            "what takes that place joins"
        );
        let gave_up = left(ID, "worker", TogetherOutcome::Failed);
        let states = BTreeMap::from([(name("worker"), Arc::new(waiting("web"))), (name("web"), Arc::new(gave_up))]);
        assert_eq!(waited_for(&states, &name("web"), &BTreeSet::new(), true), None, "it was part of it, and is not any more");
        let split = (left(earlier, "worker", TogetherOutcome::Failed), left(ID, "web", TogetherOutcome::Failed));
        let both = Again { id: None, all: BTreeSet::from([name("web"), name("worker")]) };
        assert_eq!(tried_again(split.0, split.1), Ok(Some(both)), "the one waited in vain for the other");
    }

    #[test]
    fn who_has_gone_on_binds_nobody() {
        let mut left = ended(ID, 2, 1, TogetherOutcome::TakenBack);
        left.together.0.values_mut().for_each(|end| end.from = Some(ReleaseNumber(1)));
        let came = || ended(ID, 2, 2, TogetherOutcome::Live);
        assert_eq!(told(came(), Some(left.clone())), [("web".to_string(), "taken back")]);
        let group = |release: u32| GroupId { release: ReleaseNumber(release), instance: InstanceId(release.into()) };
        let moves = |from: u32| {
            let stage = Stage::Prepare { deadline: Instant(9), booted: false };
            Some(Rollout::new(RolloutNumber(7), RolloutKind::Deploy, Some(group(from)), group(6), stage))
        };
        left.rollout = moves(1);
        assert_eq!(told(came(), Some(left.clone())), [("web".to_string(), "taken back")], "it has not gone on yet");
        left.live = Some(group(5));
        left.rollout = moves(5);
        assert_eq!(told(came(), Some(left.clone())), [], "it goes on from somewhere else");
        left.rollout = None;
        assert_eq!(told(came(), Some(left.clone())), []);
        left.live = Some(group(2));
        assert_eq!(told(came(), Some(left)), [], "it could not go back");
    }

    #[test]
    fn what_came_together_goes_back_together_when_its_rollout_is_over() {
        let came = || ended(ID, 2, 2, TogetherOutcome::Live);
        assert_eq!(told(at(Stage::Bake { until: Instant(9) }, "worker"), Some(came())), [], "all is well");
        let undone = at(Stage::Undo { reason: Rejection::Cancelled }, "worker");
        assert_eq!(told(undone, Some(came())), [("worker".to_string(), "failed")]);
        let taken_back = at(Stage::Undo { reason: Rejection::PartnerTakenBack { reason: String::new() } }, "worker");
        assert_eq!(told(taken_back, Some(came())), [("worker".to_string(), "taken back")]);
        let both = || ended(ID, 2, 1, TogetherOutcome::Failed);
        assert_eq!(told(both(), Some(came())), [("worker".to_string(), "failed")]);
        assert_eq!(told(both(), Some(both())), [], "both are back");
        assert_eq!(told(both(), Some(ended(ID, 2, 3, TogetherOutcome::Live))), [], "it has gone on since");
    }
}
