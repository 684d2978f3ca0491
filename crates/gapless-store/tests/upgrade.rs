//! What an earlier version wrote is read for ever, and what this one writes does not change.
//!
//! `tests/journals/v1.sql` is a database that the last program of version 1 wrote: `hello/web` with rollouts of every kind of turn, `hello/api` in the middle of one, and
//! `hello/variants` with every variant of every record.

use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::policy::{Policy, Strategy};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::Stage;
use gapless_core::time::Instant;
use gapless_engine::recovery::recover;
use gapless_engine::store::{Journal, JournalRecord, Records, Sequence};
use gapless_store::contract::a_declaration;
use gapless_store::contract::examples::{every_declaration, every_record, every_state};
use gapless_store::{SqliteStore, StateLock};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn journals() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals")
}

fn service(name: &str) -> ServiceName {
    ServiceName::new("hello", name).expect("a name")
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(StateLock::acquire(folder).expect("the lock")).expect("a store")
}

fn sqlite(folder: &Path, input: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.arg(folder.join("gapless.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("sqlite3 runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), input.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// The database of version 1, as that program left it.
fn first_version() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let dump = std::fs::read_to_string(journals().join("v1.sql")).expect("the fixture");
    sqlite(folder.path(), &(dump + "PRAGMA user_version = 1;\n"));
    folder
}

#[test]
fn a_journal_of_the_first_version_is_replayed_and_goes_on() {
    let folder = first_version();
    let store = open(folder.path());
    assert_eq!(store.services().expect("services"), ["api", "variants", "web"].map(service));
    let web = recover(&store, &service("web")).expect("what was decided then is decided now");
    assert_eq!(web.state.live_release(), Some(ReleaseNumber(1)), "{:?}", web.state);
    assert_eq!(web.state.served, BTreeSet::from([1, 2, 4].map(ReleaseNumber)));
    assert_eq!((web.state.next.releases, web.state.rollout.is_some(), web.state.pinned), (4, false, true));
    let api = recover(&store, &service("api")).expect("what was decided then is decided now");
    assert_eq!(api.state.live_release(), Some(ReleaseNumber(1)));
    let stage = api.state.rollout.as_ref().map(|rollout| rollout.stage.clone());
    assert!(matches!(stage, Some(Stage::Prepare { booted: true, .. })), "{:?}", api.state);
    assert!(api.state.pending.values().any(|effect| matches!(effect, Effect::Route(route) if route.generation == Generation(3))));

    let next = JournalRecord { at: web.at, event: Event::Restarted, effects: Vec::new() };
    let sequence = Sequence(web.last.0 + 1);
    assert_eq!(store.append(&service("web"), &next).expect("append"), sequence);
    store.keep(&service("web"), web.last, web.at, &web.state).expect("keep");
    drop(store);
    let again = recover(&open(folder.path()), &service("web")).expect("both versions in one journal");
    assert_eq!((again.state, again.last, again.kept), (web.state, sequence, web.last));
}

const NODE: NodeId = NodeId { group: GroupId { release: ReleaseNumber(4), instance: InstanceId(12) }, ordinal: 2 };

fn first_policy() -> Policy {
    Policy {
        strategy: Strategy::BlueGreen,
        floor: 2,
        gate_passes: 3,
        gate_failures: 4,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_micros(30_000_001),
        bake: Duration::ZERO,
        ..Policy::default()
    }
}

fn evidence() -> Evidence {
    Evidence { check: "GET /healthz".to_string(), result: "status 500".to_string(), times: 3 }
}

fn first_events() -> Vec<Event> {
    let declaration = Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(7),
        image: Digest([2; 32]),
        nodes: 3,
        policy: first_policy(),
        serves: true,
        tasks: BTreeSet::new(),
    };
    let conditions = [
        Condition::Starting,
        Condition::Running,
        Condition::Exited { code: None, output: String::new() },
        Condition::Exited { code: Some(-1), output: "the end".to_string() },
    ];
    let health = Health { passes: 0, failures: 3, failures_after_answer: 2, evidence: Some(evidence()) };
    let seen = |(ordinal, condition)| {
        (NODE.group.node(ordinal), NodeSeen { condition, image: Digest([3; 32]), health: health.clone(), requests_in_flight: 9 })
    };
    let seen = Observation {
        nodes: (0..).zip(conditions).map(seen).collect(),
        proxies: BTreeMap::from([("one".to_string(), Some(Generation(u64::MAX))), ("two".to_string(), None)]),
    };
    let failure = Failure { reason: "no room\non the disk".to_string(), is_final: true };
    vec![
        Event::Declared { declaration, urgent: false, together: None },
        Event::RollbackRequested { to: None, forced: false },
        Event::RollbackRequested { to: Some(ReleaseNumber(2)), forced: false },
        Event::Observed(Observation::default()),
        Event::Observed(seen),
        Event::EffectEnded { effect: EffectId(u64::MAX), result: Ok(()) },
        Event::EffectEnded { effect: EffectId(1), result: Err(failure) },
        Event::Restarted,
    ]
}

fn first_notices() -> Vec<Notice> {
    let (rollout, group, generation) = (RolloutNumber(5), NODE.group, Generation(8));
    let mut notices = vec![
        Notice::RolloutStarted { rollout, kind: RolloutKind::Deploy, from: None, to: ReleaseNumber(1) },
        Notice::RolloutStarted { rollout, kind: RolloutKind::Rollback, from: Some(ReleaseNumber(2)), to: ReleaseNumber(1) },
        Notice::NodesBooted { rollout, group },
        Notice::GatePassed { rollout, group },
        Notice::ShiftBegan { rollout, generation, way_back: true },
        Notice::Shifted { rollout, generation },
        Notice::BakeBegan { rollout, until: Instant(77) },
        Notice::DrainBegan { rollout, nodes: BTreeSet::from([NODE]), deadline: Instant(78) },
        Notice::Drained { rollout, cut: 1 },
        Notice::RolloutEnded { rollout, outcome: Outcome::Live, settled: false },
        Notice::NodeLost { node: NODE, why: "it exited".to_string() },
        Notice::NodeReplaced { node: NODE },
        Notice::EffectFailed { effect: "Route".to_string(), reason: "no answer".to_string() },
    ];
    let rejections = [
        Rejection::GateFailed { node: NODE, evidence: evidence() },
        Rejection::NodeExited { node: NODE, code: Some(7), output: "bye".to_string() },
        Rejection::ProgressDeadline { waiting_for: "r4-i12-n2".to_string() },
        Rejection::WrongImage { node: NODE },
        Rejection::EffectFailed { effect: "EnsureGroup".to_string(), reason: "corrupt".to_string() },
        Rejection::TakenBack,
    ];
    for reason in rejections {
        notices.push(Notice::Rejecting { rollout, reason: reason.clone() });
        notices.push(Notice::RolloutEnded { rollout, outcome: Outcome::Rejected(reason), settled: true });
    }
    notices
}

#[test]
fn every_variant_of_the_first_version_is_read_to_its_value() {
    let folder = first_version();
    let mut effects = vec![
        Effect::EnsureGroup { group: NODE.group, size: 3 },
        Effect::Route(Route {
            generation: Generation(8),
            members: BTreeMap::from([(NODE, Weight::EQUAL), (NODE.group.node(3), Weight::PROBED)]),
        }),
        Effect::Drain { nodes: BTreeSet::from([NODE]), deadline: Duration::from_millis(1) },
        Effect::DestroyNodes { nodes: BTreeSet::from([NODE, NODE.group.node(0)]) },
    ];
    effects.extend(first_notices().into_iter().map(Effect::Notify));
    let effects = (1..).map(EffectId).zip(effects).collect();
    let mut expected: Vec<_> =
        first_events().into_iter().map(|event| JournalRecord { at: Instant(5), event, effects: Vec::new() }).collect();
    expected.push(JournalRecord { at: Instant(1_767_225_600_123), event: Event::Restarted, effects });
    let store = open(folder.path());
    let read: Vec<_> = store.read(&service("variants")).expect("read").into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, expected);
    // The content of a declaration is its name: a release that was declared then is found by the same declaration now.
    let declaration = a_declaration();
    assert_eq!(store.declaration(declaration.content()).expect("declaration"), declaration);
}

/// Every text that this version writes. A change of it is a new version.
#[test]
fn the_second_version_is_written_as_it_always_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, web) = (open(folder.path()), service("web"));
    let mut written = String::new();
    for record in every_record() {
        store.append(&web, &record).expect("append");
    }
    for declaration in every_declaration() {
        store.put_declaration(declaration.content(), &declaration).expect("put");
    }
    for (number, state) in (1..).zip(every_state()) {
        store.keep(&web, Sequence(number), Instant(number), &state).expect("keep");
        written += &sqlite(folder.path(), &format!("SELECT version || ' ' || body FROM kept_states WHERE sequence = {number};"));
    }
    written += &sqlite(folder.path(), "SELECT version || ' ' || body FROM journal ORDER BY sequence;");
    written += &sqlite(folder.path(), "SELECT version || ' ' || body FROM declarations ORDER BY content;");
    let golden = journals().join("v2.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &written).expect("the golden texts");
    }
    let known = std::fs::read_to_string(&golden).expect("the golden texts");
    for (line, (now, then)) in (1..).zip(written.lines().zip(known.lines())) {
        assert_eq!(now, then, "line {line} of v2.txt");
    }
    assert_eq!(written.lines().count(), known.lines().count());
}
