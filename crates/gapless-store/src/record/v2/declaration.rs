//! Declarations in version 2: what the core needs of one, and the whole.

use super::form::{form_of_enum, form_of_struct};
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration};
use gapless_core::time::WeeklyWindow;
use gapless_engine::declaration::{CheckKind, HealthCheck, Hook, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

form_of_struct!(Declaration {
    content: Digest,
    artifact: ArtifactVersion,
    image: Digest,
    nodes: u32,
    policy: Policy,
    serves: bool,
    tasks: BTreeSet<Task>,
});

form_of_struct!(Policy {
    strategy: Strategy,
    floor: u32,
    gate_passes: u32,
    gate_failures: u32,
    progress_deadline: Duration,
    drain_deadline: Duration,
    bake: Duration,
    task_deadline: Duration,
    supersede: Supersede,
    breaks_the_way_back: bool,
    freeze: Vec<WeeklyWindow>,
    keep: u32,
});

form_of_enum!(Strategy {
    BlueGreen,
    Rolling { surge: u32 },
    Canary { steps: Vec<CanaryStep>, analysis: Option<AnalysisPolicy> },
    Recreate,
});

form_of_struct!(CanaryStep { percent: u8, pause: CanaryPause });

form_of_enum!(CanaryPause { For(span: Duration), Person });

form_of_enum!(Supersede { Queue, Replace });

form_of_struct!(WeeklyWindow { from: u16, until: u16 });

form_of_struct!(ServiceDeclaration {
    service: ServiceName,
    artifact_name: String,
    artifact_version: ArtifactVersion,
    image: Digest,
    nodes: u32,
    host: String,
    node: NodeSettings,
    health: HealthCheck,
    policy: Policy,
    tasks: Tasks,
});

form_of_struct!(NodeSettings {
    port: Option<u16>,
    command: Vec<String>,
    working_directory: PathBuf,
    user: String,
    environment: BTreeMap<String, String>,
    writable: Vec<PathBuf>,
    volumes: BTreeMap<String, PathBuf>,
    memory_bytes: u64,
    cpu_millicores: u32,
    outbound: bool,
    stop_signal: StopSignal,
});

form_of_struct!(HealthCheck { kind: CheckKind, interval: Duration, timeout: Duration });

form_of_enum!(CheckKind {
    Http { path: String },
    Command { command: Vec<String> },
    StayUp { span: Duration },
});

form_of_struct!(Tasks { release_command: Option<Vec<String>>, before_shift: Option<Hook>, after_shift: Option<Hook> });

form_of_enum!(Hook { Command(command: Vec<String>), Http { url: String } });
