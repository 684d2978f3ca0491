//! The distinct states of the core, in their normal form, and what the production transition function makes of each with each event. Every pair of them is decided once, and
//! judged then: many states of the world share it.

use super::configuration::{Configuration, Operation};
use super::fingerprint::{Fingerprint, Identity, fingerprint};
use super::normal::{self, NOW, Renaming};
use super::symmetry::{self, Signatures};
use super::world::{Fault, Sight, World, fault};
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::{Event, Failure};
use gapless_core::invariant;
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind};
use gapless_core::release::ReleaseNumber;
use gapless_core::rollout::Step;
use gapless_core::service::{Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Looks without anything between them until nothing more may follow.
const ROUNDS_TO_REST: usize = 8;

/// How many decisions are kept: past that all are forgotten and made again, so that memory goes to states.
const KEPT_DECISIONS: usize = 200_000;

/// After one of so many looks that changed something the same is looked at again and again. The schedule without faults looks first, so that a core that never rests is found there too.
const CHECK_OF_REST: u64 = 8;

/// One of so many decisions is checked for what the model takes for granted: that nodes are alike, and that requests count only on nodes that leave.
const CHECK_OF_ASSUMPTIONS: u32 = 16;

/// A function that decides: the production one, or one that was broken on purpose.
pub type Transition = fn(&ServiceState, &Event, Instant) -> Step;

/// What happens to a core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Seen(Sight),
    Ended(EffectId, Result<(), bool>),
    Judged(EffectId, Verdict),
    Restarted,
    /// The declaration at this place of the script.
    Declared(usize),
    RolledBack,
    Operated(Operation),
    PartnersReady,
    PartnersFailed,
    PartnersTakenBack,
    Later(Duration),
}

/// One distinct state of the core, in its normal form. States of the world share it.
pub struct Core {
    key: Fingerprint,
    pub state: ServiceState,
    pub floor: usize,
    pub next_deadline: Option<Instant>,
    pub signatures: Signatures,
}

impl Hash for Core {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.0.hash(hasher);
    }
}

impl PartialEq for Core {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Core {}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// What came of a cause.
#[derive(Debug)]
pub struct Decision {
    pub core: Rc<Core>,
    pub renaming: Renaming,
    /// What was sent, by the numbers before the renaming.
    pub sent: Vec<(EffectId, Effect)>,
    pub refused: bool,
    /// The release that was given up with this.
    pub rejected: Option<ReleaseNumber>,
}

pub struct Cores {
    transition: Transition,
    judge: bool,
    symmetric: bool,
    /// Every state that was ever decided on.
    ever: HashSet<Fingerprint, Identity>,
    /// Those that are in use.
    known: HashMap<Fingerprint, Weak<Core>, Identity>,
    decisions: HashMap<(Fingerprint, Fingerprint), Rc<Decision>, Identity>,
    permuted: HashMap<(Fingerprint, Fingerprint), Rc<Core>, Identity>,
    /// Situations that were reached.
    pub marks: BTreeSet<&'static str>,
    /// Looks that changed something.
    changes: u64,
}

impl Cores {
    /// `judge`: whether each decision is checked by the core's own invariants. Without, only the world can tell. `symmetric`: whether nodes of a group are treated as alike.
    pub fn new(transition: Transition, judge: bool, symmetric: bool) -> Self {
        Cores {
            transition,
            judge,
            symmetric,
            ever: HashSet::default(),
            known: HashMap::default(),
            decisions: HashMap::default(),
            permuted: HashMap::default(),
            marks: BTreeSet::new(),
            changes: 0,
        }
    }

    /// How many distinct states of the core there were.
    pub fn len(&self) -> usize {
        self.ever.len()
    }

    /// The shared copy of a state that is in its normal form.
    pub fn intern(&mut self, state: ServiceState) -> Rc<Core> {
        let key = fingerprint(&state);
        if let Some(core) = self.known.get(&key).and_then(Weak::upgrade) {
            return core;
        }
        if self.known.len() >= KEPT_DECISIONS && self.known.len() == self.known.capacity() {
            self.known.retain(|_, core| core.strong_count() > 0);
        }
        if self.ever.insert(key) {
            self.marks.extend(stage_mark(&state));
        }
        let (floor, next_deadline) = (invariant::floor(&state), state.next_deadline());
        let signatures = if self.symmetric { symmetry::signatures(&state) } else { Signatures::new() };
        let core = Rc::new(Core { key, state, floor, next_deadline, signatures });
        self.known.insert(key, Rc::downgrade(&core));
        core
    }

    /// Brings nodes into their normal order.
    pub fn arrange(&mut self, core: &mut Rc<Core>, world: &mut World) {
        if !self.symmetric {
            return;
        }
        let places = symmetry::order(&core.state, &core.signatures, world);
        if places.is_empty() {
            return;
        }
        symmetry::permute_world(world, &places);
        let key = (core.key, fingerprint(&places));
        if let Some(known) = self.permuted.get(&key) {
            *core = Rc::clone(known);
            return;
        }
        let mut state = core.state.clone();
        symmetry::permute_core(&mut state, &places);
        *core = self.intern(state);
        if self.permuted.len() >= KEPT_DECISIONS {
            self.permuted.clear();
        }
        self.permuted.insert(key, Rc::clone(core));
    }

    /// What the core decides, from its memory if it did before.
    pub fn decide(&mut self, core: &Rc<Core>, cause: &Cause, configuration: &Configuration, service: usize) -> Result<Rc<Decision>, Fault> {
        let key = (core.key, fingerprint(cause));
        if let Some(known) = self.decisions.get(&key) {
            return Ok(Rc::clone(known));
        }
        let decision = Rc::new(match cause {
            Cause::Later(by) => self.later(&core.state, *by),
            _ => self.step(&core.state, &event(&core.state, cause, configuration, service))?,
        });
        if let Cause::Seen(sight) = cause
            && (key.0.0[1] ^ key.1.0[1]).is_multiple_of(CHECK_OF_ASSUMPTIONS)
        {
            if self.symmetric {
                self.is_symmetric(core, sight)?;
            }
            self.cares_only_for_old_requests(core, sight)?;
        }
        if self.decisions.len() >= KEPT_DECISIONS {
            self.decisions.clear();
        }
        self.decisions.insert(key, Rc::clone(&decision));
        Ok(decision)
    }

    /// Nodes that have traffic are shown as busy. The core decides the same when they are idle.
    fn cares_only_for_old_requests(&self, core: &Core, sight: &Sight) -> Result<(), Fault> {
        let decide = |sight: &Sight| (self.transition)(&core.state, &Event::Observed(sight.observation(&core.state)), NOW);
        let mut idle = sight.clone();
        for (node, .., requests) in &mut idle.nodes {
            if core.state.is_wanted(*node) {
                *requests = 0;
            }
        }
        if decide(sight) == decide(&idle) {
            return Ok(());
        }
        fault("requests", format!("requests on nodes that do not leave matter: {:?} {sight:?}", core.state))
    }

    /// The core decides the same when nodes of a group have changed places.
    fn is_symmetric(&self, core: &Core, sight: &Sight) -> Result<(), Fault> {
        let decide = |state: &ServiceState, sight: &Sight| (self.transition)(state, &Event::Observed(sight.observation(state)), NOW);
        let plain = decide(&core.state, sight);
        for places in symmetry::swaps(&core.state, sight) {
            let (mut state, mut seen) = (core.state.clone(), sight.clone());
            symmetry::permute_core(&mut state, &places);
            symmetry::permute_sight(&mut seen, &places);
            let mut swapped = decide(&state, &seen);
            let mut expected = plain.state.clone();
            symmetry::permute_core(&mut expected, &places);
            normal::normalise(&mut expected);
            normal::normalise(&mut swapped.state);
            if swapped.state != expected {
                return fault("symmetry", format!("it matters which node is which: {places:?}\n{:?}\n{sight:?}", core.state));
            }
        }
        Ok(())
    }

    fn later(&mut self, state: &ServiceState, by: Duration) -> Decision {
        let mut state = state.clone();
        normal::later(&mut state, by);
        let renaming = normal::normalise(&mut state);
        Decision { core: self.intern(state), renaming, sent: Vec::new(), refused: false, rejected: None }
    }

    fn step(&mut self, before: &ServiceState, event: &Event) -> Result<Decision, Fault> {
        let step = (self.transition)(before, event, NOW);
        if self.judge {
            invariant::check(before, event, NOW, &step)
                .map_err(|violation| Fault { rule: rule(&violation), evidence: violation.evidence })?;
        }
        if matches!(event, Event::Observed(_)) {
            self.comes_to_rest(before, &step, event)?;
        }
        let mut rejected = None;
        for (_, effect) in &step.effects {
            self.marks.extend(effect_mark(effect));
            if let Effect::Notify(Notice::Rejecting { .. }) = effect {
                rejected = before.rollout.as_ref().map(|rollout| rollout.to.release);
            }
        }
        let (mut state, refused) = (step.state, step.refusal.is_some());
        let renaming = normal::normalise(&mut state);
        Ok(Decision { core: self.intern(state), renaming, sent: step.effects, refused, rejected })
    }

    /// A look that changes nothing leaves no deadline that has passed: the engine would be awake for ever. And looks end in such a one.
    fn comes_to_rest(&mut self, before: &ServiceState, first: &Step, look: &Event) -> Result<(), Fault> {
        if first.state == *before && first.effects.is_empty() {
            return match before.next_deadline().filter(|deadline| *deadline <= NOW) {
                Some(deadline) => fault("rest", format!("the deadline {deadline:?} has passed and nothing follows from it")),
                None => Ok(()),
            };
        }
        self.changes += 1;
        if !self.changes.is_multiple_of(CHECK_OF_REST) {
            return Ok(());
        }
        let mut state = first.state.clone();
        for _ in 0..ROUNDS_TO_REST {
            let step = (self.transition)(&state, look, NOW);
            if step.state == state && step.effects.is_empty() {
                return Ok(());
            }
            state = step.state;
        }
        fault("rest", format!("the core does not come to rest on an unchanged world within {ROUNDS_TO_REST} looks"))
    }
}

fn rule(violation: &invariant::Violation) -> &'static str {
    ["I1", "I2", "I3", "I4", "I5", "I6"][violation.invariant as usize]
}

fn event(state: &ServiceState, cause: &Cause, configuration: &Configuration, service: usize) -> Event {
    match cause {
        Cause::Seen(sight) => Event::Observed(sight.observation(state)),
        Cause::Ended(effect, result) => {
            let result = (*result).map_err(|is_final| Failure { reason: String::new(), is_final });
            Event::EffectEnded { effect: *effect, result }
        }
        Cause::Restarted | Cause::Later(_) => Event::Restarted,
        Cause::Judged(effect, verdict) => {
            Event::Analysed { effect: *effect, judgement: Judgement { verdict: *verdict, evidence: String::new() } }
        }
        Cause::Declared(place) => Event::Declared {
            declaration: configuration.script[service][*place].clone(),
            urgent: false,
            together: configuration.together_of(service, *place),
        },
        Cause::PartnersReady => Event::PartnersReady,
        Cause::PartnersFailed => Event::PartnersFailed { reason: String::new() },
        Cause::PartnersTakenBack => Event::PartnersTakenBack { reason: String::new() },
        Cause::RolledBack => Event::RollbackRequested { to: None, forced: false },
        Cause::Operated(operation) => operation.event(),
    }
}

fn stage_mark(state: &ServiceState) -> Option<&'static str> {
    if state.draining.values().any(|drain| drain.cut.is_some_and(|cut| cut > 0)) {
        return Some("cut");
    }
    Some(match &state.rollout {
        None => "no rollout",
        Some(Rollout { stage: Stage::Prepare { booted: false, .. }, .. }) => "prepare",
        Some(Rollout { stage: Stage::Prepare { booted: true, .. }, .. }) => "gate",
        Some(Rollout { stage: Stage::Shift, .. }) => "shift",
        Some(Rollout { stage: Stage::Bake { .. }, .. }) => "bake",
        Some(Rollout { stage: Stage::Retire, .. }) => "retire",
        Some(Rollout { stage: Stage::Undo { .. }, .. }) => "undo",
        Some(Rollout { stage: Stage::Vacate, .. }) => "vacate",
        Some(Rollout { stage: Stage::Command, .. }) => "command",
        Some(Rollout { stage: Stage::Await { .. }, .. }) => "await",
        Some(Rollout { stage: Stage::Canary(_), .. }) => "canary",
        Some(Rollout { stage: Stage::Roll { .. }, .. }) => "roll",
        Some(Rollout { stage: Stage::Confirm, .. }) => "confirm",
        Some(Rollout { stage: Stage::Unroll { .. }, .. }) => "unroll",
        Some(Rollout { stage: Stage::Restore { .. }, .. }) => "restore",
    })
}

fn effect_mark(effect: &Effect) -> Option<&'static str> {
    let Effect::Notify(notice) = effect else { return Some(effect.name()) };
    Some(match notice {
        Notice::RolloutEnded { outcome: Outcome::Live, settled: true, .. } => "ended live",
        Notice::RolloutEnded { outcome: Outcome::Live, .. } => "ended live, not settled",
        Notice::RolloutEnded { .. } => "ended rejected",
        Notice::NodeLost { .. } => "lost a node",
        Notice::NodeReplaced { .. } => "replaced a node",
        Notice::ShiftBegan { way_back: true, .. } => "shift with a way back",
        Notice::RolloutStarted { kind: RolloutKind::Eviction, .. } => "eviction",
        Notice::RolloutStarted { kind: RolloutKind::Rollback, .. } => "rollback",
        Notice::Queued { .. } => "queued",
        Notice::Paused { .. } => "paused",
        Notice::Resumed { .. } => "resumed",
        Notice::Scaled { .. } => "scaled",
        Notice::BatchJoined { .. } => "a batch joined",
        Notice::CrashLoop { .. } => "crash loop",
        Notice::Rejecting { reason, .. } => rejection_mark(reason),
        _ => return None,
    })
}

fn rejection_mark(reason: &Rejection) -> &'static str {
    match reason {
        Rejection::GateFailed { .. } => "gate failed",
        Rejection::NodeExited { .. } => "node exited",
        Rejection::ProgressDeadline { .. } => "progress deadline",
        Rejection::WrongImage { .. } => "wrong image",
        Rejection::EffectFailed { .. } => "effect failed for good",
        Rejection::TakenBack => "taken back",
        Rejection::Cancelled => "cancelled",
        Rejection::Superseded => "superseded",
        Rejection::TaskFailed { .. } => "task failed",
        Rejection::AnalysisFailed { .. } => "analysis failed",
        Rejection::Inconclusive { .. } => "analysis without an end",
        Rejection::Revoked => "revoked",
        Rejection::PartnerFailed { .. } => "partner failed",
        Rejection::PartnerTakenBack { .. } => "partner taken back",
    }
}
