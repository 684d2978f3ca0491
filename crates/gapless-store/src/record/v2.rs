//! Version 2 of the journal's records. It never changes: what it lacks goes into version 3, and this one is read for ever.
//!
//! Each form below names the core's type that it stands for, and its fields. One list makes the text's type and the ways there and back: a variant or a field that is
//! missing here does not compile. Numbers are plain, names (nodes, groups, digests, services, tasks) are their texts, spans are nanoseconds, instants are milliseconds since
//! the Unix epoch.

mod declaration;
mod form;
mod notice;
mod state;

pub(super) use self::form::Form;
pub(super) use self::state::KeptState;

use self::form::{form_of_enum, form_of_struct};
use gapless_core::analysis::{AnalysisPolicy, Judgement, Verdict};
use gapless_core::effect::{Effect, EffectId, Task};
use gapless_core::event::{Event, Failure};
use gapless_core::node::{GroupId, NodeId};
use gapless_core::notice::Notice;
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::Together;
use gapless_core::time::Instant;
use gapless_engine::store::JournalRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

form_of_struct!(JournalRecord { at: Instant, event: Event, effects: Vec<(EffectId, Effect)> });

form_of_enum!(Event {
    Declared { declaration: Declaration, urgent: bool, together: Option<Together> },
    RollbackRequested { to: Option<ReleaseNumber>, forced: bool },
    Paused,
    Resumed,
    Cancelled,
    Promoted,
    RetryRequested,
    RetriedTogether { together: Together },
    Scaled { nodes: u32 },
    Revoked { artifacts: BTreeSet<ArtifactVersion> },
    PartnersReady,
    PartnersFailed { reason: String },
    PartnersTakenBack { reason: String },
    Analysed { effect: EffectId, judgement: Judgement },
    Observed(seen: Observation),
    EffectEnded { effect: EffectId, result: Result<(), Failure> },
    Restarted,
});

form_of_struct!(Failure { reason: String, is_final: bool });

form_of_enum!(Effect {
    EnsureGroup { group: GroupId, size: u32 },
    Route(route: Route),
    Drain { nodes: BTreeSet<NodeId>, deadline: Duration },
    DestroyNodes { nodes: BTreeSet<NodeId> },
    RunTask { group: GroupId, task: Task, deadline: Duration },
    Analyse { old: ReleaseNumber, new: ReleaseNumber, since: Instant, policy: AnalysisPolicy },
    Notify(notice: Notice),
});

form_of_struct!(Route { generation: Generation, members: BTreeMap<NodeId, Weight> });

form_of_struct!(AnalysisPolicy { minimum_requests: u32, error_margin: u32, latency_margin: u32 });

form_of_struct!(Judgement { verdict: Verdict, evidence: String });

form_of_enum!(Verdict { Promote, Hold, Abort });

form_of_struct!(Observation { nodes: BTreeMap<NodeId, NodeSeen>, proxies: BTreeMap<String, Option<Generation>> });

form_of_struct!(NodeSeen { condition: Condition, image: gapless_core::digest::Digest, health: Health, requests_in_flight: u32 });

form_of_enum!(Condition {
    Starting,
    Running,
    Exited { code: Option<i32>, output: String },
});

form_of_struct!(Health { passes: u32, failures: u32, failures_after_answer: u32, evidence: Option<Evidence> });

form_of_struct!(Evidence { check: String, result: String, times: u32 });
