//! Breadth first through every state, so that the way to a fault is as short as can be, and then the question whether every state ends well.

use super::configuration::Configuration;
use super::cores::{Cores, Transition};
use super::fingerprint::{Fingerprint, Identity, fingerprint};
use super::normal::NOW;
use super::state::{Move, Part, State};
use super::world::{Fault, Node, Phase, Proxy, fault};
use gapless_core::route::Generation;
use gapless_core::service::{Rollout, Stage};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Different faults of one rule that are kept with their traces.
const TRACES_OF_A_RULE: usize = 1;

/// A release goes live in less than a hundred moves: a core that needs more never comes to rest, which the exploration itself will find.
const STEPS_TO_BEGIN: usize = 1000;

/// No state: the faultless schedule is not known from here, or goes no further.
const NOWHERE: u32 = u32::MAX;

/// When to stop before every state was seen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub states: usize,
    pub time: Duration,
    /// Of the whole process, in bytes.
    pub memory: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub name: &'static str,
    pub states: usize,
    /// States whose every move was made.
    pub expanded: usize,
    pub transitions: u64,
    pub depth: usize,
    pub cores: usize,
    pub seconds: f64,
    /// Every state that can be reached was.
    pub complete: bool,
    /// Transitions and states with a fault.
    pub violations: u64,
    /// The shortest ways to faults: the fault and the moves in words.
    pub traces: Vec<(Fault, Vec<String>)>,
    pub marks: BTreeSet<&'static str>,
    /// States at rest: nothing but a wish or an accident goes on from them.
    pub rests: usize,
}

struct Explorer<'a> {
    configuration: &'a Configuration,
    cores: Cores,
    visited: HashMap<Fingerprint, u32, Identity>,
    parents: Vec<u32>,
    /// For each state the next one of the faultless schedule.
    next: Vec<u32>,
    /// For each state and service the release that must be live in the end, 0 if it is open.
    due: Vec<[u8; 2]>,
    /// What is live in the states at rest.
    rests: HashMap<u32, [u8; 2], Identity>,
    frontier: VecDeque<State>,
    first: State,
    report: Report,
}

/// Explores a configuration of the production core.
pub fn explore(configuration: &Configuration, limits: Limits) -> Report {
    explore_with(configuration, limits, gapless_core::rollout::step, true)
}

/// Explores with another transition function, such as one that was broken on purpose. `judge`: whether its decisions are checked by the core's own invariants too.
pub fn explore_with(configuration: &Configuration, limits: Limits, transition: Transition, judge: bool) -> Report {
    let began = Instant::now();
    let mut explorer = Explorer::new(configuration, Cores::new(transition, judge, configuration.symmetric));
    explorer.run(limits, began);
    explorer.check_ends();
    let Explorer { cores, mut report, visited, rests, .. } = explorer;
    report.states = visited.len();
    report.rests = rests.len();
    report.cores = cores.len();
    report.marks = cores.marks;
    report.seconds = began.elapsed().as_secs_f64();
    report
}

/// Where the exploration begins: the configuration's first releases are live, everything having gone well.
fn begin(configuration: &Configuration, cores: &mut Cores) -> State {
    let mut state = State::first(configuration, cores);
    for _ in 0..configuration.live_at_first {
        for service in 0..state.parts.len() {
            state = state.after(&Move::Declare { service }, cores, configuration).ok().flatten().unwrap_or(state);
        }
        for _ in 0..STEPS_TO_BEGIN {
            let Some(next) = next_of_the_schedule(&state, cores, configuration) else { break };
            state = next;
        }
    }
    state
}

/// The next state if nothing goes wrong and nobody wants anything.
fn next_of_the_schedule(state: &State, cores: &mut Cores, configuration: &Configuration) -> Option<State> {
    let mut moves = state.moves(configuration);
    moves.retain(|step| step.turn().is_some());
    moves.sort_by_key(Move::turn);
    moves.iter().find_map(|step| state.after(step, cores, configuration).ok().flatten().filter(|next| next != state))
}

impl<'a> Explorer<'a> {
    fn new(configuration: &'a Configuration, mut cores: Cores) -> Self {
        let first = begin(configuration, &mut cores);
        let visited = std::iter::once((fingerprint(&first), 0)).collect();
        Explorer {
            configuration,
            cores,
            visited,
            parents: vec![NOWHERE],
            next: vec![NOWHERE],
            due: vec![[0; 2]],
            rests: HashMap::default(),
            frontier: VecDeque::from([first.clone()]),
            first,
            report: Report { name: configuration.name, complete: true, ..Report::default() },
        }
    }

    fn run(&mut self, limits: Limits, began: Instant) {
        let mut end_of_level = 1;
        while let Some(state) = self.frontier.pop_front() {
            let index = self.report.expanded;
            if index == end_of_level {
                self.report.depth += 1;
                end_of_level = self.visited.len();
            }
            let over = index.is_multiple_of(4096) && (began.elapsed() > limits.time || memory().1 > limits.memory);
            if over || self.visited.len() >= limits.states {
                self.report.complete = false;
                self.frontier.push_front(state);
                break;
            }
            self.expand(index as u32, &state);
            self.report.expanded += 1;
        }
    }

    fn expand(&mut self, index: u32, state: &State) {
        let own = fingerprint(state);
        let mut fair: Option<(u8, u32)> = None;
        let mut prompt = false;
        for step in state.moves(self.configuration) {
            let mut next = match state.after(&step, &mut self.cores, self.configuration) {
                Ok(Some(next)) => next,
                Ok(None) => continue,
                Err(fault) => {
                    self.found(fault, index, Some((state, &step)));
                    continue;
                }
            };
            if step == Move::TimePasses && !next.pay_for_time(prompt) {
                continue;
            }
            let key = fingerprint(&next);
            if key == own {
                continue;
            }
            prompt |= step.is_prompt(state);
            self.report.transitions += 1;
            let place = self.visit(key, next, index);
            if let Some(turn) = step.turn().filter(|turn| fair.is_none_or(|(best, _)| *turn < best)) {
                fair = Some((turn, place));
            }
        }
        self.due[index as usize] = self.due_of(state);
        match fair {
            Some((_, place)) => self.next[index as usize] = place,
            None => self.rest(index, state),
        }
    }

    fn visit(&mut self, key: Fingerprint, next: State, parent: u32) -> u32 {
        let place = self.visited.len() as u32;
        match self.visited.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => *known.get(),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(place);
                self.parents.push(parent);
                self.next.push(NOWHERE);
                self.due.push([0; 2]);
                self.frontier.push_back(next);
                place
            }
        }
    }

    /// Nothing goes on by itself from here: then everything must be done.
    fn rest(&mut self, index: u32, state: &State) {
        let mut live = [0; 2];
        for (part, live) in state.parts.iter().zip(&mut live) {
            if let Err(fault) = self.rests_well(part) {
                self.found(fault, index, None);
            }
            *live = part.core.state.live_release().map_or(0, |release| release.0 as u8);
        }
        let apart = self.configuration.together && live[..state.parts.len()].windows(2).any(|pair| pair[0] != pair[1]);
        if apart {
            self.found(Fault { rule: "together", evidence: format!("what moves together came to rest apart: {live:?}") }, index, None);
        }
        self.rests.insert(index, live);
    }

    fn rests_well(&self, part: &Part) -> Result<(), Fault> {
        let (state, world) = (&part.core.state, &part.world);
        let routed = state.route.generation > Generation(0) && !world.worker;
        let known = |node: &Node| state.is_wanted(node.id);
        let lags = |proxy: &Proxy| proxy.applied.generation != state.route.generation;
        let busy = [
            (state.rollout.is_some(), "a rollout is in progress"),
            (state.queued.is_some(), "a release is waiting"),
            (!state.pending.is_empty(), "effects are pending"),
            (!state.draining.is_empty(), "nodes are draining"),
            (!state.joining.is_empty(), "nodes are joining"),
            (part.core.next_deadline.is_some(), "a deadline is armed"),
            (!world.flights.is_empty(), "effects are on their way"),
            // Before the first route nobody can say what the proxies name, so nodes of a forgotten group are left alone.
            ((routed || world.worker) && !world.nodes.iter().all(known), "nodes exist that nobody wants"),
            (world.nodes.iter().any(|node| node.requests != 0 && !world.is_given_work(node, 0)), "old requests run"),
            (routed && world.proxies.iter().any(lags), "a proxy lags"),
            (routed && *world.kept.members != state.route.members, "the proxies apply another route"),
        ];
        if let Some((_, what)) = busy.iter().find(|(is, _)| *is) {
            return fault("end", format!("nothing goes on, and {what}"));
        }
        if state.live_release() != state.declared && !part.given_up && !state.pinned {
            return fault("end", format!("live is {:?}, declared {:?}, which was never given up", state.live_release(), state.declared));
        }
        let Some(live) = state.live else { return Ok(()) };
        let serving = world.nodes.iter().filter(|node| node.id.group == live && world.is_given_work(node, 0) && node.passed).count();
        let wanted = state.size_of(live.release) as usize;
        let stopped = state.healing.stopped;
        if serving != wanted && !stopped { fault("end", format!("{serving} of {wanted} nodes of {live} have traffic")) } else { Ok(()) }
    }

    /// The release that must be live in the end, if nothing goes wrong from here on.
    fn due_of(&self, state: &State) -> [u8; 2] {
        let mut due = [0; 2];
        for (part, due) in state.parts.iter().zip(&mut due) {
            let core = &part.core.state;
            let Some(Rollout { to, stage, .. }) = &core.rollout else { continue };
            let on_its_way = match stage {
                Stage::Prepare { deadline, .. } | Stage::Roll { deadline } => *deadline > NOW,
                Stage::Vacate | Stage::Command | Stage::Canary(_) | Stage::Shift | Stage::Confirm | Stage::Bake { .. } | Stage::Retire => {
                    true
                }
                Stage::Await { .. } | Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } => false,
            };
            let ill = |phase: Phase| matches!(phase, Phase::Failing | Phase::Hung | Phase::Exited);
            let well = !part.world.nodes.iter().any(|node| node.id.group == *to && ill(node.phase));
            let last = core.queued.as_ref().map_or(to.release, |queued| queued.release);
            let alone = core.rollout.as_ref().is_none_or(|rollout| rollout.together.is_none());
            if on_its_way && well && alone && !part.world.disturbed && part.world.look.is_none() && core.revoked.is_empty() {
                *due = last.0 as u8;
            }
        }
        due
    }

    /// Whether from every state the faultless schedule ends at rest, with what must be live.
    fn check_ends(&mut self) {
        let mut end = vec![NOWHERE; self.next.len()];
        for start in 0..self.report.expanded {
            let mut way = Vec::new();
            let mut place = start as u32;
            let ends_at = loop {
                let known = end[place as usize];
                if known != NOWHERE {
                    break Some(known);
                }
                if place as usize >= self.report.expanded {
                    break None;
                }
                let next = self.next[place as usize];
                // What is on the present way points to itself, until its end is known.
                end[place as usize] = place;
                way.push(place);
                if next == NOWHERE {
                    break Some(place);
                }
                place = next;
            };
            self.close_way(&way, ends_at, &mut end);
        }
    }

    fn close_way(&mut self, way: &[u32], ends_at: Option<u32>, end: &mut [u32]) {
        let Some(ends_at) = ends_at else {
            way.iter().for_each(|place| end[*place as usize] = NOWHERE);
            return;
        };
        if !self.rests.contains_key(&ends_at) {
            let evidence = "the faultless schedule goes round in circles and never comes to rest".into();
            self.found(Fault { rule: "end", evidence }, ends_at, None);
            self.rests.insert(ends_at, [0; 2]);
        }
        let live = self.rests[&ends_at];
        for place in way {
            end[*place as usize] = ends_at;
            let due = self.due[*place as usize];
            if let Some((due, live)) = due.iter().zip(live).find(|(due, live)| **due != 0 && *due != live) {
                let evidence = format!("nothing more goes wrong, and r{live} is live in the end instead of r{due}");
                self.found(Fault { rule: "end", evidence }, *place, None);
            }
        }
    }

    fn found(&mut self, fault: Fault, index: u32, step: Option<(&State, &Move)>) {
        self.report.violations += 1;
        let known = self.report.traces.iter().filter(|(known, _)| known.rule == fault.rule).count();
        if known < TRACES_OF_A_RULE {
            let mut trace = self.way_to(index);
            trace.extend(step.map(|(state, step)| state.in_words(step)));
            trace.push(format!("{} is broken: {}", fault.rule, fault.evidence));
            self.report.traces.push((fault, trace));
        }
    }

    /// The shortest way to a state, in words.
    fn way_to(&mut self, index: u32) -> Vec<String> {
        let mut places = vec![index];
        while let Some(parent) = places.last().map(|place| self.parents[*place as usize]).filter(|parent| *parent != NOWHERE) {
            places.push(parent);
        }
        places.pop();
        let mut state = self.first.clone();
        let mut words = vec![format!("at first: {}", state.summary())];
        while let Some(place) = places.pop() {
            let found = state.moves(self.configuration).into_iter().find_map(|step| {
                let next = state.after(&step, &mut self.cores, self.configuration).ok().flatten()?;
                let mut slow = next.clone();
                let paid = step == Move::TimePasses && slow.pay_for_time(true) && self.visited.get(&fingerprint(&slow)) == Some(&place);
                let next = if paid { slow } else { next };
                (self.visited.get(&fingerprint(&next)) == Some(&place)).then_some((step, next))
            });
            let Some((step, next)) = found else { break };
            words.push(format!("{}\n      {}", state.in_words(&step), next.summary()));
            state = next;
        }
        words
    }
}

/// The memory of this process in bytes: the most it had, and what it has now. 0 where the system does not tell.
pub fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("VmHWM:").unwrap_or(0) * 1024, field("VmRSS:").unwrap_or(0) * 1024)
}
