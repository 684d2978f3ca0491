//! What happens in a world and when, drawn from its seed.

use crate::store::StoreFaults;
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::time::WeeklyWindow;
use gapless_engine::Operation;
use gapless_engine::declaration::{CheckKind, HealthCheck, Hook, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::error::ErrorKind;
use gapless_platforms::sim::{Behaviour, Exit, Faults, Random};
use std::collections::BTreeMap;
use std::time::Duration;

/// Things that happen in one world.
const ACTS: u64 = 45;

/// The longest time from one to the next.
const PAUSE: Duration = Duration::from_secs(5);

/// What all services are made from.
pub const ARTIFACT: &str = "hello/web";

/// The service without a port.
pub const WORKER: &str = "job";

/// Versions that are deployed. The one after them is always sound.
const VERSIONS: u64 = 7;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// Urgently, or not.
    Declare(Box<ServiceDeclaration>, bool),
    /// Two services whose releases shift together, or not at all. The number is used once.
    Together(Box<[ServiceDeclaration; 2]>, u8),
    Rollback(usize, Option<ReleaseNumber>, bool),
    Operate(usize, Operation),
    Revoke(u32),
    Lift(u32),
    /// The engine is dead for so long, the next one's wall clock is wrong by so many milliseconds, and it may die again at the so-manieth place from its start.
    Crash(Duration, i64, Option<u64>),
    /// The engine dies at the so-manieth place from here.
    Doom(u64),
    /// The engine stops in order and starts again.
    Stop,
    /// The whole program stands still while the world goes on.
    Stall(Duration),
    Behave(u64, Behaviour),
    Faults(Faults),
    StoreFaults(StoreFaults),
    Full(bool),
    /// Nodes cannot be made for some tries, or never.
    NoNodes(u32, ErrorKind),
    /// A service, and which of its nodes.
    Kill(usize, usize),
    Vanish(usize, usize),
    Hang(usize, usize),
    /// All hung nodes answer again.
    Wake,
    Plant(usize, u64),
    Reach(u32, bool),
    Slow(u32, Duration),
    Worker(u32, bool),
    Replace(u32),
    Rewind(u32),
}

/// A whole world's story.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Nobody dies by himself, no proxy loses its memory, no look is stale: the promise holds for every request.
    pub calm: bool,
    pub proxies: u32,
    pub services: Vec<ServiceName>,
    pub twice: bool,
    pub long_requests: bool,
    /// Each with the time since the one before.
    pub acts: Vec<(Duration, Act)>,
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_add(1));
        let calm = random.below(2) == 0;
        let proxies = 1 + u32::try_from(random.below(3)).unwrap_or_default();
        let count = if random.below(3) == 0 { 2 } else { 1 };
        let mut services: Vec<ServiceName> = ["web", "api"].into_iter().take(count).map(service).collect();
        if random.below(4) == 0 {
            services.push(service(WORKER));
        }
        let mut drawer = Drawer { random, calm, proxies, services: services.clone() };
        let mut acts: Vec<(Duration, Act)> = drawer.beginning().into_iter().map(|act| (Duration::ZERO, act)).collect();
        for _ in 0..ACTS {
            let pause = drawer.random.span(PAUSE);
            acts.push((pause, drawer.act()));
        }
        let (twice, long_requests) = (drawer.random.below(8) == 0, drawer.random.below(2) == 0);
        Plan { seed, calm, proxies, services, twice, long_requests, acts }
    }
}

pub fn service(name: &str) -> ServiceName {
    ServiceName::new("hello", name).expect("a name")
}

struct Drawer {
    random: Random,
    calm: bool,
    proxies: u32,
    services: Vec<ServiceName>,
}

impl Drawer {
    fn beginning(&mut self) -> Vec<Act> {
        let mut acts: Vec<Act> = (1..=VERSIONS).map(|version| Act::Behave(version, self.behaviour())).collect();
        if self.random.below(2) == 0 {
            acts.push(Act::Faults(self.faults()));
        }
        acts.extend((0..self.services.len()).map(|service| Act::Declare(Box::new(self.declaration(service)), false)));
        acts
    }

    fn act(&mut self) -> Act {
        let wild = if self.calm { 80 } else { 112 };
        let service = self.one_of(self.services.len());
        let proxy = u32::try_from(self.one_of(self.proxies as usize)).unwrap_or_default();
        match self.random.below(wild) {
            0..32 => self.wish(service),
            32..36 => self.crash(),
            36..44 => Act::Doom(self.random.below(60)),
            44..46 => Act::Stop,
            46..48 => Act::Stall(self.random.span(Duration::from_secs(20))),
            48..52 => Act::Faults(self.faults()),
            52..56 => Act::Faults(Faults::default()),
            56..61 => Act::StoreFaults(self.store_faults()),
            // Which makes room, too.
            61..64 => Act::StoreFaults(StoreFaults::default()),
            64 => Act::Full(true),
            65..67 => Act::NoNodes(1 + self.small(6), if self.random.below(3) == 0 { ErrorKind::Corrupt } else { ErrorKind::NoRoom }),
            67..70 => Act::Reach(proxy, false),
            70..76 => Act::Reach(proxy, true),
            76..80 => Act::Slow(proxy, self.random.span(Duration::from_secs(4))),
            other => self.wild_act(other - 80, service, proxy),
        }
    }

    /// What people want.
    fn wish(&mut self, service: usize) -> Act {
        match self.random.below(32) {
            0..15 => Act::Declare(Box::new(self.declaration(service)), self.random.below(8) == 0),
            15 if self.services.len() > 1 => {
                Act::Together(Box::new([self.declaration(0), self.declaration(1)]), u8::try_from(self.small(256)).unwrap_or_default())
            }
            15..18 => Act::Rollback(service, None, self.random.below(2) == 0),
            18..21 => Act::Rollback(service, Some(ReleaseNumber(1 + self.small(6))), self.random.below(2) == 0),
            21 => Act::Operate(service, Operation::Pause),
            22 => Act::Operate(service, Operation::Resume),
            23 => Act::Operate(service, Operation::Cancel),
            24 => Act::Operate(service, Operation::Promote),
            25 => Act::Operate(service, Operation::Retry),
            26..29 => Act::Operate(service, Operation::Scale(1 + self.small(5))),
            29 => Act::Revoke(1 + self.small(VERSIONS)),
            _ => Act::Lift(1 + self.small(VERSIONS)),
        }
    }

    /// What no promise covers.
    fn wild_act(&mut self, kind: u64, service: usize, proxy: u32) -> Act {
        let node = self.one_of(8);
        match kind {
            0..6 => Act::Kill(service, node),
            6..9 => Act::Vanish(service, node),
            9..14 => Act::Hang(service, node),
            14..17 => Act::Wake,
            17 => Act::Plant(service, self.random.below(3)),
            18..21 => Act::Worker(proxy, false),
            21..25 => Act::Worker(proxy, true),
            25..27 => Act::Replace(proxy),
            27 => Act::Rewind(proxy),
            _ => Act::Behave(1 + self.random.below(VERSIONS), self.behaviour()),
        }
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.random.below(count as u64)).unwrap_or_default()
    }

    fn small(&mut self, bound: u64) -> u32 {
        u32::try_from(self.random.below(bound)).unwrap_or_default()
    }

    fn crash(&mut self) -> Act {
        let down = self.random.span(Duration::from_secs(10));
        let hours = i64::try_from(self.random.span(Duration::from_secs(7200)).as_millis()).unwrap_or_default();
        let wrong_by = match self.random.below(4) {
            0 => hours,
            1 => -hours,
            _ => 0,
        };
        let again = (self.random.below(2) == 0).then(|| self.random.below(20));
        Act::Crash(down, wrong_by, again)
    }

    fn faults(&mut self) -> Faults {
        let mut rate = |most: u64| if self.random.below(2) == 0 { 0 } else { u32::try_from(self.random.below(most)).unwrap_or_default() };
        let (refused, half_done, lost, answer_lost) = (rate(300), rate(150), rate(150), rate(300));
        let (late, again, hangs) = (rate(400), rate(300), rate(40));
        let (look_fails, look_is_slow, look_is_stale, look_hangs) = (rate(200), rate(300), rate(200), rate(10));
        Faults {
            refused,
            half_done,
            lost,
            answer_lost,
            late,
            again,
            hangs,
            look_fails,
            look_is_slow,
            look_is_stale: if self.calm { 0 } else { look_is_stale },
            look_hangs,
            longest: self.random.span(Duration::from_secs(12)),
            in_a_row: None,
        }
    }

    fn store_faults(&mut self) -> StoreFaults {
        let mut rate = |most: u64| if self.random.below(2) == 0 { 0 } else { u32::try_from(self.random.below(most)).unwrap_or_default() };
        StoreFaults { no_room: rate(300), not_there: rate(200), there: rate(200), unreadable: rate(100), full: false }
    }

    /// In a calm world, whatever passes the gate goes on to serve.
    fn behaviour(&mut self) -> Behaviour {
        let ordinary = Behaviour::default();
        let exit = |after: Duration| Some(Exit { after, code: 3, output: "cannot open the configuration".to_string() });
        match self.random.below(if self.calm { 12 } else { 15 }) {
            0..4 => ordinary,
            4 => Behaviour { task_fails: true, ..ordinary },
            5 => Behaviour { task: self.random.span(Duration::from_secs(7)), ..ordinary },
            6 => Behaviour { status: 500, ..ordinary },
            7 => Behaviour { exit: exit(Duration::ZERO), ..ordinary },
            8 => Behaviour { boot: Duration::from_secs(1_000_000), ..ordinary },
            9 => Behaviour { image: Some(Digest([0xee; 32])), ..ordinary },
            10 => Behaviour { boot: self.random.span(Duration::from_secs(6)), ..ordinary },
            11 => Behaviour { start: self.random.span(Duration::from_secs(4)), ..ordinary },
            12 => Behaviour { exit: exit(self.random.span(Duration::from_secs(20))), ..ordinary },
            13 => Behaviour { flaps: Some(Duration::from_millis(200 + self.random.below(6000))), ..ordinary },
            _ => Behaviour { start: Duration::from_secs(1_000_000), ..ordinary },
        }
    }

    fn seconds(&mut self, choice: &[u64]) -> Duration {
        Duration::from_secs(*self.random.pick(choice).unwrap_or(&1))
    }

    fn declaration(&mut self, service: usize) -> ServiceDeclaration {
        let nodes = 1 + self.small(4);
        let worker = self.services.get(service).is_some_and(|name| name.service() == WORKER);
        let strategy = match self.strategy(worker) {
            Strategy::Rolling { surge: 0 } if nodes == 1 => Strategy::Rolling { surge: 1 },
            strategy => strategy,
        };
        let floor = match &strategy {
            Strategy::Recreate => 0,
            Strategy::Rolling { surge: 0 } => 1 + self.small(u64::from(nodes) - 1),
            _ => self.small(u64::from(nodes) + 1),
        };
        let warm = !worker && matches!(strategy, Strategy::BlueGreen | Strategy::Canary { .. });
        let policy = Policy {
            strategy,
            floor,
            gate_passes: 1 + self.small(3),
            gate_failures: 2 + self.small(3),
            progress_deadline: self.seconds(&[5, 10, 20]),
            drain_deadline: self.seconds(&[1, 3, 6]),
            bake: if warm { self.seconds(&[0, 0, 2, 8]) } else { Duration::ZERO },
            task_deadline: self.seconds(&[1, 5]),
            supersede: if self.random.below(2) == 0 { Supersede::Queue } else { Supersede::Replace },
            breaks_the_way_back: self.random.below(12) == 0,
            freeze: self.freeze(),
            keep: 1 + self.small(3),
        };
        let version = 1 + self.small(VERSIONS);
        let tasks = self.tasks();
        let name = self.services.get(service).map_or("web", ServiceName::service).to_string();
        ServiceDeclaration { nodes, policy, tasks, ..declaration(&name, version) }
    }

    /// In a calm world nothing leaves before something else is there.
    fn strategy(&mut self, worker: bool) -> Strategy {
        match self.random.below(if self.calm { 9 } else { 10 }) {
            0..5 => Strategy::BlueGreen,
            5..7 => Strategy::Rolling { surge: self.small(3).max(u32::from(self.calm)) },
            7..9 if !worker => {
                let pause = |random: &mut Random| match random.below(6) {
                    0 => CanaryPause::Person,
                    _ => CanaryPause::For(random.span(Duration::from_secs(4))),
                };
                let steps = [(10, pause(&mut self.random)), (50, pause(&mut self.random))];
                let steps = steps.map(|(percent, pause)| CanaryStep { percent, pause }).to_vec();
                let analysis = AnalysisPolicy { minimum_requests: 10, error_margin: 100, latency_margin: 20 };
                Strategy::Canary { steps, analysis: (self.random.below(2) == 0).then_some(analysis) }
            }
            9 => Strategy::Recreate,
            _ => Strategy::BlueGreen,
        }
    }

    /// These worlds begin on a Thursday at 00:16.
    fn freeze(&mut self) -> Vec<WeeklyWindow> {
        if self.random.below(10) > 0 {
            return Vec::new();
        }
        let from = 3 * 24 * 60 + 16 + u16::try_from(self.random.below(3)).unwrap_or_default();
        vec![WeeklyWindow { from, until: from + 1 }]
    }

    fn tasks(&mut self) -> Tasks {
        let mut command = || (self.random.below(8) == 0).then(|| vec!["migrate".to_string()]);
        Tasks { release_command: command(), before_shift: command().map(Hook::Command), after_shift: command().map(Hook::Command) }
    }
}

/// A declaration that is sound whenever the nodes of its version are.
pub fn declaration(name: &str, version: u32) -> ServiceDeclaration {
    let stays_up = CheckKind::StayUp { span: Duration::from_millis(500) };
    ServiceDeclaration {
        service: service(name),
        artifact_name: ARTIFACT.to_string(),
        artifact_version: ArtifactVersion(version),
        image: Digest([u8::try_from(version).expect("a small version"); 32]),
        nodes: 3,
        host: name.to_string(),
        node: NodeSettings {
            port: (name != WORKER).then_some(80),
            command: vec!["/bin/serve".to_string()],
            working_directory: "/".into(),
            user: "www-data".to_string(),
            environment: BTreeMap::new(),
            writable: Vec::new(),
            volumes: BTreeMap::new(),
            memory_bytes: 64 << 20,
            cpu_millicores: 500,
            outbound: false,
            stop_signal: StopSignal::Term,
        },
        health: HealthCheck {
            kind: if name == WORKER { stays_up } else { CheckKind::Http { path: "/healthz".to_string() } },
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
        },
        policy: Policy {
            floor: 1,
            progress_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(3),
            ..Policy::default()
        },
        tasks: Tasks::default(),
    }
}

/// The version that every world ends with.
pub fn last_version() -> u32 {
    u32::try_from(VERSIONS).unwrap_or_default() + 1
}
