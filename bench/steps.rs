//! What a step of the core costs by the number of nodes. The bar: under 10 ms at 10,000 nodes, and linear in them.
//!
//! `cargo bench -p gapless-core --bench steps`. A rollout of a whole service is played several times at each size and with each strategy. Its steps are the same each time, so each has
//! a median over the plays; the table names the slowest, with what checking the invariants on it costs, as the engine does before it adopts a step. A harness that times one closure
//! knows no slowest step of a play: `docs/decisions/0017`.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::invariant::check;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy};
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::rollout::step;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::{Duration, Instant as Clock};

/// The strategies, by name: a rolling rollout takes a tenth of the nodes at a time.
fn strategies(nodes: u32) -> [(&'static str, Strategy); 4] {
    let half = CanaryStep { percent: 50, pause: CanaryPause::For(TICK) };
    [
        ("blue-green", Strategy::BlueGreen),
        ("canary", Strategy::Canary { steps: vec![half], analysis: None }),
        ("rolling", Strategy::Rolling { surge: (nodes / 10).max(1) }),
        ("recreate", Strategy::Recreate),
    ]
}

fn declaration(version: u8, nodes: u32, strategy: &Strategy) -> Declaration {
    let second = Duration::from_secs(1);
    let policy = Policy {
        strategy: strategy.clone(),
        floor: if *strategy == Strategy::Recreate { 0 } else { nodes },
        gate_passes: 1,
        gate_failures: 3,
        progress_deadline: second * 60,
        drain_deadline: second * 30,
        bake: Duration::ZERO,
        ..Policy::default()
    };
    let digest = Digest([version; 32]);
    Declaration {
        content: digest,
        artifact: ArtifactVersion(version.into()),
        image: digest,
        nodes,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// The node counts that are compared: each ten times the one before.
const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];

/// How often a rollout is played at each size.
const PLAYS: usize = 15;

/// From one look at the world to the next.
const TICK: Duration = Duration::from_secs(1);

/// More looks at the world than any of these rollouts takes.
const LOOKS: usize = 1_000;

/// One step that was taken.
#[derive(Clone)]
struct Taken {
    event: &'static str,
    step: Duration,
    check: Duration,
}

/// A world in which everything that was asked for is done at once.
#[derive(Default)]
struct Eager {
    state: ServiceState,
    seen: Observation,
    now: Instant,
    taken: Vec<Taken>,
}

impl Eager {
    fn feed(&mut self, event: &Event) -> bool {
        let (now, began) = (self.now, Clock::now());
        let next = step(&self.state, event, now);
        let stepped = began.elapsed();
        check(&self.state, event, now, &next).expect("the invariants hold");
        self.taken.push(Taken { event: name(event), step: stepped, check: began.elapsed() - stepped });
        let changed = next.state != self.state;
        self.state = next.state;
        for (id, effect) in next.effects {
            if self.done(&effect) {
                self.feed(&Event::EffectEnded { effect: id, result: Ok(()) });
            }
        }
        changed
    }

    fn done(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::EnsureGroup { group, size } => {
                let health = Health { passes: 5, ..Health::default() };
                let image = self.state.releases[&group.release].image;
                let node = NodeSeen { condition: Condition::Running, image, health, requests_in_flight: 0 };
                self.seen.nodes.extend((0..*size).map(|ordinal| (group.node(ordinal), node.clone())));
            }
            Effect::Route(route) => {
                self.seen.proxies.insert("a".into(), Some(route.generation));
            }
            Effect::DestroyNodes { nodes } => self.seen.nodes.retain(|node, _| !nodes.contains(node)),
            Effect::Drain { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } => {}
            Effect::Notify(_) => return false,
        }
        true
    }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Declared { .. } => "declared",
        Event::Observed(_) => "observed",
        Event::EffectEnded { .. } => "effect ended",
        _ => "other",
    }
}

/// The steps of a rollout that replaces all nodes of a live release, a last look that changes nothing included.
fn play(nodes: u32, strategy: &Strategy) -> Vec<Taken> {
    let mut world = Eager::default();
    for version in 1..=2 {
        world.taken.clear();
        world.feed(&Event::declared(declaration(version, nodes, strategy)));
        let mut looks = 0;
        while world.feed(&Event::Observed(world.seen.clone())) || world.state.rollout.is_some() {
            world.now = world.now.after(TICK);
            looks += 1;
            assert!(looks < LOOKS, "the rollout does not end: {:?}", world.state.rollout);
        }
        assert_eq!(world.state.live_release(), world.state.declared, "what is measured is a rollout that ends well");
    }
    world.taken
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Each step of the rollout, its times the medians over all plays.
fn medians(nodes: u32, strategy: &Strategy) -> Vec<Taken> {
    let plays: Vec<Vec<Taken>> = (0..PLAYS).map(|_| play(nodes, strategy)).collect();
    assert!(plays.iter().all(|play| play.len() == plays[0].len()), "a rollout has the same steps each time");
    let of = |place: usize, part: fn(&Taken) -> Duration| median(plays.iter().map(|play| part(&play[place])));
    let taken =
        |(place, first): (usize, &Taken)| Taken { event: first.event, step: of(place, |one| one.step), check: of(place, |one| one.check) };
    plays[0].iter().enumerate().map(taken).collect()
}

fn main() {
    println!("strategy      nodes  steps   median step  slowest step  growth  which                its check  median check");
    for kind in 0..strategies(1).len() {
        let mut before: Option<Duration> = None;
        for nodes in SIZES {
            let (name, strategy) = &strategies(nodes)[kind];
            let steps = medians(nodes, strategy);
            before = Some(tell(name, nodes, &steps, before));
        }
    }
    println!("medians of {PLAYS} plays; ten times the nodes: a growth of 10 is linear");
}

/// One line of the table; the slowest step, for the next line.
fn tell(name: &str, nodes: u32, steps: &[Taken], before: Option<Duration>) -> Duration {
    let (place, slowest) = steps.iter().enumerate().max_by_key(|(_, one)| one.step).expect("a rollout has steps");
    let growth = before.map_or(String::new(), |before| format!("{:.1} x", slowest.step.as_secs_f64() / before.as_secs_f64()));
    println!(
        "{name:<10}  {nodes:>7}  {:>5}  {:>12.1?}  {:>12.1?}  {growth:>6}  {:<19}  {:>9.1?}  {:>12.1?}",
        steps.len(),
        median(steps.iter().map(|one| one.step)),
        slowest.step,
        format!("{}: {}", place + 1, slowest.event),
        slowest.check,
        median(steps.iter().map(|one| one.check)),
    );
    slowest.step
}
