//! Every fact and every reason reads as reviewed.

use super::{effect, event, going_on, reason, release_name, state_line, step};
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId, Task};
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::{Queued, Rollout, ServiceState, Stage, Together};
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

const OLD: GroupId = GroupId { release: ReleaseNumber(4), instance: InstanceId(6) };
const NEW: GroupId = GroupId { release: ReleaseNumber(5), instance: InstanceId(7) };
const ROLLOUT: RolloutNumber = RolloutNumber(9);
const GENERATION: Generation = Generation(12);

/// Monday, 2026-01-05, 08:00 UTC.
const MONDAY: Instant = Instant(1_767_600_000_000);

fn web() -> ServiceName {
    "hello/web".parse().expect("a name")
}

fn judgement(verdict: Verdict) -> Judgement {
    Judgement { verdict, evidence: "5xx 2 of 512 against 1 of 9,420; p99 14 ms against 12 ms".into() }
}

fn declaration(strategy: Strategy, serves: bool) -> Declaration {
    Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(5),
        image: Digest([2; 32]),
        nodes: 2,
        policy: Policy { strategy, ..Policy::default() },
        serves,
        tasks: BTreeSet::new(),
    }
}

fn nodes() -> BTreeSet<NodeId> {
    BTreeSet::from([OLD.node(0), OLD.node(1)])
}

fn of_rollouts() -> Vec<Notice> {
    let rollout = ROLLOUT;
    let begun = |kind, from| Notice::RolloutStarted { rollout, kind, from, to: NEW.release };
    let ended = |outcome: &Outcome, settled| Notice::RolloutEnded { rollout, outcome: outcome.clone(), settled };
    let rejected = Outcome::Rejected(Rejection::Cancelled);
    let mut all = Vec::new();
    for kind in [RolloutKind::Deploy, RolloutKind::Rollback, RolloutKind::Eviction] {
        all.extend([begun(kind, Some(OLD.release)), begun(kind, None)]);
    }
    all.extend([
        Notice::NodesBooted { rollout, group: NEW },
        Notice::GatePassed { rollout, group: NEW },
        Notice::ShiftBegan { rollout, generation: GENERATION, way_back: true },
        Notice::ShiftBegan { rollout, generation: GENERATION, way_back: false },
        Notice::Shifted { rollout, generation: GENERATION },
        Notice::BakeBegan { rollout, until: MONDAY },
        Notice::DrainBegan { rollout, nodes: nodes(), deadline: MONDAY },
        Notice::Drained { rollout, cut: 0 },
        Notice::Drained { rollout, cut: 1 },
        ended(&Outcome::Live, true),
        ended(&Outcome::Live, false),
        ended(&rejected, true),
        ended(&rejected, false),
    ]);
    for task in Task::ALL {
        all.extend([Notice::TaskBegan { rollout, task }, Notice::TaskEnded { rollout, task }]);
    }
    for verdict in [Verdict::Promote, Verdict::Hold, Verdict::Abort] {
        all.push(Notice::Analysed { rollout, judgement: judgement(verdict) });
    }
    all.extend([
        Notice::CanaryStepBegan { rollout, step: 2, percent: 25, generation: GENERATION },
        Notice::Promoted { rollout },
        Notice::Paused { rollout },
        Notice::Resumed { rollout, after: 125_000 },
        Notice::BatchJoined { rollout, new: 2, old: 1 },
        Notice::OutageBegan { rollout },
        Notice::Restoring { rollout, group: OLD },
        Notice::PartnersAwaited { rollout },
    ]);
    all.extend(rejections().into_iter().map(|reason| Notice::Rejecting { rollout, reason }));
    all
}

fn of_services() -> Vec<Notice> {
    let release = NEW.release;
    let versions = |versions: &[u32]| versions.iter().copied().map(ArtifactVersion).collect();
    vec![
        Notice::Queued { release, frozen_until: None },
        Notice::Queued { release, frozen_until: Some(MONDAY) },
        Notice::Dequeued { release },
        Notice::Scaled { from: 3, to: 5 },
        Notice::Scaled { from: 3, to: 1 },
        Notice::RevocationsChanged { artifacts: versions(&[3, 7]) },
        Notice::RevocationsChanged { artifacts: versions(&[]) },
        Notice::FollowsBack { from: NEW.release, to: Some(OLD.release), reason: "hello/web went back".into() },
        Notice::FollowsBack { from: NEW.release, to: None, reason: "hello/web went back".into() },
        Notice::NothingToEvictTo { live: OLD.release },
        Notice::CrashLoop { group: OLD, tries: 5 },
        Notice::NodeLost { node: OLD.node(1), why: "its command ended with status 1".into() },
        Notice::NodeReplaced { node: OLD.node(3) },
        Notice::EffectFailed { effect: "Route".into(), reason: "a proxy did not answer".into() },
    ]
}

fn rejections() -> Vec<Rejection> {
    let evidence = || judgement(Verdict::Abort).evidence;
    let check = Evidence { check: "GET /healthz".into(), result: "status 500".into(), times: 3 };
    vec![
        Rejection::GateFailed { node: NEW.node(0), evidence: check },
        Rejection::NodeExited { node: NEW.node(0), code: Some(3), output: "there is no disk".into() },
        Rejection::NodeExited { node: NEW.node(0), code: None, output: String::new() },
        Rejection::ProgressDeadline { waiting_for: "r5-i7-n0 has not answered".into() },
        Rejection::WrongImage { node: NEW.node(0) },
        Rejection::EffectFailed { effect: "EnsureGroup".into(), reason: "the image is corrupt".into() },
        Rejection::TakenBack,
        Rejection::Cancelled,
        Rejection::Superseded,
        Rejection::TaskFailed { task: Task::ReleaseCommand, reason: "status 1: no such column".into() },
        Rejection::AnalysisFailed { evidence: evidence() },
        Rejection::Inconclusive { evidence: "312 of 500 requests".into() },
        Rejection::Revoked,
        Rejection::PartnerFailed { reason: "hello/worker: a node failed its gate".into() },
        Rejection::PartnerTakenBack { reason: "hello/worker, which moves together with it, was taken back".into() },
    ]
}

fn route() -> Route {
    let members = [(NEW.node(0), Weight(3)), (OLD.node(0), Weight(1)), (OLD.node(1), Weight(1)), (NEW.node(1), Weight::PROBED)];
    Route { generation: GENERATION, members: members.into() }
}

fn effects() -> Vec<Effect> {
    let second = Duration::from_secs(1);
    let analysis = gapless_core::analysis::AnalysisPolicy { minimum_requests: 500, error_margin: 50, latency_margin: 20 };
    vec![
        Effect::EnsureGroup { group: NEW, size: 3 },
        Effect::Route(route()),
        Effect::Route(Route { members: BTreeMap::new(), ..route() }),
        Effect::Drain { nodes: nodes(), deadline: second * 30 },
        Effect::DestroyNodes { nodes: nodes() },
        Effect::RunTask { group: NEW, task: Task::BeforeShift, deadline: second * 600 },
        Effect::Analyse { old: OLD.release, new: NEW.release, since: MONDAY, policy: analysis },
        Effect::Notify(Notice::Promoted { rollout: ROLLOUT }),
    ]
}

fn events() -> Vec<Event> {
    let seen = NodeSeen {
        condition: Condition::Running,
        image: Digest([0; 32]),
        health: Health { passes: 2, ..Health::default() },
        requests_in_flight: 4,
    };
    let world = Observation {
        nodes: nodes().into_iter().map(|node| (node, seen.clone())).collect(),
        proxies: [("w1".to_string(), Some(GENERATION)), ("w2".to_string(), None)].into(),
    };
    let failure = |is_final| Failure { reason: "there is no room".into(), is_final };
    vec![
        Event::RollbackRequested { to: None, forced: false },
        Event::RollbackRequested { to: Some(OLD.release), forced: true },
        Event::Paused,
        Event::Resumed,
        Event::Cancelled,
        Event::Promoted,
        Event::RetryRequested,
        Event::Scaled { nodes: 5 },
        Event::Revoked { artifacts: [ArtifactVersion(3)].into() },
        Event::Revoked { artifacts: BTreeSet::new() },
        Event::PartnersReady,
        Event::PartnersFailed { reason: "hello/worker: a node failed its gate".into() },
        Event::PartnersTakenBack { reason: "hello/worker was taken back".into() },
        Event::Analysed { effect: EffectId(3), judgement: judgement(Verdict::Hold) },
        Event::Observed(Observation::default()),
        Event::Observed(world),
        Event::EffectEnded { effect: EffectId(2), result: Ok(()) },
        Event::EffectEnded { effect: EffectId(3), result: Err(failure(false)) },
        Event::EffectEnded { effect: EffectId(3), result: Err(failure(true)) },
        Event::Restarted,
    ]
}

fn states() -> Vec<ServiceState> {
    let stages = [
        Stage::Vacate,
        Stage::Command,
        Stage::Prepare { deadline: MONDAY, booted: false },
        Stage::Prepare { deadline: MONDAY, booted: true },
        Stage::Await { deadline: MONDAY },
        Stage::Roll { deadline: MONDAY },
        Stage::Shift,
        Stage::Confirm,
        Stage::Bake { until: MONDAY },
        Stage::Retire,
        Stage::Undo { reason: Rejection::Cancelled },
        Stage::Unroll { reason: Rejection::Cancelled },
        Stage::Restore { reason: Rejection::Cancelled, deadline: MONDAY },
    ];
    let together = Together { id: Digest([0; 32]), with: BTreeSet::from(["hello/worker".parse().expect("a name")]) };
    let rollout = |stage| Rollout { together: Some(together.clone()), ..Rollout::new(ROLLOUT, RolloutKind::Deploy, Some(OLD), NEW, stage) };
    let with = |stage| ServiceState { live: Some(OLD), rollout: Some(rollout(stage)), route: route(), ..ServiceState::default() };
    let mut all: Vec<ServiceState> = stages.into_iter().map(with).collect();
    let mut busy = with(Stage::Shift);
    busy.queued = Some(Queued { release: ReleaseNumber(6), urgent: false, not_before: Some(MONDAY), together: None });
    busy.healing.stopped = true;
    busy.pending.insert(EffectId(3), Effect::Route(route()));
    if let Some(rollout) = &mut busy.rollout {
        rollout.paused = Some(MONDAY);
    }
    all.extend([busy, ServiceState { live: Some(OLD), ..ServiceState::default() }, ServiceState::default()]);
    all
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/story/words.golden.txt");

#[test]
fn every_fact_effect_event_and_stage_reads_as_reviewed() {
    let mut told = String::new();
    let service = web();
    for notice in of_rollouts().iter().chain(&of_services()) {
        let step = step(&service, MONDAY, notice, None);
        let _ = writeln!(told, "{}\n  why: {}", step.text, step.rule);
    }
    told += "\n";
    let mut state = ServiceState::default();
    state.pending.insert(EffectId(3), effects().remove(6));
    for event_of in events() {
        let _ = writeln!(told, "{}", event(&service, &state, &event_of));
    }
    told += "\n";
    for effect_of in effects() {
        let _ = writeln!(told, "{}", effect(&service, &effect_of));
    }
    told += "\n";
    for state in states() {
        let _ = writeln!(told, "{}\n  {}", going_on(&service, &state), state_line(&service, &state));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &told).expect("golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("golden file");
    let difference = told.lines().zip(golden.lines()).find(|(told, golden)| told != golden);
    assert!(told == golden, "run with UPDATE_GOLDEN=1 and review the difference, which begins with {difference:?}");
}

#[test]
fn a_step_that_waits_for_a_person_says_so() {
    let step_of = |percent, pause| CanaryStep { percent, pause };
    let steps = vec![step_of(5, CanaryPause::For(Duration::from_secs(60))), step_of(25, CanaryPause::Person)];
    let canary = declaration(Strategy::Canary { steps, analysis: None }, true);
    let text = |number, percent| {
        let began = Notice::CanaryStepBegan { rollout: ROLLOUT, step: number, percent, generation: GENERATION };
        step(&web(), MONDAY, &began, Some(&canary)).text
    };
    assert_eq!(text(1, 5), "step 1 of the canary: the new nodes get 5 % of the traffic with route g12");
    assert_eq!(
        text(2, 25),
        "step 2 of the canary: the new nodes get 25 % of the traffic with route g12, until somebody runs `gapless promote`"
    );
}

#[test]
fn of_a_worker_no_traffic_is_told() {
    let worker = declaration(Strategy::BlueGreen, false);
    let told = |notice: &Notice| step(&web(), MONDAY, notice, Some(&worker)).text;
    let group = NEW;
    let of_workers = [
        Notice::NodesBooted { rollout: ROLLOUT, group },
        Notice::ShiftBegan { rollout: ROLLOUT, generation: GENERATION, way_back: true },
        Notice::Shifted { rollout: ROLLOUT, generation: GENERATION },
        Notice::Drained { rollout: ROLLOUT, cut: 0 },
        Notice::Drained { rollout: ROLLOUT, cut: 1 },
    ];
    for notice in of_workers {
        let text = told(&notice);
        assert!(["traffic", "route", "proxy", "request"].iter().all(|word| !text.contains(word)), "{text}");
    }
    assert_eq!(
        told(&Notice::GatePassed { rollout: ROLLOUT, group }),
        step(&web(), MONDAY, &Notice::GatePassed { rollout: ROLLOUT, group }, None).text
    );
}

#[test]
fn every_fact_has_a_rule_and_its_own_word_for_machines() {
    let mut words = BTreeSet::new();
    for notice in of_rollouts().iter().chain(&of_services()) {
        let step = step(&web(), MONDAY, notice, None);
        assert!(!step.text.is_empty() && !step.rule.is_empty(), "{step:?}");
        for code in ["{", "}", "Some(", "None"] {
            assert!(!step.text.contains(code), "this is for people: {}", step.text);
        }
        let written = serde_json::to_value(&step).expect("JSON");
        words.insert(written["fact"]["fact"].as_str().expect("a word").to_string());
        assert_eq!(serde_json::from_value::<gapless_wire::rollout::Step>(written).expect("read back"), step);
    }
    assert_eq!(words.len(), 31, "one word for each kind of notice: {words:?}");
    let kinds: BTreeSet<String> = rejections().iter().map(|rejection| reason(rejection).kind).collect();
    assert_eq!(kinds.len(), 14, "one for each kind of rejection: {kinds:?}");
    assert_eq!(release_name(&web(), NEW.release), "web-r5");
}
