//! Canary: the new group gets the traffic step by step, and its answers are compared with the old group's of the same time.

use crate::analysis::{AnalysisPolicy, Judgement, Verdict};
use crate::effect::{Effect, EffectId, EffectKind};
use crate::limit::{ANALYSIS_FASTEST, ANALYSIS_HOLDS, ANALYSIS_PARTS, ANALYSIS_SLOWEST, CANARY_AGAIN};
use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection};
use crate::pass::Pass;
use crate::policy::{CanaryPause, CanaryStep, Strategy};
use crate::rollout::{Round, Step};
use crate::route::Weight;
use crate::service::{Canary, Rollout, ServiceState, Stage};
use crate::time::Instant;
use alloc::vec::Vec;
use core::time::Duration;

/// The verdict of a comparison.
pub(crate) fn analysed(state: &ServiceState, id: EffectId, judgement: &Judgement, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let Some(Effect::Analyse { since, new, .. }) = pass.state.pending.remove(&id) else { return pass.step() };
    pass.state.retries.remove(&EffectKind::Analyse);
    let (mut rejection, interval) = (None, interval(&pass.state));
    if let Some(Rollout { number, to, stage: Stage::Canary(canary), .. }) = &mut pass.state.rollout
        && to.release == new
        && canary.since == Some(since)
    {
        let rollout = *number;
        canary.look = Some(now.after(interval));
        rejection = canary.take(judgement, now);
        pass.notify(Notice::Analysed { rollout, judgement: judgement.clone() });
    }
    if let Some(reason) = rejection {
        pass.reject(reason);
    }
    pass.step()
}

impl Canary {
    fn at(step: u32) -> Self {
        Self { step, since: None, until: None, look: None, good: false, holds: 0 }
    }

    /// What a verdict means for the step: the reason to give up, if it is one.
    fn take(&mut self, judgement: &Judgement, now: Instant) -> Option<Rejection> {
        self.good = judgement.verdict == Verdict::Promote;
        match judgement.verdict {
            Verdict::Promote => self.holds = 0,
            Verdict::Abort => return Some(Rejection::AnalysisFailed { evidence: judgement.evidence.clone() }),
            Verdict::Hold if self.until.is_some_and(|until| now >= until) => self.holds += 1,
            Verdict::Hold => {}
        }
        (self.holds > ANALYSIS_HOLDS).then(|| Rejection::Inconclusive { evidence: judgement.evidence.clone() })
    }
}

/// From one comparison to the next.
fn interval(state: &ServiceState) -> Duration {
    let canary = state.rollout.as_ref().and_then(|rollout| match &rollout.stage {
        Stage::Canary(canary) => step_of(state, rollout.to, canary.step),
        _ => None,
    });
    match canary.map(|step| step.pause) {
        Some(CanaryPause::For(span)) => (span / ANALYSIS_PARTS).clamp(ANALYSIS_FASTEST, ANALYSIS_SLOWEST),
        Some(CanaryPause::Person) | None => ANALYSIS_SLOWEST,
    }
}

fn step_of(state: &ServiceState, to: GroupId, step: u32) -> Option<CanaryStep> {
    match &state.declaration(to.release)?.policy.strategy {
        Strategy::Canary { steps, .. } => steps.get(step as usize).cloned(),
        _ => None,
    }
}

/// The weight of each new and of each old node that gives the new ones together this share.
fn weights(percent: u8, new: usize, old: usize) -> (Weight, Weight) {
    let share = u64::from(percent);
    let (new, old) = (share * old as u64, 100_u64.saturating_sub(share) * new as u64);
    let largest = new.max(old).max(1);
    let scaled = |weight: u64| {
        let fitting = if largest > u64::from(u16::MAX) { weight * u64::from(u16::MAX) / largest } else { weight };
        Weight(u16::try_from(fitting.max(1)).unwrap_or(u16::MAX))
    };
    (scaled(new), scaled(old))
}

impl Round<'_> {
    /// The new nodes passed the gate: the first step.
    pub fn begin_canary(&mut self) {
        let Some(Rollout { to, .. }) = self.rollout().cloned() else { return };
        let able: Vec<NodeId> = self.able(to).collect();
        self.members.extend(able.into_iter().map(|node| (node, Weight::EQUAL)));
        self.expose(to);
        self.begin_step(0);
    }

    fn begin_step(&mut self, step: u32) {
        let Some(Rollout { number, to, .. }) = self.rollout().cloned() else { return };
        let Some(percent) = step_of(&self.pass.state, to, step).map(|step| step.percent) else { return };
        self.pass.set_stage(Stage::Canary(Canary::at(step)));
        let generation = self.next_generation();
        self.pass.notify(Notice::CanaryStepBegan { rollout: number, step: step + 1, percent, generation });
    }

    /// A step in progress: it begins to count when every proxy sends the new nodes their share, and ends with its time, its verdict and a person's word, as is declared.
    pub fn canary(&mut self, canary: &Canary) {
        let Some(Rollout { to, paused, .. }) = self.rollout().cloned() else { return };
        if let Some(reason) = self.first_fault(to) {
            return self.reject(reason);
        }
        if paused.is_some() {
            return;
        }
        match canary.since {
            None if self.acknowledged_unchanged() => self.count_step(canary.step),
            None => {}
            Some(_) if canary.good && canary.until.is_some_and(|until| self.pass.now >= until) => self.end_step(to, canary.step),
            Some(since) if canary.look.is_some_and(|look| self.pass.now >= look) => self.analyse(since),
            Some(_) => {}
        }
    }

    fn count_step(&mut self, step: u32) {
        let Some(Rollout { to, .. }) = self.rollout().cloned() else { return };
        let now = self.pass.now;
        let pause = step_of(&self.pass.state, to, step).map_or(CanaryPause::Person, |step| step.pause);
        let until = match pause {
            CanaryPause::For(span) => Some(now.after(span)),
            CanaryPause::Person => None,
        };
        let look = self.analysis().map(|_| now.after(interval(&self.pass.state)));
        let good = look.is_none();
        self.pass.set_stage(Stage::Canary(Canary { step, since: Some(now), until, look, good, holds: 0 }));
    }

    /// The step is over. More traffic only comes to a group whose nodes are all well at this moment.
    fn end_step(&mut self, to: GroupId, step: u32) {
        if self.able(to).count() < self.pass.state.wanted_nodes(to).count() {
            let again = self.pass.now.after(CANARY_AGAIN);
            return self.pass.set_until(again);
        }
        match step_of(&self.pass.state, to, step + 1) {
            Some(_) => self.begin_step(step + 1),
            None => self.shift(),
        }
    }

    fn analysis(&self) -> Option<AnalysisPolicy> {
        let to = self.rollout()?.to;
        match &self.pass.state.declaration(to.release)?.policy.strategy {
            Strategy::Canary { analysis, .. } => *analysis,
            _ => None,
        }
    }

    fn analyse(&mut self, since: Instant) {
        let Some(Rollout { from: Some(from), to, .. }) = self.rollout().cloned() else { return };
        let Some(policy) = self.analysis() else { return };
        self.pass.set_look(None);
        self.pass.send(Effect::Analyse { old: from.release, new: to.release, since, policy });
    }

    /// Each member's share: in a canary what the step says, else all the same.
    pub fn weigh(&mut self) {
        let (from, to, percent) = match self.rollout() {
            Some(Rollout { from: Some(from), to, stage: Stage::Canary(canary), .. }) => {
                let Some(step) = step_of(&self.pass.state, *to, canary.step) else { return };
                (*from, *to, step.percent)
            }
            _ => {
                let weighted = self.members.values_mut().filter(|weight| weight.has_traffic());
                return weighted.for_each(|weight| *weight = Weight::EQUAL);
            }
        };
        let count = |group: GroupId| self.members.iter().filter(|(node, weight)| node.group == group && weight.has_traffic()).count();
        let (new, old) = weights(percent, count(to), count(from));
        for (node, weight) in self.members.iter_mut().filter(|(_, weight)| weight.has_traffic()) {
            *weight = if node.group == to { new } else { old };
        }
    }
}

impl Pass {
    /// When the step ends at the earliest.
    fn set_until(&mut self, until: Instant) {
        if let Some(Rollout { stage: Stage::Canary(canary), .. }) = &mut self.state.rollout {
            canary.until = Some(until);
        }
    }

    /// The comparison of the present step that is under way is lost, and made again at once.
    pub fn compare_again(&mut self) {
        let Some(Rollout { stage: Stage::Canary(canary), .. }) = &self.state.rollout else { return };
        let lost = |effect: &Effect| matches!(effect, Effect::Analyse { since, .. } if canary.since == Some(*since));
        if self.state.pending.values().any(lost) {
            self.set_look(Some(self.now));
        }
    }

    /// When the answers are compared again.
    pub fn set_look(&mut self, look: Option<Instant>) {
        if let Some(Rollout { stage: Stage::Canary(canary), .. }) = &mut self.state.rollout {
            canary.look = look;
        }
    }
}
