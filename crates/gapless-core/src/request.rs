//! What people ask for: a declaration, a rollback.

use crate::node::GroupId;
use crate::notice::{Rejection, RolloutKind};
use crate::pass::Pass;
use crate::release::{Declaration, ReleaseNumber};
use crate::rollout::Step;
use crate::route::Weight;
use crate::service::{Queued, Rollout, ServiceState, Stage, Together};
use crate::sound::unsound;
use crate::time::Instant;
use alloc::format;
use alloc::string::{String, ToString};

const WAIT: &str = "wait for it to end, or end it with `gapless cancel`: `gapless status` tells how far it is";

const GO_BACK: &str = "bring the proxy back that has not acknowledged the route (`gapless explain` tells what it answers), or give the traffic back with `gapless rollback`";

const NAME_IT: &str = "bring the proxy back that has not acknowledged the route (`gapless explain` tells what it answers), or name the release to go to, such as `gapless rollback r3`";

const BRING_BACK: &str = "bring the proxy back that has not acknowledged the route: `gapless explain` tells what it answers";

const LIST: &str = "`gapless releases` lists what there is";

/// What a declaration means for a service.
pub(crate) enum Wish {
    /// It is so already, or on its way, or next (I6).
    Nothing,
    /// It is what is live or on its way: nothing has to be done, but this release is the wanted one from now on (I6).
    Adopt(ReleaseNumber),
    /// It makes a new release, and its rollout begins.
    Release,
    /// It makes a new release that waits: for the rollout in progress, or for the end of a freeze window.
    Queue {
        /// The end of the freeze window.
        frozen_until: Option<Instant>,
    },
    /// It can never be done: why, and what to do.
    Refused(String, &'static str),
}

/// What this declaration means for this service.
pub(crate) fn wish(state: &ServiceState, declaration: &Declaration, urgent: bool, now: Instant) -> Wish {
    if let Some((reason, hint)) = unsound(declaration).or_else(|| impossible_here(state, declaration)) {
        return Wish::Refused(reason, hint);
    }
    if is_wanted_already(state, declaration) {
        return Wish::Nothing;
    }
    if let Some(release) = there_already(state, declaration) {
        return Wish::Adopt(release);
    }
    let frozen_until = if urgent { None } else { frozen_until(declaration, now) };
    if frozen_until.is_some() || busy(state).is_some() { Wish::Queue { frozen_until } } else { Wish::Release }
}

pub(crate) fn declare(state: &ServiceState, declaration: &Declaration, urgent: bool, together: Option<&Together>, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    match wish(state, declaration, urgent, now) {
        Wish::Nothing => {
            together.into_iter().for_each(|together| pass.be_next_with(together));
            if urgent {
                pass.hurry();
            }
        }
        Wish::Adopt(release) => {
            pass.dequeue();
            pass.state.declared = Some(release);
            pass.state.pinned = false;
        }
        Wish::Refused(reason, hint) => return pass.refuse(state, reason, hint),
        Wish::Release => {
            pass.make_room();
            pass.dequeue_for(together);
            let release = pass.add_release(declaration);
            pass.state.pinned = false;
            pass.begin(RolloutKind::Deploy, release, together.cloned());
        }
        Wish::Queue { frozen_until } => {
            let release = pass.add_release(declaration);
            let not_before = frozen_until.filter(|_| busy(state).is_none());
            pass.queue(Queued { release, urgent, not_before, together: together.cloned() }, frozen_until);
            pass.state.pinned = false;
            if frozen_until.is_none() {
                pass.replace_if_wanted(release, together);
            }
        }
    }
    pass.step()
}

pub(crate) fn roll_back(state: &ServiceState, to: Option<ReleaseNumber>, forced: bool, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let target = match rollback_target(state, to) {
        Ok(target) => target,
        Err((reason, hint)) => return pass.refuse(state, reason, hint),
    };
    if let Some((reason, hint)) = no_way_back_to(state, target, forced) {
        return pass.refuse(state, reason, hint);
    }
    pass.dequeue();
    pass.state.pinned = state.declared != Some(target);
    if let Some(group) = group_to_take_back(state, to) {
        pass.take_back(group, Rejection::TakenBack);
    } else if let Some(group) = warm_group(state).filter(|group| group.release == target) {
        pass.return_to(RolloutKind::Rollback, group);
    } else {
        pass.make_room();
        pass.begin(RolloutKind::Rollback, target, None);
    }
    pass.is_by_hand();
    pass.step()
}

impl ServiceState {
    /// The release that a wish to go back would lead to now, by name or without one. `None`: it would be refused.
    #[must_use]
    pub fn way_back(&self, to: Option<ReleaseNumber>) -> Option<ReleaseNumber> {
        rollback_target(self, to).ok()
    }
}

type Why = (String, &'static str);

/// The release that a wish to go back means.
fn rollback_target(state: &ServiceState, to: Option<ReleaseNumber>) -> Result<ReleaseNumber, Why> {
    if let Some(group) = group_to_take_back(state, to) {
        return Ok(group.release);
    }
    if let Some(why) = busy(state) {
        return Err(why);
    }
    if let (None, true, Some(live)) = (to, state.pinned, state.live_release()) {
        let hint = "name another release (`gapless releases` lists them), or try the declared one again: `gapless retry`";
        return Err((format!("{live} was gone back to by hand already"), hint));
    }
    let release = to.or_else(|| before_the_present(state)).ok_or(("no release was live before the present one".to_string(), LIST))?;
    if state.live_release() == Some(release) {
        return Err((format!("{release} is live already"), "name another release: `gapless releases` lists what there is"));
    }
    if !state.served.contains(&release) {
        let reason = if release.0 <= state.next.releases && !state.releases.contains_key(&release) {
            format!("{release} is not kept any more")
        } else {
            format!("{release} was never live")
        };
        return Err((reason, "name a release that was: `gapless releases` lists what there is"));
    }
    Ok(release)
}

/// Why nothing may go back to this release.
pub(crate) fn no_way_back_to(state: &ServiceState, target: ReleaseNumber, forced: bool) -> Option<Why> {
    if state.is_revoked(target) {
        return Some((
            format!("the artifact of {target} is revoked"),
            "name another release, or lift the revocation: `gapless revoke --lift`",
        ));
    }
    let breaking = broken_by(state, target)?;
    let hint = "what it changed is not there for earlier releases: deploy a release that mends it, or go back all the same with `gapless rollback --force`";
    (!forced).then(|| (format!("{breaking} declares that no release before it can run any more, so {target} cannot be gone back to"), hint))
}

/// The latest release after this one that was given traffic, or is, and that takes away what earlier ones need.
pub(crate) fn broken_by(state: &ServiceState, target: ReleaseNumber) -> Option<ReleaseNumber> {
    let present = state.rollout.as_ref().filter(|rollout| rollout.has_touched_the_old()).map(|rollout| rollout.to.release);
    // What the present rollout replaces ran after that, and what comes after it goes on from there.
    let outlived = |tried: &ReleaseNumber| {
        state.rollout.as_ref().is_some_and(|rollout| rollout.from.is_some_and(|from| from.release == target) && *tried < rollout.to.release)
    };
    let tried = state.tried.filter(|tried| !outlived(tried));
    let ran = state.served.iter().copied().chain(state.live_release()).chain(present).chain(tried);
    let breaks = |release: &ReleaseNumber| state.declaration(*release).is_some_and(|known| known.policy.breaks_the_way_back);
    ran.filter(|release| *release > target).filter(breaks).max()
}

/// What this service cannot take, sound as the declaration is in itself.
fn impossible_here(state: &ServiceState, declaration: &Declaration) -> Option<Why> {
    if state.revoked.contains(&declaration.artifact) {
        let reason = format!("version {} of the artifact is revoked", declaration.artifact);
        return Some((reason, "deploy another version, or lift the revocation: `gapless revoke --lift`"));
    }
    let turns = !state.releases.is_empty() && state.has_routes() != declaration.serves;
    turns.then(|| {
        let (was, is) = if declaration.serves { ("without a port", "with one") } else { ("with a port", "without one") };
        (
            format!("the service was declared {was} and is now declared {is}"),
            "declare the worker as a service of its own, under another name",
        )
    })
}

fn is_wanted_already(state: &ServiceState, declaration: &Declaration) -> bool {
    let Some(release) =
        state.declared.filter(|release| state.declaration(*release).is_some_and(|known| known.content == declaration.content))
    else {
        return false;
    };
    let leads_to = state.rollout.as_ref().filter(|rollout| !rollout.is_given_up()).map(|rollout| rollout.to.release);
    let next = state.queued.as_ref().is_some_and(|queued| queued.release == release);
    // What is live and is being left is as good as gone.
    let comes = leads_to.or(state.live_release()).filter(|_| state.queued.is_none()) == Some(release);
    // Neither pinned nor live nor on its way: it was rejected, and declaring it again is asking for another try.
    state.pinned || next || comes
}

/// The release that is on its way, or live with nothing about to take its place, if it is what this declaration says.
fn there_already(state: &ServiceState, declaration: &Declaration) -> Option<ReleaseNumber> {
    let on_its_way = state.rollout.as_ref().filter(|rollout| !rollout.is_given_up()).map(|rollout| rollout.to.release);
    let live = state.live_release().filter(|_| busy(state).is_none());
    let is_it = |release: &ReleaseNumber| state.declaration(*release).is_some_and(|known| known.content == declaration.content);
    on_its_way.filter(is_it).or(live.filter(is_it))
}

/// The end of the freeze window that a rollout to this declaration would have to wait for.
pub(crate) fn frozen_until(declaration: &Declaration, now: Instant) -> Option<Instant> {
    declaration.policy.freeze.iter().filter_map(|window| window.ends_after(now)).max()
}

/// Why nothing else can begin now, and what a person can do.
pub(crate) fn busy(state: &ServiceState) -> Option<Why> {
    let Rollout { number, from, to, stage, .. } = state.rollout.as_ref()?;
    let doing = match stage {
        // The old release does not start any more: another one has to be let in.
        Stage::Unroll { .. } if state.healing.stopped || state.cannot_be_made_whole() => return None,
        Stage::Unroll { .. } if state.is_whole_again() => return None,
        Stage::Undo { .. } if state.is_single(to.release) => "going back from",
        Stage::Bake { .. } | Stage::Retire | Stage::Undo { .. } if !state.is_vacated() => return None,
        Stage::Shift => {
            let reason = format!("rollout {number} is shifting the traffic to {}, and not every proxy has acknowledged it", to.release);
            let hint = match from.and_then(|from| group_to_take_back(state, Some(from.release))) {
                Some(_) if group_to_take_back(state, None).is_some() => GO_BACK,
                Some(_) => NAME_IT,
                None => BRING_BACK,
            };
            return Some((reason, hint));
        }
        Stage::Vacate => "making room for",
        Stage::Command => "running the release command of",
        Stage::Prepare { .. } => "preparing",
        Stage::Await { .. } => "waiting with",
        Stage::Canary(_) => "trying with a share of the traffic",
        Stage::Roll { .. } => "rolling out",
        Stage::Confirm => "running what follows the shift to",
        Stage::Unroll { .. } | Stage::Restore { .. } | Stage::Undo { .. } | Stage::Bake { .. } | Stage::Retire => "going back from",
    };
    Some((format!("rollout {number} is {doing} {}", to.release), WAIT))
}

/// The old group, if it is to take the traffic back that not every proxy has handed over yet, or that it has just lost. Without a name only out of a deployment: asking twice to
/// go back must not go forward.
pub(crate) fn group_to_take_back(state: &ServiceState, to: Option<ReleaseNumber>) -> Option<GroupId> {
    let Some(Rollout { kind, from: Some(from), stage: Stage::Shift | Stage::Confirm, .. }) = state.rollout else { return None };
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
pub(crate) fn warm_group(state: &ServiceState) -> Option<GroupId> {
    let Some(Rollout { from: Some(from), stage: Stage::Bake { .. }, .. }) = state.rollout else { return None };
    let warm = state.wanted_nodes(from).filter(|node| state.route.members.get(node) == Some(&Weight::PROBED)).count();
    (state.declaration(from.release).is_some() && warm >= state.size_of(from.release) as usize).then_some(from)
}

impl Pass {
    fn add_release(&mut self, declaration: &Declaration) -> ReleaseNumber {
        self.state.next.releases += 1;
        let release = ReleaseNumber(self.state.next.releases);
        self.state.releases.insert(release, declaration.clone());
        self.state.declared = Some(release);
        self.state.evicted_in_vain.clear();
        release
    }

    /// The release that waits does not wait for the end of a freeze window any more.
    fn hurry(&mut self) {
        let Some(queued) = &mut self.state.queued else { return };
        (queued.urgent, queued.not_before) = (true, None);
        if busy(&self.state).is_some() {
            return;
        }
        let Some(Queued { release, together, .. }) = self.state.queued.take() else { return };
        self.make_room();
        self.begin(RolloutKind::Deploy, release, together);
    }

    /// Makes room for another rollout: the decision of the present one has fallen, what is left of it (drain, destruction) goes on beside.
    pub fn make_room(&mut self) {
        if let Some(Rollout { from: Some(from), stage: Stage::Bake { .. }, .. }) = self.state.rollout {
            self.give_up(from);
        }
        self.close_rollout(false);
    }
}
