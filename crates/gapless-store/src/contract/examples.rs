//! Values with every kind of everything that is written down, for round trips.
//!
//! This module's own test fails, or does not compile, when a variant is missing.

use gapless_core::analysis::{AnalysisPolicy, Judgement, Verdict};
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId, EffectKind, Task};
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::{
    Canary, Draining, Group, Healing, NextNumbers, Queued, Retry, Rollout, Scaled, ServiceState, Stage, TaskState, Ties, Together,
    TogetherEnd, TogetherOutcome,
};
use gapless_core::time::{Instant, WeeklyWindow};
use gapless_engine::declaration::{CheckKind, HealthCheck, Hook, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::store::JournalRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The node that the examples are about.
pub(super) const NODE: NodeId = NodeId { group: GROUP, ordinal: 2 };

const GROUP: GroupId = GroupId { release: ReleaseNumber(4), instance: InstanceId(12) };

const ROLLOUT: RolloutNumber = RolloutNumber(5);

fn service(name: &str) -> ServiceName {
    ServiceName::new("hello", name).expect("a name")
}

/// A declaration with something in every field.
#[must_use]
pub fn a_declaration() -> ServiceDeclaration {
    ServiceDeclaration {
        service: service("web"),
        artifact_name: "hello/web".to_string(),
        artifact_version: ArtifactVersion(7),
        image: Digest([7; 32]),
        nodes: 3,
        host: "hello.example".to_string(),
        node: NodeSettings {
            port: Some(80),
            command: vec!["/usr/sbin/apache2".to_string(), "-DFOREGROUND".to_string()],
            working_directory: "/var/www".into(),
            user: "www-data".to_string(),
            environment: BTreeMap::from([("A".to_string(), "b=c".to_string())]),
            writable: vec!["/run".into(), "/tmp".into()],
            volumes: BTreeMap::from([("data".to_string(), "/var/data".into())]),
            memory_bytes: 256 << 20,
            cpu_millicores: 1500,
            outbound: true,
            stop_signal: StopSignal::Term,
        },
        health: HealthCheck {
            kind: CheckKind::Http { path: "/healthz".to_string() },
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
        },
        policy: policy(Strategy::BlueGreen),
        tasks: Tasks::default(),
    }
}

/// Declarations with every strategy, check, hook and signal.
#[must_use]
pub fn every_declaration() -> Vec<ServiceDeclaration> {
    let mut declarations: Vec<_> = every_policy().into_iter().map(|policy| ServiceDeclaration { policy, ..a_declaration() }).collect();
    for kind in every_check() {
        let node = NodeSettings { port: None, ..a_declaration().node };
        declarations.push(ServiceDeclaration { node, health: HealthCheck { kind, ..a_declaration().health }, ..a_declaration() });
    }
    for stop_signal in StopSignal::ALL {
        declarations.push(ServiceDeclaration { node: NodeSettings { stop_signal, ..a_declaration().node }, ..a_declaration() });
    }
    for hook in every_hook() {
        let release_command = Some(vec!["migrate".to_string(), "--up".to_string()]);
        let tasks = Tasks { release_command, before_shift: Some(hook.clone()), after_shift: Some(hook) };
        declarations.push(ServiceDeclaration { tasks, ..a_declaration() });
    }
    declarations
}

fn every_check() -> Vec<CheckKind> {
    vec![
        CheckKind::Http { path: "/".to_string() },
        CheckKind::Command { command: vec!["check".to_string()] },
        CheckKind::StayUp { span: Duration::from_secs(3) },
    ]
}

fn every_hook() -> Vec<Hook> {
    vec![Hook::Command(vec!["warm".to_string()]), Hook::Http { url: "http://127.0.0.1:1/hook".to_string() }]
}

fn policy(strategy: Strategy) -> Policy {
    Policy {
        strategy,
        floor: 2,
        gate_passes: 3,
        gate_failures: 4,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_micros(30_000_001),
        ..Policy::default()
    }
}

fn every_policy() -> Vec<Policy> {
    let mut policies: Vec<_> = every_strategy().into_iter().map(policy).collect();
    policies.push(Policy {
        bake: Duration::from_secs(7),
        task_deadline: Duration::from_secs(8),
        supersede: Supersede::Replace,
        breaks_the_way_back: true,
        freeze: vec![WeeklyWindow { from: 1, until: 2 }, WeeklyWindow { from: 10_000, until: 3 }],
        keep: 99,
        ..policy(Strategy::BlueGreen)
    });
    policies
}

fn every_strategy() -> Vec<Strategy> {
    let step = |percent, pause| CanaryStep { percent, pause };
    let steps = vec![step(5, CanaryPause::For(Duration::from_secs(9))), step(50, CanaryPause::Person)];
    vec![
        Strategy::BlueGreen,
        Strategy::Rolling { surge: 2 },
        Strategy::Canary { steps: steps.clone(), analysis: None },
        Strategy::Canary { steps, analysis: Some(analysis()) },
        Strategy::Recreate,
    ]
}

fn analysis() -> AnalysisPolicy {
    AnalysisPolicy { minimum_requests: 500, error_margin: 50, latency_margin: 20 }
}

/// Records with every kind of event and effect, and all that stands in them.
#[must_use]
pub fn every_record() -> Vec<JournalRecord> {
    let mut records: Vec<_> = every_event().into_iter().map(|event| JournalRecord { at: Instant(5), event, effects: Vec::new() }).collect();
    let effects = (1..).map(EffectId).zip(every_effect()).collect();
    records.push(JournalRecord { at: Instant(1_767_225_600_123), event: Event::Restarted, effects });
    records
}

fn core_declaration(policy: Policy) -> Declaration {
    Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(7),
        image: Digest([2; 32]),
        nodes: 3,
        policy,
        serves: true,
        tasks: BTreeSet::from(Task::ALL),
    }
}

fn together() -> Together {
    Together { id: Digest([4; 32]), with: BTreeSet::from([service("api"), service("worker")]) }
}

fn judgement(verdict: Verdict) -> Judgement {
    Judgement { verdict, evidence: "errors 0.1 % against 0.2 %".to_string() }
}

fn every_event() -> Vec<Event> {
    let failure = Failure { reason: "no room\non the disk".to_string(), is_final: true };
    let mut events = vec![
        Event::RollbackRequested { to: None, forced: false },
        Event::RollbackRequested { to: Some(ReleaseNumber(2)), forced: true },
        Event::Observed(Observation::default()),
        Event::Observed(an_observation()),
        Event::EffectEnded { effect: EffectId(u64::MAX), result: Ok(()) },
        Event::EffectEnded { effect: EffectId(1), result: Err(failure) },
        Event::Restarted,
        Event::Paused,
        Event::Resumed,
        Event::Cancelled,
        Event::Promoted,
        Event::RetryRequested,
        Event::RetriedTogether { together: together() },
        Event::Scaled { nodes: 9 },
        Event::Revoked { artifacts: BTreeSet::from([ArtifactVersion(1), ArtifactVersion(7)]) },
        Event::PartnersReady,
        Event::PartnersFailed { reason: "hello/api was rejected".to_string() },
        Event::PartnersTakenBack { reason: "hello/api was taken back".to_string() },
    ];
    events.extend(every_policy().into_iter().map(|policy| Event::declared(core_declaration(policy))));
    let worker = Declaration { serves: false, tasks: BTreeSet::new(), ..core_declaration(policy(Strategy::Recreate)) };
    events.push(Event::Declared { declaration: worker, urgent: true, together: Some(together()) });
    events.extend(every_verdict().map(|verdict| Event::Analysed { effect: EffectId(3), judgement: judgement(verdict) }));
    events
}

fn every_verdict() -> [Verdict; 3] {
    [Verdict::Promote, Verdict::Hold, Verdict::Abort]
}

fn every_condition() -> Vec<Condition> {
    vec![
        Condition::Starting,
        Condition::Running,
        Condition::Exited { code: None, output: String::new() },
        Condition::Exited { code: Some(-1), output: "the end".to_string() },
    ]
}

fn an_observation() -> Observation {
    let health = Health { passes: 0, failures: 3, failures_after_answer: 2, evidence: Some(evidence()) };
    let seen = |(ordinal, condition)| {
        (GROUP.node(ordinal), NodeSeen { condition, image: Digest([3; 32]), health: health.clone(), requests_in_flight: 9 })
    };
    Observation {
        nodes: (0..).zip(every_condition()).map(seen).collect(),
        proxies: BTreeMap::from([("one".to_string(), Some(Generation(u64::MAX))), ("two".to_string(), None)]),
    }
}

fn every_effect() -> Vec<Effect> {
    let mut effects = vec![
        Effect::EnsureGroup { group: GROUP, size: 3 },
        Effect::Route(a_route()),
        Effect::Drain { nodes: BTreeSet::from([NODE]), deadline: Duration::from_millis(1) },
        Effect::DestroyNodes { nodes: BTreeSet::from([NODE, GROUP.node(0)]) },
        Effect::Analyse { old: ReleaseNumber(3), new: ReleaseNumber(4), since: Instant(70), policy: analysis() },
    ];
    effects.extend(Task::ALL.map(|task| Effect::RunTask { group: GROUP, task, deadline: Duration::from_secs(600) }));
    effects.extend(every_notice().into_iter().map(Effect::Notify));
    effects
}

fn a_route() -> Route {
    Route { generation: Generation(8), members: BTreeMap::from([(NODE, Weight::EQUAL), (GROUP.node(3), Weight::PROBED)]) }
}

fn every_notice() -> Vec<Notice> {
    let (rollout, group, generation) = (ROLLOUT, GROUP, Generation(8));
    let mut notices = vec![
        Notice::NodesBooted { rollout, group },
        Notice::GatePassed { rollout, group },
        Notice::ShiftBegan { rollout, generation, way_back: true },
        Notice::Shifted { rollout, generation },
        Notice::BakeBegan { rollout, until: Instant(77) },
        Notice::DrainBegan { rollout, nodes: BTreeSet::from([NODE]), deadline: Instant(78) },
        Notice::Drained { rollout, cut: 1 },
        Notice::RolloutEnded { rollout, outcome: Outcome::Live, settled: false },
        Notice::CanaryStepBegan { rollout, step: 1, percent: 5, generation },
        Notice::Promoted { rollout },
        Notice::Paused { rollout },
        Notice::Resumed { rollout, after: 12_345 },
        Notice::BatchJoined { rollout, new: 1, old: 2 },
        Notice::OutageBegan { rollout },
        Notice::Restoring { rollout, group },
        Notice::PartnersAwaited { rollout },
        Notice::Queued { release: ReleaseNumber(6), frozen_until: None },
        Notice::Queued { release: ReleaseNumber(6), frozen_until: Some(Instant(99)) },
        Notice::Dequeued { release: ReleaseNumber(6) },
        Notice::Scaled { from: 3, to: 5 },
        Notice::RevocationsChanged { artifacts: BTreeSet::from([ArtifactVersion(3)]) },
        Notice::NothingToEvictTo { live: ReleaseNumber(4) },
        Notice::FollowsBack { from: ReleaseNumber(4), to: Some(ReleaseNumber(3)), reason: "hello/api went back".to_string() },
        Notice::CrashLoop { group, tries: 6 },
        Notice::NodeLost { node: NODE, why: "it exited".to_string() },
        Notice::NodeReplaced { node: NODE },
        Notice::EffectFailed { effect: "Route".to_string(), reason: "no answer".to_string() },
    ];
    for kind in every_rollout_kind() {
        notices.push(Notice::RolloutStarted { rollout, kind, from: None, to: ReleaseNumber(1) });
        notices.push(Notice::RolloutStarted { rollout, kind, from: Some(ReleaseNumber(2)), to: ReleaseNumber(1) });
    }
    for task in Task::ALL {
        notices.extend([Notice::TaskBegan { rollout, task }, Notice::TaskEnded { rollout, task }]);
    }
    notices.extend(every_verdict().map(|verdict| Notice::Analysed { rollout, judgement: judgement(verdict) }));
    for reason in every_rejection() {
        notices.push(Notice::Rejecting { rollout, reason: reason.clone() });
        notices.push(Notice::RolloutEnded { rollout, outcome: Outcome::Rejected(reason), settled: true });
    }
    notices
}

fn every_rollout_kind() -> [RolloutKind; 3] {
    [RolloutKind::Deploy, RolloutKind::Rollback, RolloutKind::Eviction]
}

fn every_rejection() -> Vec<Rejection> {
    let mut rejections = vec![
        Rejection::GateFailed { node: NODE, evidence: evidence() },
        Rejection::NodeExited { node: NODE, code: Some(7), output: "bye".to_string() },
        Rejection::NodeExited { node: NODE, code: None, output: String::new() },
        Rejection::ProgressDeadline { waiting_for: "r4-i12-n2".to_string() },
        Rejection::WrongImage { node: NODE },
        Rejection::EffectFailed { effect: "EnsureGroup".to_string(), reason: "corrupt".to_string() },
        Rejection::TakenBack,
        Rejection::Cancelled,
        Rejection::Superseded,
        Rejection::AnalysisFailed { evidence: "errors 5 % against 0 %".to_string() },
        Rejection::Inconclusive { evidence: "12 of 500 requests".to_string() },
        Rejection::Revoked,
        Rejection::PartnerFailed { reason: "hello/api: its gate failed".to_string() },
        Rejection::PartnerTakenBack { reason: "hello/api was taken back".to_string() },
    ];
    rejections.extend(Task::ALL.map(|task| Rejection::TaskFailed { task, reason: "status 1".to_string() }));
    rejections
}

fn evidence() -> Evidence {
    Evidence { check: "GET /healthz".to_string(), result: "status 500".to_string(), times: 3 }
}

/// States with a rollout in every stage, and something in every field.
#[must_use]
pub fn every_state() -> Vec<ServiceState> {
    let mut states = vec![ServiceState::default()];
    states.extend(every_stage().into_iter().map(|stage| ServiceState { rollout: Some(a_rollout(stage)), ..a_state() }));
    states
}

fn a_rollout(stage: Stage) -> Rollout {
    Rollout {
        number: ROLLOUT,
        kind: RolloutKind::Deploy,
        from: Some(GroupId { release: ReleaseNumber(3), instance: InstanceId(9) }),
        to: GROUP,
        stage,
        tasks: Task::ALL.into_iter().zip(every_task_state()).collect(),
        gate_passed: true,
        together: Some(together()),
        partners_ready: true,
        paused: Some(Instant(55)),
        vacated: true,
        by_hand: true,
    }
}

fn every_task_state() -> [TaskState; 3] {
    [TaskState::Waiting, TaskState::Begun, TaskState::Done]
}

fn every_stage() -> Vec<Stage> {
    let (deadline, reason) = (Instant(66), Rejection::Cancelled);
    let canary = Canary { step: 1, since: Some(Instant(1)), until: Some(Instant(2)), look: Some(Instant(3)), good: true, holds: 4 };
    vec![
        Stage::Vacate,
        Stage::Command,
        Stage::Prepare { deadline, booted: true },
        Stage::Await { deadline },
        Stage::Canary(canary),
        Stage::Roll { deadline },
        Stage::Shift,
        Stage::Confirm,
        Stage::Bake { until: deadline },
        Stage::Retire,
        Stage::Undo { reason: reason.clone() },
        Stage::Unroll { reason: reason.clone() },
        Stage::Restore { reason, deadline },
    ]
}

fn a_state() -> ServiceState {
    let drain = Draining { unnamed_since: Generation(7), deadline: Instant(1), ends: Some(Instant(2)), cut: Some(3), over: true };
    let pending = every_effect().into_iter().filter(|effect| effect.kind() != EffectKind::Notify);
    ServiceState {
        releases: (1..).map(ReleaseNumber).zip(every_policy().into_iter().map(core_declaration)).collect(),
        declared: Some(ReleaseNumber(4)),
        live: Some(GROUP),
        previous: Some(ReleaseNumber(3)),
        pinned: true,
        served: BTreeSet::from([ReleaseNumber(3), ReleaseNumber(4)]),
        rollout: None,
        queued: Some(Queued { release: ReleaseNumber(6), urgent: true, not_before: Some(Instant(4)), together: Some(together()) }),
        together: Ties(BTreeMap::from([
            (ReleaseNumber(3), TogetherEnd { id: Digest([3; 32]), with: together().with, from: None, outcome: TogetherOutcome::Live }),
            (
                ReleaseNumber(4),
                TogetherEnd {
                    id: Digest([5; 32]),
                    with: BTreeSet::new(),
                    from: Some(ReleaseNumber(3)),
                    outcome: TogetherOutcome::TakenBack,
                },
            ),
        ])),
        scaled: Some(Scaled { declared: 3, nodes: 4 }),
        tried: Some(ReleaseNumber(2)),
        revoked: BTreeSet::from([ArtifactVersion(2)]),
        evicted_in_vain: BTreeSet::from([ReleaseNumber(1)]),
        groups: BTreeMap::from([(GROUP, Group { size: 4, made: 3, nodes: BTreeSet::from([0, 2]), exposed: true, runs_task: true })]),
        route: a_route(),
        draining: BTreeMap::from([(GROUP.node(1), drain)]),
        lost: BTreeSet::from([GROUP.node(4)]),
        joining: BTreeMap::from([(GROUP.node(5), Instant(6))]),
        healing: Healing { tries: 1, not_before: Instant(7), stopped: true, blocked: true },
        destroyed: BTreeMap::from([(GROUP.node(6), Instant(8))]),
        pending: (1..).map(EffectId).zip(pending).collect(),
        retries: (0..).zip(EffectKind::ALL).map(|(tries, kind)| (kind, Retry { tries, at: (tries > 0).then_some(Instant(9)) })).collect(),
        next: NextNumbers { releases: 7, rollouts: 5, instances: InstanceId(12), effects: EffectId(40) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is a value of each variant. The list is a match without a rest: a new variant does not compile until it stands here, and fails until there is an example of it.
    macro_rules! assert_every_variant {
        ($values:expr, $type:ident { $($variant:ident),* $(,)? }) => {{
            let mut missing = BTreeSet::from([$(stringify!($variant)),*]);
            for value in $values {
                match value {
                    $($type::$variant { .. } => missing.remove(stringify!($variant)),)*
                };
            }
            assert!(missing.is_empty(), "there is no example of {missing:?} of {}", stringify!($type));
        }};
    }

    #[test]
    fn there_is_an_example_of_every_variant_of_what_happens() {
        assert_every_variant!(
            every_event(),
            Event {
                Declared,
                RollbackRequested,
                Paused,
                Resumed,
                Cancelled,
                Promoted,
                RetryRequested,
                RetriedTogether,
                Scaled,
                Revoked,
                PartnersReady,
                PartnersFailed,
                PartnersTakenBack,
                Analysed,
                Observed,
                EffectEnded,
                Restarted,
            }
        );
        assert_every_variant!(every_effect(), Effect { EnsureGroup, Route, Drain, DestroyNodes, RunTask, Analyse, Notify });
        assert_every_variant!(every_condition(), Condition { Starting, Running, Exited });
        assert_every_variant!(every_verdict(), Verdict { Promote, Hold, Abort });
    }

    #[test]
    fn there_is_an_example_of_every_variant_of_what_is_told() {
        assert_every_variant!(
            every_notice(),
            Notice {
                RolloutStarted,
                NodesBooted,
                GatePassed,
                ShiftBegan,
                Shifted,
                BakeBegan,
                DrainBegan,
                Drained,
                Rejecting,
                RolloutEnded,
                TaskBegan,
                TaskEnded,
                CanaryStepBegan,
                Analysed,
                Promoted,
                Paused,
                Resumed,
                BatchJoined,
                OutageBegan,
                Restoring,
                PartnersAwaited,
                Queued,
                Dequeued,
                Scaled,
                RevocationsChanged,
                NothingToEvictTo,
                FollowsBack,
                CrashLoop,
                NodeLost,
                NodeReplaced,
                EffectFailed,
            }
        );
    }

    #[test]
    fn there_is_an_example_of_every_way_to_end() {
        assert_every_variant!(
            every_rejection(),
            Rejection {
                GateFailed,
                NodeExited,
                ProgressDeadline,
                WrongImage,
                EffectFailed,
                TakenBack,
                Cancelled,
                Superseded,
                TaskFailed,
                AnalysisFailed,
                Inconclusive,
                Revoked,
                PartnerFailed,
                PartnerTakenBack,
            }
        );
        assert_every_variant!(every_rollout_kind(), RolloutKind { Deploy, Rollback, Eviction });
        let outcomes = every_notice().into_iter().filter_map(|notice| match notice {
            Notice::RolloutEnded { outcome, .. } => Some(outcome),
            _ => None,
        });
        assert_every_variant!(outcomes, Outcome { Live, Rejected });
    }

    #[test]
    fn there_is_an_example_of_every_variant_of_what_is_declared_and_kept() {
        assert_every_variant!(every_strategy(), Strategy { BlueGreen, Rolling, Canary, Recreate });
        let steps = every_strategy().into_iter().flat_map(|strategy| match strategy {
            Strategy::Canary { steps, .. } => steps,
            _ => Vec::new(),
        });
        assert_every_variant!(steps.map(|step| step.pause), CanaryPause { For, Person });
        assert_every_variant!(every_policy().into_iter().map(|policy| policy.supersede), Supersede { Queue, Replace });
        assert_every_variant!(every_check(), CheckKind { Http, Command, StayUp });
        assert_every_variant!(every_hook(), Hook { Command, Http });
        assert_every_variant!(StopSignal::ALL, StopSignal { Term, Quit, Int, Hup, Usr1, Usr2, Winch });
        assert_every_variant!(Task::ALL, Task { ReleaseCommand, BeforeShift, AfterShift });
        assert_every_variant!(every_task_state(), TaskState { Waiting, Begun, Done });
        assert_every_variant!(EffectKind::ALL, EffectKind { EnsureGroup, Route, Drain, DestroyNodes, RunTask, Analyse, Notify });
        assert_every_variant!(
            every_stage(),
            Stage { Vacate, Command, Prepare, Await, Canary, Roll, Shift, Confirm, Bake, Retire, Undo, Unroll, Restore }
        );
    }
}
