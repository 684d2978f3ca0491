//! What is explored: the services with their scripts, and how much may go wrong.

use super::world::{GATE_FAILURES, GATE_PASSES};
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::service::Together;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often each kind of accident may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The engine dies and starts again.
    pub crashes: u8,
    /// An effect is lost (fails, and may have been done, by halves or not at all, or still be done later) or done twice.
    pub faults: u8,
    /// An effect fails for good.
    pub final_failures: u8,
    /// A person wants the release before back.
    pub rollbacks: u8,
    /// A person declares a rejected release again.
    pub again: u8,
    /// A new node fails its checks below the gate, or its command ends there.
    pub bad: u8,
    /// A node that had passed the gate dies, vanishes or hangs.
    pub deaths: u8,
    /// A proxy can neither be asked nor told for a while.
    pub silences: u8,
    /// A deadline passes while something is under way that could have been quicker. [`FREE`]: always.
    pub slow: u8,
    /// A person does one of the configuration's operations.
    pub operations: u8,
}

/// As often as it likes.
pub const FREE: u8 = u8::MAX;

/// What is explored.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub name: &'static str,
    pub proxies: usize,
    /// What is declared, one after the other, of each service.
    pub script: Vec<Vec<Declaration>>,
    pub budget: Budget,
    /// Looks take their time: the world goes on between what the proxies say and what the nodes show.
    pub torn: bool,
    /// Nodes of a group are treated as alike.
    pub symmetric: bool,
    /// How many releases of each script are live already, one after the other, before anything can go wrong.
    pub live_at_first: usize,
    /// Releases at the same place of the scripts move together.
    pub together: bool,
    /// What a person may do, beside declaring and rolling back.
    pub operations: Vec<Operation>,
}

/// What a person may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Pause,
    Resume,
    Cancel,
    Promote,
    Retry,
    Scale(u32),
    /// These versions may not run.
    Revoke(Vec<u32>),
}

impl Operation {
    pub fn event(&self) -> Event {
        match self {
            Operation::Pause => Event::Paused,
            Operation::Resume => Event::Resumed,
            Operation::Cancel => Event::Cancelled,
            Operation::Promote => Event::Promoted,
            Operation::Retry => Event::RetryRequested,
            Operation::Scale(nodes) => Event::Scaled { nodes: *nodes },
            Operation::Revoke(versions) => Event::Revoked { artifacts: versions.iter().map(|version| ArtifactVersion(*version)).collect() },
        }
    }
}

/// Few distinct times, so that deadlines that were armed one after the other seldom differ by nothing but their order.
pub fn policy(floor: u32, bake: u32) -> Policy {
    let second = Duration::from_secs(1);
    Policy {
        floor,
        gate_passes: GATE_PASSES,
        gate_failures: GATE_FAILURES,
        progress_deadline: second * 60,
        drain_deadline: second * 30,
        bake: second * bake,
        ..Policy::default()
    }
}

/// `releases` releases of a service with this many nodes.
pub fn script(releases: u8, nodes: u32, policy: &Policy) -> Vec<Declaration> {
    let declaration = |version: u8| Declaration {
        content: Digest([version; 32]),
        artifact: ArtifactVersion(version.into()),
        image: Digest([version; 32]),
        nodes,
        policy: policy.clone(),
        serves: true,
        tasks: BTreeSet::new(),
    };
    (1..=releases).map(declaration).collect()
}

impl Configuration {
    /// One service behind one proxy; nothing goes wrong.
    pub fn new(name: &'static str, script: Vec<Declaration>) -> Self {
        Configuration {
            name,
            proxies: 1,
            script: vec![script],
            budget: Budget::default(),
            torn: false,
            symmetric: true,
            live_at_first: 1,
            together: false,
            operations: Vec::new(),
        }
    }

    /// What binds a release of a service to those at the same place of the other scripts.
    pub fn together_of(&self, service: usize, place: usize) -> Option<Together> {
        let name = |service: usize| ServiceName::new("model", &format!("s{service}")).ok();
        let with = (0..self.script.len()).filter(|other| *other != service).filter_map(name).collect();
        (self.together && place >= self.live_at_first).then_some(Together { id: Digest([place as u8; 32]), with })
    }

    /// From before the first release.
    pub fn beginning_with_nothing(mut self) -> Self {
        self.live_at_first = 0;
        self
    }

    /// With so much that may go wrong.
    pub fn with(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    fn behind(mut self, proxies: usize) -> Self {
        self.proxies = proxies;
        self
    }

    fn with_operations(mut self, operations: &[Operation]) -> Self {
        self.operations = operations.to_vec();
        self
    }

    /// For policies that let certain nodes go first.
    fn with_nodes_that_differ(mut self) -> Self {
        self.symmetric = false;
        self
    }
}

const NONE: Budget =
    Budget { crashes: 0, faults: 0, final_failures: 0, rollbacks: 0, again: 0, bad: 0, deaths: 0, silences: 0, slow: 0, operations: 0 };

/// Blue/green at its full size: one service with 3 + 3 nodes. Whole as far as that goes in minutes, and with everything at once as far as the time goes.
pub fn large() -> Vec<Configuration> {
    let plain = |releases: u8| script(releases, 3, &policy(3, 0));
    let baked = script(3, 3, &policy(3, 120));
    let everything = Budget { crashes: 2, faults: 2, ..NONE };
    vec![
        Configuration::new("blue-green 3+3, 2 releases, 2 crashes", plain(2)).with(Budget { crashes: 2, ..NONE }),
        Configuration::new("blue-green 3+3, 2 releases, 2 lost effects", plain(2)).with(Budget { faults: 2, ..NONE }),
        Configuration::new("blue-green 3+3, 3 releases", plain(3)),
        two_services(everything),
        Configuration::new("blue-green 3+3, 3 releases, bake window, a rollback, 2 crashes, 2 lost effects", baked)
            .with(Budget { rollbacks: 1, ..everything }),
        Configuration::new("blue-green 3+3, 3 releases, 2 crashes, 2 lost effects", plain(3)).with(everything),
    ]
}

/// Two services with 1 + 1 nodes each behind one proxy, which gets the routes of both in one snapshot.
pub fn two_services(budget: Budget) -> Configuration {
    let mut configuration = Configuration::new("two services 1+1 behind one proxy", script(3, 1, &policy(1, 0))).with(budget);
    configuration.script.push(script(3, 1, &policy(1, 0)));
    configuration
}

/// Blue/green, small, with the accidents that the large ones leave out.
pub fn blue_green() -> Vec<Configuration> {
    let small = |bake: u32| script(2, 2, &policy(2, bake));
    let tiny = |bake: u32| script(2, 1, &policy(1, bake));
    let accident = Budget { crashes: 1, faults: 1, ..NONE };
    let mut torn = Configuration::new("looks that take their time", tiny(0)).with(Budget { slow: FREE, ..accident }).behind(2);
    torn.torn = true;
    vec![
        Configuration::new("the first release and another", tiny(0)).with(Budget { bad: 1, slow: 1, ..accident }).beginning_with_nothing(),
        Configuration::new("new nodes fail", small(0)).with(Budget { bad: 2, again: 1, final_failures: 1, slow: 1, ..accident }),
        Configuration::new("nodes die, hang, vanish", small(120)).with(Budget { deaths: 1, crashes: 1, rollbacks: 1, ..NONE }),
        Configuration::new("two proxies, one falls silent", small(0)).with(Budget { silences: 1, ..accident }).behind(2),
        Configuration::new("two proxies, one falls silent in the bake window", tiny(120))
            .with(Budget { silences: 1, rollbacks: 1, ..accident })
            .behind(2),
        Configuration::new("everything is slow", tiny(120)).with(Budget { slow: FREE, rollbacks: 1, ..accident }),
        torn,
    ]
}

/// The other strategies, and what else a release can be, each small.
pub fn strategies() -> Vec<Configuration> {
    let accident = Budget { crashes: 1, faults: 1, bad: 1, ..NONE };
    let of = |strategy: Strategy, floor: u32| script(2, 2, &Policy { strategy, ..policy(floor, 0) });
    let step = |percent: u8, pause: CanaryPause| CanaryStep { percent, pause };
    let steps = vec![step(10, CanaryPause::For(Duration::from_secs(60))), step(50, CanaryPause::Person)];
    let analysis = Some(AnalysisPolicy { minimum_requests: 100, error_margin: 50, latency_margin: 20 });
    let mut worker = script(2, 2, &policy(1, 0));
    worker.iter_mut().for_each(|declaration| declaration.serves = false);
    let mut tasks = script(2, 1, &policy(1, 0));
    tasks.iter_mut().for_each(|declaration| declaration.tasks = Task::ALL.into());
    let mut single = script(2, 1, &Policy { strategy: Strategy::Recreate, ..policy(0, 0) });
    single.iter_mut().for_each(|declaration| declaration.tasks = [Task::ReleaseCommand].into());
    let canary = |analysis: Option<AnalysisPolicy>| of(Strategy::Canary { steps: steps.clone(), analysis }, 2);
    let mut together = two_services(accident);
    together.name = "two services that move together";
    together.together = true;
    together.script.iter_mut().for_each(|script| script.truncate(2));
    let mut with_a_way_back = together.clone();
    with_a_way_back.name = "two services that move together, one with a bake window, a rollback";
    with_a_way_back.script = vec![script(2, 1, &policy(1, 120)), script(2, 1, &policy(1, 0))];
    with_a_way_back.budget = Budget { rollbacks: 1, ..NONE };
    let mut with_more_to_come = with_a_way_back.clone();
    with_more_to_come.name = "two services that move together, three releases, a bad one, a rollback";
    with_more_to_come.script = vec![script(3, 1, &policy(1, 0)), script(3, 1, &policy(1, 0))];
    with_more_to_come.budget = Budget { rollbacks: 1, bad: 1, ..NONE };
    vec![
        together,
        with_a_way_back,
        with_more_to_come,
        Configuration::new("rolling 2+2, surge 1", of(Strategy::Rolling { surge: 1 }, 2)).with(accident).with_nodes_that_differ(),
        Configuration::new("rolling 2+2, no surge", of(Strategy::Rolling { surge: 0 }, 1)).with(accident).with_nodes_that_differ(),
        Configuration::new("canary 2+2 in two steps, with analysis", canary(analysis))
            .with(Budget { bad: 2, ..accident })
            .with_nodes_that_differ(),
        Configuration::new("canary 2+2 in two steps, without", canary(None)).with(accident).with_nodes_that_differ(),
        Configuration::new("recreate 1+1", single).with(Budget { final_failures: 1, slow: 1, ..accident }),
        Configuration::new("worker 2+2", worker).with(accident),
        Configuration::new("release command and hooks 1+1", tasks).with(Budget { final_failures: 1, ..accident }),
    ]
}

/// What people do, at any moment.
pub fn operations() -> Vec<Configuration> {
    let accident = Budget { crashes: 1, operations: 2, ..NONE };
    let rolling = || script(2, 2, &Policy { strategy: Strategy::Rolling { surge: 1 }, ..policy(1, 0) });
    let plain = |releases: u8, nodes: u32, bake: u32| script(releases, nodes, &policy(1, bake));
    let stop = [Operation::Pause, Operation::Cancel, Operation::Retry, Operation::Promote];
    let mut replacing = plain(3, 1, 0);
    replacing.iter_mut().for_each(|declaration| declaration.policy.supersede = Supersede::Replace);
    vec![
        Configuration::new("paused, cancelled, tried again", plain(2, 1, 120))
            .with(Budget { faults: 1, slow: 1, ..accident })
            .with_operations(&stop),
        Configuration::new("rolling, paused and cancelled", rolling()).with(accident).with_operations(&stop).with_nodes_that_differ(),
        Configuration::new("superseded", replacing).with(Budget { faults: 1, ..accident }),
        Configuration::new("revoked", plain(2, 1, 120)).with(Budget { rollbacks: 1, ..accident }).with_operations(&[
            Operation::Revoke(vec![1]),
            Operation::Revoke(vec![2]),
            Operation::Revoke(Vec::new()),
        ]),
        Configuration::new("scaled", plain(2, 2, 0))
            .with(accident)
            .with_operations(&[Operation::Scale(1), Operation::Scale(3)])
            .with_nodes_that_differ(),
    ]
}
