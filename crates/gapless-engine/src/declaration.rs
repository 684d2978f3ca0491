//! A service's whole declaration.

use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::policy::{CanaryPause, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration};
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that makes a release: the artifact and how its nodes run. Its content hash is the release's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDeclaration {
    /// The service.
    pub service: ServiceName,
    /// The artifact's name, `project/image`.
    pub artifact_name: String,
    /// The artifact's version.
    pub artifact_version: ArtifactVersion,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// How many nodes serve.
    pub nodes: u32,
    /// The `Host` that the service answers, lower case without port, `*` for any; a path behind it (`shop.example/api`) restricts it to requests below that.
    pub host: String,
    /// How each node runs.
    pub node: NodeSettings,
    /// How a node is checked.
    pub health: HealthCheck,
    /// How the service moves between releases.
    pub policy: Policy,
    /// What is run once for the release.
    pub tasks: Tasks,
}

/// What is run once for a release, beside its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// A program and its arguments, run in a one-off node of the new image before any other of its nodes is made: a migration.
    pub release_command: Option<Vec<String>>,
    /// When the new nodes passed the gate, before they get traffic.
    pub before_shift: Option<Hook>,
    /// When the new nodes have the traffic, before the old ones are given up.
    pub after_shift: Option<Hook>,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A program and its arguments, run in a one-off node of the new image.
    Command(Vec<String>),
    /// A POST to this address (`http://…`); a status from 200 to 299 passes.
    Http {
        /// The address.
        url: String,
    },
}

/// How a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The port that the node's application listens on. `None`: a worker, which answers no requests and is in no proxy's route.
    pub port: Option<u16>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The folder the command starts in, absolute.
    pub working_directory: PathBuf,
    /// The user in the image that the command starts as, by name or `uid:gid`.
    pub user: String,
    /// Environment variables; no secrets.
    pub environment: BTreeMap<String, String>,
    /// Absolute paths that are writable: a tmpfs each, empty at start, gone with the node.
    pub writable: Vec<PathBuf>,
    /// Named folders of the host that outlive nodes, mounted at absolute paths.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The most memory, in bytes.
    pub memory_bytes: u64,
    /// The most CPU time, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Whether nodes may open connections to the outside.
    pub outbound: bool,
    /// What asks the command to end.
    pub stop_signal: StopSignal,
}

/// The signal that asks a node's command to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StopSignal {
    #[default]
    Term,
    Quit,
    Int,
    Hup,
    Usr1,
    Usr2,
    Winch,
}

impl StopSignal {
    /// Every signal.
    pub const ALL: [StopSignal; 7] =
        [StopSignal::Term, StopSignal::Quit, StopSignal::Int, StopSignal::Hup, StopSignal::Usr1, StopSignal::Usr2, StopSignal::Winch];

    /// The signal's name, as `kill` knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StopSignal::Term => "TERM",
            StopSignal::Quit => "QUIT",
            StopSignal::Int => "INT",
            StopSignal::Hup => "HUP",
            StopSignal::Usr1 => "USR1",
            StopSignal::Usr2 => "USR2",
            StopSignal::Winch => "WINCH",
        }
    }
}

/// What a check of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// An HTTP GET to the node's own port, by every proxy.
    Http {
        /// The path, with its leading slash. Any status from 200 to 299 passes.
        path: String,
    },
    /// A program that is run inside the node of a worker. Status 0 passes.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A worker's command that has run for so long passes.
    StayUp {
        /// So long.
        span: Duration,
    },
}

/// How a node is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a check is.
    pub kind: CheckKind,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// No whole answer after that: failed.
    pub timeout: Duration,
}

/// Begins every content hash, so that no other kind of content has the same one. The number counts up with every change of the order or of the meaning of the fields.
const CONTENT_TAG: &str = "gapless service declaration 1";

impl ServiceDeclaration {
    /// The content hash: the release's identity. SHA-256 over the tag `gapless service declaration 1` and then every field in the order in which the structs of this module
    /// name them (`node`, `health` and `policy` field by field). A text is its length in bytes (8 bytes, the highest first) and its bytes; a number is 8
    /// bytes, the highest first; a span of time is its nanoseconds; yes is 1 and no is 0; a list or map is the number of its entries and then each entry (key, value; by key). So
    /// no two declarations give the same bytes.
    #[must_use]
    pub fn content(&self) -> Digest {
        let mut content = Content(sha2::Sha256::new());
        content.text(CONTENT_TAG);
        content.text(&self.service.to_string());
        content.text(&self.artifact_name);
        content.number(self.artifact_version.0.into());
        content.bytes(&self.image.0);
        content.number(self.nodes.into());
        content.text(&self.host);
        content.node(&self.node);
        content.text(self.health.path());
        content.span(self.health.interval);
        content.span(self.health.timeout);
        content.policy(&self.policy);
        content.newer(self);
        Digest(content.0.finalize().into())
    }

    /// What the core needs to know of this declaration.
    #[must_use]
    pub fn to_core(&self) -> Declaration {
        Declaration {
            content: self.content(),
            artifact: self.artifact_version,
            image: self.image,
            nodes: self.nodes,
            policy: self.policy.clone(),
            serves: self.node.port.is_some(),
            tasks: self.tasks.declared(),
        }
    }
}

impl Tasks {
    /// The tasks that there are.
    #[must_use]
    pub fn declared(&self) -> BTreeSet<Task> {
        let Tasks { release_command, before_shift, after_shift } = self;
        let all = [
            (Task::ReleaseCommand, release_command.is_some()),
            (Task::BeforeShift, before_shift.is_some()),
            (Task::AfterShift, after_shift.is_some()),
        ];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(task, _)| task).collect()
    }
}

impl HealthCheck {
    /// The path that is asked for; empty for a check that asks for none.
    #[must_use]
    pub fn path(&self) -> &str {
        match &self.kind {
            CheckKind::Http { path } => path,
            CheckKind::Command { .. } | CheckKind::StayUp { .. } => "",
        }
    }
}

/// Content on its way into a hash.
struct Content(sha2::Sha256);

impl Content {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn span(&mut self, span: Duration) {
        self.number(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    }

    fn path(&mut self, path: &std::path::Path) {
        self.bytes(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    }

    fn node(&mut self, node: &NodeSettings) {
        self.number(node.port.unwrap_or_default().into());
        self.number(node.command.len() as u64);
        node.command.iter().for_each(|word| self.text(word));
        self.path(&node.working_directory);
        self.text(&node.user);
        self.number(node.environment.len() as u64);
        for (name, value) in &node.environment {
            self.text(name);
            self.text(value);
        }
        self.number(node.writable.len() as u64);
        node.writable.iter().for_each(|path| self.path(path));
        self.number(node.volumes.len() as u64);
        for (name, path) in &node.volumes {
            self.text(name);
            self.path(path);
        }
        self.number(node.memory_bytes);
        self.number(node.cpu_millicores.into());
        self.number(node.outbound.into());
    }

    fn words(&mut self, words: &[String]) {
        self.number(words.len() as u64);
        words.iter().for_each(|word| self.text(word));
    }

    /// What earlier programs did not know is added with its name, and only where it is not what they did: releases that they declared are found again.
    fn newer(&mut self, declaration: &ServiceDeclaration) {
        self.newer_node(&declaration.node, &declaration.health);
        let Tasks { release_command, before_shift, after_shift } = &declaration.tasks;
        if let Some(command) = release_command {
            self.text("release command");
            self.words(command);
        }
        for (name, hook) in [("before shift", before_shift), ("after shift", after_shift)] {
            match hook {
                Some(Hook::Command(command)) => {
                    self.text(name);
                    self.words(command);
                }
                Some(Hook::Http { url }) => {
                    self.text(name);
                    self.text("http");
                    self.text(url);
                }
                None => {}
            }
        }
        self.newer_policy(&declaration.policy);
    }

    fn newer_node(&mut self, node: &NodeSettings, health: &HealthCheck) {
        if node.stop_signal != StopSignal::default() {
            self.text("stop signal");
            self.text(node.stop_signal.name());
        }
        match &health.kind {
            CheckKind::Http { .. } => {}
            CheckKind::Command { command } => {
                self.text("check command");
                self.words(command);
            }
            CheckKind::StayUp { span } => {
                self.text("stay up");
                self.span(*span);
            }
        }
    }

    fn newer_policy(&mut self, policy: &Policy) {
        let default = Policy::default();
        // Taken apart by name, as in `policy`.
        let Policy {
            strategy,
            task_deadline,
            supersede,
            breaks_the_way_back,
            freeze,
            keep,
            floor: _,
            gate_passes: _,
            gate_failures: _,
            progress_deadline: _,
            drain_deadline: _,
            bake: _,
        } = policy;
        self.strategy(strategy);
        if *task_deadline != default.task_deadline {
            self.text("task deadline");
            self.span(*task_deadline);
        }
        if *supersede == Supersede::Replace {
            self.text("replace");
        }
        if *breaks_the_way_back {
            self.text("breaks the way back");
        }
        for window in freeze {
            self.text("freeze");
            self.number(window.from.into());
            self.number(window.until.into());
        }
        if *keep != default.keep {
            self.text("keep");
            self.number((*keep).into());
        }
    }

    fn strategy(&mut self, strategy: &Strategy) {
        match strategy {
            Strategy::BlueGreen => {}
            Strategy::Rolling { surge } => {
                self.text("rolling");
                self.number((*surge).into());
            }
            Strategy::Canary { steps, analysis } => {
                self.text("canary");
                self.number(steps.len() as u64);
                for step in steps {
                    self.number(step.percent.into());
                    match step.pause {
                        CanaryPause::For(span) => self.span(span),
                        CanaryPause::Person => self.text("person"),
                    }
                }
                if let Some(analysis) = analysis {
                    self.text("analysis");
                    self.number(analysis.minimum_requests.into());
                    self.number(analysis.error_margin.into());
                    self.number(analysis.latency_margin.into());
                }
            }
            Strategy::Recreate => self.text("recreate"),
        }
    }

    fn policy(&mut self, policy: &Policy) {
        // Taken apart by name: a field that is added to the policy does not compile until it is part of the hash.
        let Policy { floor, gate_passes, gate_failures, progress_deadline, drain_deadline, bake, .. } = policy;
        self.number((*floor).into());
        self.number((*gate_passes).into());
        self.number((*gate_failures).into());
        self.span(*progress_deadline);
        self.span(*drain_deadline);
        self.span(*bake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::analysis::AnalysisPolicy;
    use gapless_core::policy::CanaryStep;
    use gapless_core::time::WeeklyWindow;

    fn declaration() -> ServiceDeclaration {
        ServiceDeclaration {
            service: ServiceName::new("hello", "web").expect("a name"),
            artifact_name: "hello/web".to_string(),
            artifact_version: ArtifactVersion(7),
            image: Digest([7; 32]),
            nodes: 3,
            host: "hello.example".to_string(),
            node: NodeSettings {
                port: Some(80),
                command: vec!["serve".to_string(), "--now".to_string()],
                working_directory: "/srv".into(),
                user: "www-data".to_string(),
                environment: BTreeMap::from([("A".to_string(), "b".to_string())]),
                writable: vec!["/run".into()],
                volumes: BTreeMap::from([("data".to_string(), "/data".into())]),
                memory_bytes: 1 << 28,
                cpu_millicores: 500,
                outbound: true,
                stop_signal: StopSignal::Term,
            },
            health: HealthCheck {
                kind: CheckKind::Http { path: "/healthz".to_string() },
                interval: Duration::from_millis(100),
                timeout: Duration::from_secs(1),
            },
            policy: Policy {
                floor: 2,
                gate_passes: 3,
                gate_failures: 4,
                progress_deadline: Duration::from_secs(60),
                drain_deadline: Duration::from_secs(30),
                bake: Duration::ZERO,
                ..Policy::default()
            },
            tasks: Tasks::default(),
        }
    }

    fn canary(percent: u8, pause: CanaryPause, minimum: Option<u32>) -> Strategy {
        let analysis = minimum.map(|minimum_requests| AnalysisPolicy { minimum_requests, error_margin: 50, latency_margin: 20 });
        Strategy::Canary { steps: vec![CanaryStep { percent, pause }], analysis }
    }

    #[test]
    fn the_content_hash_of_a_declaration_never_changes() {
        let content = declaration().content();
        assert_eq!(content, declaration().content());
        // Releases that were declared by earlier programs must be found again.
        assert_eq!(content.to_string(), "sha256:5cd21dd2142211f54914268bd9ebed5f3925ce0ca5f1bb90fdae66cb673e6f79");
    }

    type Change = fn(&mut ServiceDeclaration);

    /// What the first programs knew.
    const CHANGES: [Change; 30] = [
        |_| {},
        |d| d.service = ServiceName::new("hello", "api").expect("a name"),
        |d| d.artifact_name.push('2'),
        |d| d.artifact_version.0 += 1,
        |d| d.image.0[31] ^= 1,
        |d| d.nodes += 1,
        |d| d.host.push('s'),
        |d| d.node.port = Some(81),
        |d| d.node.command = vec!["serve--now".to_string()],
        |d| d.node.command = vec!["serve-".to_string(), "-now".to_string()],
        |d| d.node.working_directory.push("x"),
        |d| d.node.user.clear(),
        |d| d.node.environment = BTreeMap::from([("Ab".to_string(), String::new())]),
        |d| drop(d.node.environment.insert("C".to_string(), "d".to_string())),
        |d| d.node.writable.push("/tmp".into()),
        |d| d.node.writable = vec!["/runn".into()],
        |d| drop(d.node.volumes.insert("more".to_string(), "/more".into())),
        |d| d.node.volumes = BTreeMap::new(),
        |d| d.node.memory_bytes += 1,
        |d| d.node.cpu_millicores += 1,
        |d| d.node.outbound = false,
        |d| d.health.kind = CheckKind::Http { path: "/healthz2".to_string() },
        |d| d.health.interval += Duration::from_millis(1),
        |d| d.health.timeout += Duration::from_millis(1),
        |d| d.policy.floor += 1,
        |d| d.policy.gate_passes += 1,
        |d| d.policy.gate_failures += 1,
        |d| d.policy.progress_deadline += Duration::from_millis(1),
        |d| d.policy.drain_deadline += Duration::from_millis(1),
        |d| d.policy.bake += Duration::from_millis(1),
    ];

    /// What came later.
    const NEWER_CHANGES: [Change; 20] = [
        |d| d.node.port = None,
        |d| d.node.stop_signal = StopSignal::Quit,
        |d| d.health.kind = CheckKind::Command { command: vec!["check".to_string()] },
        |d| d.health.kind = CheckKind::StayUp { span: Duration::from_secs(3) },
        |d| d.tasks.release_command = Some(vec!["migrate".to_string()]),
        |d| d.tasks.before_shift = Some(Hook::Command(vec!["migrate".to_string()])),
        |d| d.tasks.after_shift = Some(Hook::Command(vec!["migrate".to_string()])),
        |d| d.tasks.after_shift = Some(Hook::Http { url: "http://127.0.0.1/".to_string() }),
        |d| d.policy.task_deadline += Duration::from_millis(1),
        |d| d.policy.supersede = Supersede::Replace,
        |d| d.policy.breaks_the_way_back = true,
        |d| d.policy.freeze = vec![WeeklyWindow { from: 1, until: 2 }],
        |d| d.policy.keep += 1,
        |d| d.policy.strategy = Strategy::Rolling { surge: 1 },
        |d| d.policy.strategy = Strategy::Recreate,
        |d| d.policy.strategy = canary(5, CanaryPause::Person, None),
        |d| d.policy.strategy = canary(6, CanaryPause::Person, None),
        |d| d.policy.strategy = canary(5, CanaryPause::For(Duration::from_secs(1)), None),
        |d| d.policy.strategy = canary(5, CanaryPause::Person, Some(100)),
        |d| d.policy.strategy = canary(5, CanaryPause::Person, Some(101)),
    ];

    #[test]
    fn every_field_and_every_boundary_is_part_of_the_content_hash() {
        let changes: Vec<Change> = CHANGES.into_iter().chain(NEWER_CHANGES).collect();
        let contents: BTreeSet<Digest> = changes
            .iter()
            .map(|change| {
                let mut changed = declaration();
                change(&mut changed);
                changed.content()
            })
            .collect();
        assert_eq!(contents.len(), changes.len());
    }
}
