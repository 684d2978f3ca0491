//! What people ask for: a declaration, a rollback.

use crate::effect::{Effect, EffectKind};
use crate::node::{GroupId, InstanceId};
use crate::notice::{Notice, Rejection, RolloutKind, RolloutNumber};
use crate::pass::Pass;
use crate::release::{Declaration, ReleaseNumber};
use crate::rollout::Step;
use crate::route::Weight;
use crate::service::{Group, Healing, Rollout, ServiceState, Stage};
use crate::time::Instant;
use alloc::format;
use alloc::string::{String, ToString};

const WAIT: &str = "wait for it to end, or see `gapless status`: until its gate is passed the live release is untouched";

const GO_BACK: &str = "bring the proxy back that has not acknowledged the route (`gapless explain` tells what it answers), or give the traffic back with `gapless rollback`";

const NAME_IT: &str = "bring the proxy back that has not acknowledged the route (`gapless explain` tells what it answers), or name the release to go to, such as `gapless rollback r3`";

const BRING_BACK: &str = "bring the proxy back that has not acknowledged the route: `gapless explain` tells what it answers";

/// What a declaration means for a service.
pub(crate) enum Wish {
    /// It is so already, or on its way (I6).
    Nothing,
    /// It is what is live: nothing has to be done, but this release is the wanted one from now on (I6).
    Adopt(ReleaseNumber),
    /// It makes a new release.
    Release,
    /// It cannot be done now, or never: why, and what to do.
    Refused(String, &'static str),
}

/// What this declaration means for this service.
pub(crate) fn wish(state: &ServiceState, declaration: &Declaration) -> Wish {
    if let Some((reason, hint)) = unsound(declaration) {
        return Wish::Refused(reason, hint);
    }
    if is_wanted_already(state, declaration) {
        return Wish::Nothing;
    }
    if let Some(release) = live_already(state, declaration) {
        return Wish::Adopt(release);
    }
    match busy(state) {
        Some((reason, hint)) => Wish::Refused(reason, hint),
        None => Wish::Release,
    }
}

pub(crate) fn declare(state: &ServiceState, declaration: &Declaration, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    match wish(state, declaration) {
        Wish::Nothing => pass.step(),
        Wish::Adopt(release) => {
            pass.state.declared = Some(release);
            pass.state.pinned = false;
            pass.step()
        }
        Wish::Refused(reason, hint) => pass.refuse(state, reason, hint),
        Wish::Release => {
            pass.make_room();
            let release = pass.add_release(declaration);
            pass.state.pinned = false;
            pass.begin(RolloutKind::Deploy, release);
            pass.step()
        }
    }
}

pub(crate) fn roll_back(state: &ServiceState, to: Option<ReleaseNumber>, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if let Some(group) = group_to_take_back(state, to) {
        pass.take_back(group);
        return pass.step();
    }
    if let Some((reason, hint)) = busy(state) {
        return pass.refuse(state, reason, hint);
    }
    let Some(release) = to.or_else(|| before_the_present(state)) else {
        return pass.refuse(state, "no release was live before the present one".into(), "`gapless releases` lists what there is");
    };
    if state.live_release() == Some(release) {
        return pass.refuse(state, format!("{release} is live already"), "name another release: `gapless releases` lists what there is");
    }
    if !state.served.contains(&release) {
        return pass.refuse(state, format!("{release} was never live"), "name a release that was: `gapless releases` lists what there is");
    }
    pass.state.pinned = state.declared != Some(release);
    match warm_group(state).filter(|group| group.release == release) {
        Some(group) => pass.return_to(group),
        None => {
            pass.make_room();
            pass.begin(RolloutKind::Rollback, release);
        }
    }
    pass.step()
}

/// What no rollout could ever fulfil. The server says it better, with the place in the file; this is the last line of defence.
fn unsound(declaration: &Declaration) -> Option<(String, &'static str)> {
    let policy = &declaration.policy;
    if declaration.nodes == 0 {
        return Some(("the declaration wants 0 nodes".into(), "declare at least 1 node"));
    }
    if policy.floor > declaration.nodes {
        return Some((
            format!("the floor of {} is above the {} nodes", policy.floor, declaration.nodes),
            "lower the floor or declare more nodes",
        ));
    }
    if policy.gate_passes == 0 || policy.gate_failures == 0 {
        return Some(("the health gate asks for no check at all".into(), "set passes and failures of the gate to at least 1"));
    }
    policy
        .progress_deadline
        .is_zero()
        .then(|| ("the progress deadline is 0".to_string(), "give the new nodes time to start, such as \"2m\""))
}

fn is_wanted_already(state: &ServiceState, declaration: &Declaration) -> bool {
    let Some(release) =
        state.declared.filter(|release| state.declaration(*release).is_some_and(|known| known.content == declaration.content))
    else {
        return false;
    };
    let under_way =
        state.rollout.as_ref().is_some_and(|rollout| rollout.to.release == release && !matches!(rollout.stage, Stage::Undo { .. }));
    // Neither pinned nor live nor on its way: it was rejected, and declaring it again is asking for another try.
    state.pinned || under_way || state.live_release() == Some(release)
}

/// The live release, if it is what this declaration says and nothing is about to take its place.
fn live_already(state: &ServiceState, declaration: &Declaration) -> Option<ReleaseNumber> {
    let release =
        state.live_release().filter(|release| state.declaration(*release).is_some_and(|known| known.content == declaration.content))?;
    let leaving = state.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Prepare { .. } | Stage::Shift));
    (!leaving).then_some(release)
}

/// Why nothing else can begin now, and what a person can do.
fn busy(state: &ServiceState) -> Option<(String, &'static str)> {
    let Rollout { number, from, to, stage, .. } = state.rollout.as_ref()?;
    match stage {
        Stage::Prepare { .. } => Some((format!("rollout {number} is preparing {}", to.release), WAIT)),
        Stage::Shift => {
            let reason = format!("rollout {number} is shifting the traffic to {}, and not every proxy has acknowledged it", to.release);
            let hint = match from.and_then(|from| group_to_take_back(state, Some(from.release))) {
                Some(_) if group_to_take_back(state, None).is_some() => GO_BACK,
                Some(_) => NAME_IT,
                None => BRING_BACK,
            };
            Some((reason, hint))
        }
        Stage::Bake { .. } | Stage::Retire | Stage::Undo { .. } => None,
        _ => Some((format!("rollout {number} is in progress"), WAIT)),
    }
}

/// The old group, if it is to take the traffic back that not every proxy has handed over yet. Without a name only out of a deployment: asking twice to go back must not go forward.
fn group_to_take_back(state: &ServiceState, to: Option<ReleaseNumber>) -> Option<GroupId> {
    let Some(Rollout { kind, from: Some(from), stage: Stage::Shift, .. }) = state.rollout else { return None };
    let meant = to.map_or(kind == RolloutKind::Deploy, |release| release == from.release);
    let floor = state.declaration(from.release)?.policy.floor.max(1) as usize;
    (meant && state.wanted_nodes(from).count() >= floor).then_some(from)
}

fn before_the_present(state: &ServiceState) -> Option<ReleaseNumber> {
    match &state.rollout {
        Some(Rollout { from: Some(from), stage: Stage::Bake { .. } | Stage::Retire, .. }) => Some(from.release),
        _ => state.previous,
    }
}

/// The old group of a rollout in its bake window, if it still has its full size.
fn warm_group(state: &ServiceState) -> Option<GroupId> {
    let Some(Rollout { from: Some(from), stage: Stage::Bake { .. }, .. }) = state.rollout else { return None };
    let warm = state.wanted_nodes(from).filter(|node| state.route.members.get(node) == Some(&Weight::PROBED)).count();
    (warm >= state.declaration(from.release)?.nodes as usize).then_some(from)
}

impl Pass {
    fn add_release(&mut self, declaration: &Declaration) -> ReleaseNumber {
        self.state.next.releases += 1;
        let release = ReleaseNumber(self.state.next.releases);
        self.state.releases.insert(release, declaration.clone());
        self.state.declared = Some(release);
        release
    }

    /// Makes room for another rollout: the decision of the present one has fallen, what is left of it (drain, destruction) goes on beside.
    fn make_room(&mut self) {
        if let Some(Rollout { from: Some(from), stage: Stage::Bake { .. }, .. }) = self.state.rollout {
            self.give_up(from);
        }
        self.close_rollout(false);
    }

    /// A rollout to a new group of this release.
    fn begin(&mut self, kind: RolloutKind, release: ReleaseNumber) {
        let Some(declaration) = self.state.declaration(release).cloned() else { return };
        self.state.next.instances.0 += 1;
        let to = GroupId { release, instance: InstanceId(self.state.next.instances.0) };
        let group = Group { size: declaration.nodes, made: 0, nodes: (0..declaration.nodes).collect(), exposed: false };
        self.state.groups.insert(to, group);
        self.start(
            kind,
            self.state.live,
            to,
            Stage::Prepare { deadline: self.now.after(declaration.policy.progress_deadline), booted: false },
        );
        self.state.retries.remove(&EffectKind::EnsureGroup);
        self.send(Effect::EnsureGroup { group: to, size: declaration.nodes });
    }

    /// A rollout back to the group that is still warm. Its nodes are members already: the next look at the world gates and shifts.
    fn return_to(&mut self, group: GroupId) {
        self.close_rollout(false);
        self.start_back(group, true);
    }

    /// Gives the present rollout up in its shift, and begins one back to the group that had the traffic. Its nodes may be members no more, so they are probed first; the
    /// new group keeps what traffic it has until then.
    fn take_back(&mut self, group: GroupId) {
        let Some(Rollout { number, to, .. }) = self.state.rollout else { return };
        self.state.pinned = self.state.declared != Some(group.release);
        self.state.live = Some(to);
        self.set_stage(Stage::Undo { reason: Rejection::TakenBack });
        self.notify(Notice::Rejecting { rollout: number, reason: Rejection::TakenBack });
        self.close_rollout(false);
        self.start_back(group, false);
    }

    fn start_back(&mut self, group: GroupId, booted: bool) {
        let trial = self.state.declaration(group.release).map_or_else(Default::default, |declaration| declaration.policy.progress_deadline);
        let deadline = self.now.after(trial);
        self.start(RolloutKind::Rollback, self.state.live, group, Stage::Prepare { deadline, booted });
    }

    fn start(&mut self, kind: RolloutKind, from: Option<GroupId>, to: GroupId, stage: Stage) {
        self.state.next.rollouts += 1;
        let number = RolloutNumber(self.state.next.rollouts);
        self.state.healing = Healing::default();
        self.state.rollout = Some(Rollout::new(number, kind, from, to, stage));
        let from = from.map(|group| group.release);
        self.notify(Notice::RolloutStarted { rollout: number, kind, from, to: to.release });
    }
}
