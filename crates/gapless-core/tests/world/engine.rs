//! A small engine over the model world: journal first, then the effect, then its outcome. It crashes and doubles where it is told.

use super::model::{Behaviour, Order, TICK, World};
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::effect::{Effect, EffectId, EffectKind};
use gapless_core::event::{Event, Failure};
use gapless_core::invariant::{self, Monitor};
use gapless_core::node::GroupId;
use gapless_core::observation::Observation;
use gapless_core::rollout::{Refusal, step};
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Rounds without an event in between until nothing more may follow.
const ROUNDS_TO_REST: usize = 12;

/// What goes wrong with the engine in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    /// It crashes right after this journal record; what was sent and not done is lost.
    CrashAt(usize),
    /// It crashes when this effect has been done; its outcome and all others never arrive.
    LoseOutcome(usize),
    /// Every effect is done twice.
    Twice,
}

/// When, what, and what followed from it.
type Record = (Instant, Event, Vec<(EffectId, Effect)>);

#[derive(Clone, Debug)]
enum Due {
    Order(Order),
    Outcome(EffectId, Result<(), Failure>),
}

pub struct Engine {
    pub world: World,
    pub state: ServiceState,
    pub journal: Vec<Record>,
    pub log: Vec<String>,
    pub behaviours: BTreeMap<u32, Behaviour>,
    pub failures: BTreeMap<EffectKind, VecDeque<Failure>>,
    /// Kinds that fail until they are repaired.
    pub broken: BTreeMap<EffectKind, Failure>,
    pub hold: BTreeSet<EffectKind>,
    held: Vec<(u64, Due)>,
    due: Vec<(u64, Due)>,
    everything_sent: Vec<Order>,
    pub mode: Mode,
    monitor: Monitor,
    pub outcomes: usize,
    /// How far the engine's clock is ahead of the world's, in milliseconds.
    pub ahead: u64,
    /// What comparisons say from now on.
    pub verdict: Verdict,
    /// Some node died or a proxy lost its memory: capacity may fall for a while.
    pub disturbed: bool,
    reached_floor: bool,
    rested_on: Option<Observation>,
}

impl Engine {
    pub fn new(mode: Mode) -> Self {
        Self {
            world: World::default(),
            state: ServiceState::default(),
            journal: Vec::new(),
            log: Vec::new(),
            behaviours: BTreeMap::new(),
            failures: BTreeMap::new(),
            broken: BTreeMap::new(),
            hold: BTreeSet::new(),
            held: Vec::new(),
            due: Vec::new(),
            everything_sent: Vec::new(),
            mode,
            monitor: Monitor::default(),
            outcomes: 0,
            ahead: 0,
            verdict: Verdict::Promote,
            disturbed: false,
            reached_floor: false,
            rested_on: None,
        }
    }

    pub fn now(&self) -> Instant {
        Instant(self.world.now + self.ahead)
    }

    pub fn say(&mut self, line: &str) {
        self.log.push(format!("{:>8.3}s {line}", self.world.now as f64 / 1000.0));
    }

    /// One event through the core: checked, written down, and only then acted upon.
    pub fn feed(&mut self, event: Event) -> (bool, Option<Refusal>) {
        self.rested_on = None;
        let now = self.now();
        let step = step(&self.state, &event, now);
        self.monitor.watch(&self.state, &event, now, &step).unwrap_or_else(|violation| panic!("{violation}\n{}", self.log.join("\n")));
        if let Some(refusal) = step.refusal {
            self.say(&format!("  refused: {}; {}", refusal.reason, refusal.hint));
            return (false, Some(refusal));
        }
        if step.state == self.state && step.effects.is_empty() {
            return (false, None);
        }
        self.state = step.state;
        self.journal.push((now, event, step.effects.clone()));
        for (id, effect) in step.effects {
            self.tell(id, &effect);
            self.carry_out(id, &effect);
        }
        if self.mode == Mode::CrashAt(self.journal.len()) {
            self.crash();
        }
        (true, None)
    }

    /// The engine dies and starts again: what it knows is its journal.
    pub fn crash(&mut self) {
        self.due.clear();
        self.held.clear();
        self.recover();
    }

    /// As [`Self::crash`], but what was sent reaches the world all the same.
    pub fn crash_after_sending(&mut self) {
        self.due.retain(|(_, due)| matches!(due, Due::Order(_)));
        self.recover();
    }

    fn recover(&mut self) {
        self.say("  engine restarted");
        let mut state = ServiceState::default();
        for (at, event, effects) in &self.journal {
            let step = step(&state, event, *at);
            assert_eq!(&step.effects, effects, "replaying the journal gives other effects");
            state = step.state;
        }
        assert_eq!(state, self.state, "replaying the journal gives another state");
        self.feed(Event::Restarted);
    }

    fn carry_out(&mut self, id: EffectId, effect: &Effect) {
        let now = self.world.now;
        if matches!(effect, Effect::Notify(_)) {
            return;
        }
        let once = self.failures.get_mut(&effect.kind()).and_then(VecDeque::pop_front);
        if let Some(failure) = once.or_else(|| self.broken.get(&effect.kind()).cloned()) {
            return self.due.push((now + 100, Due::Outcome(id, Err(failure))));
        }
        let mut list = self.orders(effect);
        self.everything_sent.extend(list.iter().map(|(_, order)| order.clone()));
        if self.mode == Mode::Twice {
            list.extend(list.clone().into_iter().map(|(after, order)| (after + 150, order)));
        }
        let ends = self.ends(effect);
        let target = if self.hold.remove(&effect.kind()) { &mut self.held } else { &mut self.due };
        target.extend(list.into_iter().map(|(after, order)| (now + after, Due::Order(order))));
        target.push((now + ends.0, Due::Outcome(id, ends.1)));
    }

    /// A task whose node is destroyed ends then, and not well.
    fn end_tasks_of(&mut self, order: &Order) {
        let Order::Destroy { nodes } = order else { return };
        let now = self.world.now;
        for (at, due) in &mut self.due {
            let Due::Outcome(id, result) = due else { continue };
            let Some(Effect::RunTask { group, .. }) = self.state.pending.get(id) else { continue };
            if nodes.contains(&group.node(0)) {
                (*at, *result) = (now, Err(Failure { reason: "its node was destroyed".into(), is_final: true }));
            }
        }
    }

    fn orders(&self, effect: &Effect) -> Vec<(u64, Order)> {
        match effect {
            Effect::EnsureGroup { group, size } => {
                let declaration = &self.state.releases[&group.release];
                let behaviour = self.behaviour(*group);
                let at_work = self.world.node_names().into_iter().filter(|node| node.group != *group).map(|node| node.group.release);
                let alone = at_work.chain([group.release]).any(|release| self.state.is_single(release));
                vec![(100, Order::Create { group: *group, size: *size, image: declaration.image, behaviour, alone })]
            }
            Effect::Route(route) => {
                let apply = |(name, proxy): (&String, &super::model::Proxy)| {
                    (50 + proxy.slow, Order::Apply { proxy: name.clone(), route: route.clone() })
                };
                self.world.proxies.iter().map(apply).collect()
            }
            Effect::Drain { nodes, deadline } => {
                vec![(50, Order::Drain { nodes: nodes.clone(), deadline: u64::try_from(deadline.as_millis()).unwrap() })]
            }
            Effect::DestroyNodes { nodes } => vec![(100, Order::Destroy { nodes: nodes.clone() })],
            Effect::RunTask { group, task, .. } => {
                // Its outcome is counted from when it was sent.
                let runs = self.behaviour(*group).runs.saturating_sub(50);
                vec![(50, Order::Task { group: *group, task: *task, runs })]
            }
            Effect::Analyse { .. } | Effect::Notify(_) => Vec::new(),
        }
    }

    fn ends(&self, effect: &Effect) -> (u64, Result<(), Failure>) {
        let unreachable =
            self.world.proxies.iter().filter(|_| !self.world.worker).find(|(_, proxy)| proxy.unreachable).map(|(name, _)| name);
        match effect {
            Effect::Route(_) | Effect::Drain { .. } => match unreachable {
                Some(name) => (1000, Err(Failure { reason: format!("proxy {name} does not answer"), is_final: false })),
                None => (50 + self.world.proxies.values().map(|proxy| proxy.slow).max().unwrap_or(0), Ok(())),
            },
            Effect::RunTask { group, task, .. } => {
                let behaviour = self.behaviour(*group);
                let end = if behaviour.failing.contains(task) {
                    Err(Failure { reason: format!("{task} ended with status 1"), is_final: true })
                } else {
                    Ok(())
                };
                (behaviour.runs, end)
            }
            _ => (100, Ok(())),
        }
    }

    fn behaviour(&self, group: GroupId) -> Behaviour {
        let artifact = self.state.releases.get(&group.release).map(|declaration| declaration.artifact.0);
        artifact.and_then(|artifact| self.behaviours.get(&artifact).cloned()).unwrap_or_default()
    }

    /// The journal is lost; the world is not. Another life of the service begins with instances that are not used.
    pub fn forget_everything(&mut self) {
        self.journal.clear();
        self.due.clear();
        self.state = ServiceState::default();
        self.monitor = Monitor::default();
        self.reached_floor = false;
    }

    /// A destruction is on its way to the world.
    pub fn is_destroying(&self) -> bool {
        self.due.iter().chain(&self.held).any(|(_, due)| matches!(due, Due::Order(Order::Destroy { .. })))
    }

    pub fn release_held(&mut self) {
        let now = self.world.now;
        let held = std::mem::take(&mut self.held);
        self.due.extend(held.into_iter().map(|(_, due)| (now, due)));
    }

    /// Everything that was ever sent reaches the world once more.
    pub fn deliver_everything_again(&mut self) {
        for order in self.everything_sent.clone() {
            self.world.obey(&order);
        }
    }

    /// Time moves by one tick, and the engine follows until it rests. Stops early when `until` holds after a step.
    pub fn tick(&mut self, until: &dyn Fn(&ServiceState) -> bool) -> bool {
        self.world.tick();
        self.check_sleep();
        if self.follow(until) {
            return true;
        }
        while let Some(place) = self.due.iter().position(|(at, _)| *at <= self.world.now) {
            let stop = match self.due.remove(place).1 {
                Due::Order(order) => {
                    self.world.obey(&order);
                    self.end_tasks_of(&order);
                    false
                }
                Due::Outcome(id, result) => self.outcome(id, result, until),
            };
            if stop {
                return true;
            }
        }
        self.follow(until)
    }

    fn outcome(&mut self, id: EffectId, result: Result<(), Failure>, until: &dyn Fn(&ServiceState) -> bool) -> bool {
        self.outcomes += 1;
        let result = match self.state.pending.get(&id) {
            // It was on its way when a proxy went away.
            Some(Effect::Drain { nodes, .. }) if result.is_ok() && !self.world.knows_drain(nodes) => {
                Err(Failure { reason: "a proxy has not heard of it".into(), is_final: false })
            }
            _ => result,
        };
        if self.mode == Mode::LoseOutcome(self.outcomes) {
            self.crash_after_sending();
            self.due.retain(|(_, due)| matches!(due, Due::Order(_)));
        } else {
            let analysed = matches!(self.state.pending.get(&id), Some(Effect::Analyse { .. })) && result.is_ok();
            let judgement = Judgement { verdict: self.verdict, evidence: format!("{:?}", self.verdict) };
            self.feed(if analysed { Event::Analysed { effect: id, judgement } } else { Event::EffectEnded { effect: id, result } });
        }
        until(&self.state) || self.follow(until)
    }

    /// Shows the world to the core until it has nothing more to say.
    fn follow(&mut self, until: &dyn Fn(&ServiceState) -> bool) -> bool {
        for _ in 0..ROUNDS_TO_REST {
            let (changed, _) = self.feed(Event::Observed(self.world.observe()));
            self.check_truth();
            if until(&self.state) {
                return true;
            }
            if !changed {
                self.rest();
                return false;
            }
        }
        panic!("the core does not come to rest on an unchanged world\n{}", self.log.join("\n"));
    }

    /// An engine sleeps until something changes or the next deadline: one that has passed would keep it awake for ever.
    fn rest(&mut self) {
        let next = self.state.next_deadline();
        assert!(next.is_none_or(|next| next > self.now()), "the deadline {next:?} has passed and nothing follows\n{}", self.log.join("\n"));
        self.rested_on = Some(self.world.observe());
    }

    /// Before the next deadline, the same world at a later time must change nothing.
    fn check_sleep(&self) {
        let Some(seen) = self.rested_on.clone() else { return };
        let now = self.now();
        if self.state.next_deadline().is_none_or(|next| next > now) {
            let step = step(&self.state, &Event::Observed(seen), now);
            assert!(step.state == self.state, "time alone changed something before the next deadline\n{}", self.log.join("\n"));
        }
    }

    /// What no step shows: what the proxies and the nodes really do.
    fn check_truth(&mut self) {
        assert!(self.world.violations.is_empty(), "the world is harmed: {:?}\n{}", self.world.violations, self.log.join("\n"));
        assert_eq!(self.world.counts.lost, 0, "requests were lost with a destroyed node\n{}", self.log.join("\n"));
        let known: Vec<GroupId> = self.state.groups.keys().copied().collect();
        let stray = self.world.runs_a_task_beside(&known);
        assert!(stray.is_none(), "a task of {stray:?} runs that nobody knows of\n{}", self.log.join("\n"));
        let floor = invariant::floor(&self.state);
        let capacity = self.world.least_capacity();
        self.reached_floor |= floor > 0 && capacity >= Some(floor);
        if self.reached_floor && !self.disturbed && floor > 0 {
            assert!(capacity >= Some(floor), "I1 is broken: {capacity:?} of {floor} nodes serve\n{}", self.log.join("\n"));
        }
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.world.now + u64::try_from(span.as_millis()).unwrap();
        while self.world.now < end {
            self.tick(&|_| false);
        }
    }

    /// Runs until the state is so; false if it is not within `at_most`.
    pub fn run_until(&mut self, until: &dyn Fn(&ServiceState) -> bool, at_most: Duration) -> bool {
        let end = self.world.now + u64::try_from(at_most.as_millis()).unwrap();
        while !until(&self.state) {
            if self.world.now >= end {
                return false;
            }
            if self.tick(until) {
                return true;
            }
        }
        true
    }

    /// Nothing is under way in the core nor on its way to the world.
    pub fn rests(&self) -> bool {
        let state = &self.state;
        let calm = state.rollout.is_none()
            && state.pending.is_empty()
            && state.draining.is_empty()
            && state.joining.is_empty()
            && state.retries.is_empty()
            && state.queued.is_none();
        calm && self.due.is_empty()
            && self.held.is_empty()
            && (self.world.worker || self.world.proxies.values().all(|proxy| proxy.generation().unwrap_or_default() == state.route.generation))
            // Before the first route nobody can say what the proxies name, so unknown nodes are left alone.
            && (state.route.generation.0 == 0 || self.world.node_names().iter().all(|node| state.is_wanted(*node)))
            && (state.healing.stopped || state.live.is_none_or(|live| state.wanted_nodes(live).count() as u32 == state.size_of(live.release)))
    }

    pub fn settle(&mut self, at_most: Duration) -> bool {
        let end = self.world.now + u64::try_from(at_most.as_millis()).unwrap();
        loop {
            self.tick(&|_| false);
            if self.rests() || self.world.now >= end {
                return self.rests();
            }
        }
    }

    /// Where the story ended, without the names that differ between two runs of it.
    pub fn summary(&self) -> String {
        let state = &self.state;
        let release = |release: Option<gapless_core::release::ReleaseNumber>| release.map_or("none".into(), |release| release.to_string());
        let rollout = state.rollout.as_ref().map_or("none".into(), |rollout| format!("{:?}", rollout.stage));
        format!(
            "live {} declared {} previous {} pinned {} rollout {rollout}; {}",
            release(state.live_release()),
            release(state.declared),
            release(state.previous),
            state.pinned,
            self.world.summary()
        )
    }

    fn tell(&mut self, id: EffectId, effect: &Effect) {
        let line = super::script::line_of(id, effect);
        self.say(&line);
    }
}

/// One tick as a duration.
pub const ONE_TICK: Duration = Duration::from_millis(TICK);
