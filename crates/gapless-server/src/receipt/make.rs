//! The receipt of a rollout, from its story and its measure.

use super::measure::Window;
use crate::story;
use gapless_core::effect::Task;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::release::{Declaration, ReleaseNumber};
use gapless_core::time::Instant;
use gapless_engine::engine;
use gapless_engine::store::{JournalRecord, Sequence};
use gapless_wire::receipt::{Measured, Phases, RECEIPT_VERSION, Ran, Receipt};
use serde::{Deserialize, Serialize};

/// A rollout as its service's journal tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub rollout: RolloutNumber,
    /// Why it was begun.
    pub kind: RolloutKind,
    /// The release that was live at its start.
    pub from: Option<ReleaseNumber>,
    /// The release that should be live.
    pub to: ReleaseNumber,
    /// When it began.
    pub started: Instant,
    /// The record that it began with. Known from a journal only.
    pub first: Option<Sequence>,
    /// When it ended, and how.
    pub ended: Option<(Instant, Outcome)>,
    /// Every fact from its start to its end, in order, also those of no rollout.
    pub facts: Vec<(Instant, Notice)>,
    /// Requests in flight on all nodes at the look at the world in which the last proxy had acknowledged the new route. Known from a journal only.
    pub in_flight_at_switch: Option<u64>,
    /// How often the engine was started again in between. Known from a journal only.
    pub restarts: u32,
}

/// An artifact that was built for a deploy: what came before the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltForThis {
    /// How long the build took, in milliseconds.
    pub build_ms: u64,
    /// When the artifact was published, in milliseconds since the Unix epoch.
    pub published_ms: u64,
}

impl Account {
    /// Every rollout of a journal, in order.
    #[must_use]
    pub fn all(records: &[(Sequence, JournalRecord)]) -> Vec<Account> {
        let mut accounts: Vec<Account> = Vec::new();
        for record in records {
            let restarted = record.1.event == Event::Restarted;
            for account in accounts.iter_mut().filter(|account| account.ended.is_none()) {
                account.restarts += u32::from(restarted);
            }
            for (_, at, notice) in engine::story(std::slice::from_ref(record)) {
                take(&mut accounts, at, &notice, Some(record));
            }
        }
        accounts
    }

    /// Every rollout of a story, in order: what people are told of it. A receipt needs [`Account::all`].
    #[must_use]
    pub fn told(story: &[(Instant, Notice)]) -> Vec<Account> {
        let mut accounts = Vec::new();
        for (at, notice) in story {
            take(&mut accounts, *at, notice, None);
        }
        accounts
    }

    /// The instants that divide it; `None` while it is in progress.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        let (ended, _) = self.ended.as_ref()?;
        Some(Window { from_ms: self.started.0, shifted_ms: self.at(|n| matches!(n, Notice::Shifted { .. })), until_ms: ended.0 })
    }

    /// When the first such fact was told, in milliseconds since the Unix epoch.
    fn at(&self, is_it: impl Fn(&Notice) -> bool) -> Option<u64> {
        self.facts.iter().find(|(_, notice)| notice.rollout() == Some(self.rollout) && is_it(notice)).map(|(at, _)| at.0)
    }

    /// When the last such fact was told.
    fn last_at(&self, is_it: impl Fn(&Notice) -> bool) -> Option<u64> {
        self.facts.iter().rfind(|(_, notice)| notice.rollout() == Some(self.rollout) && is_it(notice)).map(|(at, _)| at.0)
    }

    fn phases(&self, built: Option<BuiltForThis>) -> Phases {
        let ended = self.ended.as_ref().map(|(at, _)| at.0);
        let booted = self.at(|n| matches!(n, Notice::NodesBooted { .. }));
        let passed = self.at(|n| matches!(n, Notice::GatePassed { .. }));
        let shifting = self.at(|n| matches!(n, Notice::ShiftBegan { .. }));
        let shifted = self.at(|n| matches!(n, Notice::Shifted { .. }));
        let draining = self.at(|n| matches!(n, Notice::DrainBegan { .. }));
        let drained = self.last_at(|n| matches!(n, Notice::Drained { .. }));
        let rejecting = self.at(|n| matches!(n, Notice::Rejecting { .. }));
        let awaiting = self.at(|n| matches!(n, Notice::PartnersAwaited { .. }));
        let canary = self.at(|n| matches!(n, Notice::CanaryStepBegan { .. }));
        let hooks = [Task::BeforeShift, Task::AfterShift].into_iter().filter_map(|task| self.task(task));
        // Where the old nodes leave first, their destruction is part of the new ones' boot, and the end destroys nothing.
        let vacated = self.outage_began().is_some();
        let made_from = self.task_ended(Task::ReleaseCommand).or(drained.filter(|_| vacated)).unwrap_or(self.started.0);
        let destroying = if vacated { rejecting } else { drained.or(rejecting) };
        Phases {
            build: built.map(|built| built.build_ms),
            release_command: self.task(Task::ReleaseCommand),
            boot: between(Some(made_from), booted),
            gate: between(booted, passed.or(rejecting)),
            hooks: hooks.reduce(|one, other| one + other),
            partners: between(awaiting, canary.or(shifting).or(rejecting)),
            canary: between(canary, shifting.or(rejecting)),
            shift: between(shifting, shifted),
            drain: between(draining, drained),
            destroy: between(destroying, ended),
        }
    }

    /// How long a task ran; of one that failed, until the rollout was given up for it.
    fn task(&self, wanted: Task) -> Option<u64> {
        let began = self.at(|n| matches!(n, Notice::TaskBegan { task, .. } if *task == wanted));
        let failed = self.at(|n| matches!(n, Notice::Rejecting { reason: Rejection::TaskFailed { task, .. }, .. } if *task == wanted));
        between(began, self.task_ended(wanted).or(failed))
    }

    fn task_ended(&self, wanted: Task) -> Option<u64> {
        self.at(|n| matches!(n, Notice::TaskEnded { task, .. } if *task == wanted))
    }

    fn outage_began(&self) -> Option<u64> {
        self.at(|n| matches!(n, Notice::OutageBegan { .. }))
    }

    /// How long nothing answered because the old nodes had to leave first: until the traffic was on the new ones, or the rollout was over.
    fn outage(&self) -> Option<u64> {
        let shifted = self.at(|n| matches!(n, Notice::Shifted { .. }));
        between(self.outage_began(), shifted.or(self.ended.as_ref().map(|(at, _)| at.0)))
    }
}

fn between(from: Option<u64>, to: Option<u64>) -> Option<u64> {
    from.zip(to).map(|(from, to)| to.saturating_sub(from))
}

fn take(accounts: &mut Vec<Account>, at: Instant, notice: &Notice, record: Option<&(Sequence, JournalRecord)>) {
    if let Notice::RolloutStarted { rollout, kind, from, to } = notice {
        let (rollout, kind, from, to) = (*rollout, *kind, *from, *to);
        accounts.push(Account {
            rollout,
            kind,
            from,
            to,
            started: at,
            first: record.map(|(sequence, _)| *sequence),
            ended: None,
            facts: Vec::new(),
            in_flight_at_switch: None,
            restarts: 0,
        });
    }
    let (of, event) = (notice.rollout(), record.map(|(_, record)| &record.event));
    let belongs = |account: &&mut Account| if of.is_some() { of == Some(account.rollout) } else { account.ended.is_none() };
    for account in accounts.iter_mut().filter(belongs) {
        if let (Notice::Shifted { .. }, Some(Event::Observed(seen))) = (notice, event) {
            account.in_flight_at_switch = Some(seen.nodes.values().map(|node| u64::from(node.requests_in_flight)).sum());
        }
        if let Notice::RolloutEnded { outcome, .. } = notice {
            account.ended = Some((at, outcome.clone()));
        }
        account.facts.push((at, notice.clone()));
    }
}

/// Everything that a receipt is made of.
pub struct Made<'a> {
    /// The installation's id.
    pub installation: &'a str,
    /// The service.
    pub service: &'a ServiceName,
    /// The rollout; it has ended.
    pub account: &'a Account,
    /// The release that was rolled out.
    pub release: &'a Declaration,
    /// What was live before.
    pub from: Option<Ran>,
    /// What was rolled out.
    pub to: Ran,
    /// The build that belongs to it.
    pub built: Option<BuiltForThis>,
    /// What the proxies measured, and why that is not whole.
    pub measured: (Option<Measured>, Vec<String>),
}

/// The receipt of a rollout that ended; `None` for one in progress.
#[must_use]
pub fn receipt(made: Made<'_>) -> Option<Receipt> {
    let Made { installation, service, account, release, from, to, built, measured: (mut measured, incomplete) } = made;
    let (ended, outcome) = account.ended.as_ref()?;
    let phases = account.phases(built);
    let ready = built.map_or(account.started.0, |built| built.published_ms);
    let shifted = account.at(|n| matches!(n, Notice::Shifted { .. }));
    if let Some(measured) = &mut measured {
        measured.in_flight_at_switch = account.in_flight_at_switch;
    }
    // A rollback inside the bake window ends a rollout whose old nodes never left.
    let drained = account.at(|n| matches!(n, Notice::Drained { .. }));
    let gone = account.from.zip(drained).filter(|_| *outcome == Outcome::Live).map(|_| ended.0.saturating_sub(ready));
    let reason = match outcome {
        Outcome::Live => None,
        Outcome::Rejected(rejection) => Some(story::reason(rejection)),
    };
    Some(Receipt {
        version: RECEIPT_VERSION,
        installation: installation.to_string(),
        service: service.to_string(),
        rollout: account.rollout.0,
        kind: story::kind(account.kind),
        outcome: story::outcome(outcome),
        reason,
        from,
        to,
        started_ms: account.started.0,
        ended_ms: ended.0,
        steps: account.facts.iter().map(|(at, notice)| story::step(service, *at, notice, Some(release))).collect(),
        measured,
        switch_ms: shifted.map(|at| at.saturating_sub(ready)),
        gone_ms: gone,
        build_ms: built.map(|built| built.build_ms),
        outage_ms: account.outage(),
        longest_phase: longest(&phases),
        phases,
        server_restarts: account.restarts,
        incomplete,
    })
}

/// The phases with their names, in the order in which they come.
#[must_use]
pub fn named_phases(phases: &Phases) -> [(&'static str, Option<u64>); 10] {
    [
        ("build", phases.build),
        ("release command", phases.release_command),
        ("boot", phases.boot),
        ("gate", phases.gate),
        ("hooks", phases.hooks),
        ("partners", phases.partners),
        ("canary", phases.canary),
        ("shift", phases.shift),
        ("drain", phases.drain),
        ("destroy", phases.destroy),
    ]
}

fn longest(phases: &Phases) -> Option<String> {
    named_phases(phases).iter().filter_map(|(name, took)| took.map(|took| (took, *name))).max().map(|(_, name)| name.to_string())
}
