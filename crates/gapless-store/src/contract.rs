//! What every store keeps to, as checks that each store's tests run over an empty one. A check panics with what it saw.

use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::error::ErrorKind;
use gapless_engine::store::{Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A store: both of its sides.
pub trait Store: Journal + Records {}

impl<T: Journal + Records> Store for T {}

/// Every kind of record comes back as it was written, numbered from 1 without gaps, service by service.
pub fn records_come_back_as_they_were_written(store: &dyn Store) {
    let (web, worker) = (service("web"), service("worker"));
    assert_eq!(store.services().expect("services"), []);
    assert_eq!(store.read(&web).expect("read"), []);
    let records = every_record();
    for (sequence, record) in (1..).map(Sequence).zip(&records) {
        assert_eq!(store.append(&web, record).expect("append"), sequence);
    }
    assert_eq!(store.append(&worker, &records[0]).expect("append"), Sequence(1));
    let read = store.read(&web).expect("read");
    assert_eq!(read.len(), records.len());
    for ((sequence, read), (expected, written)) in read.iter().zip((1..).map(Sequence).zip(&records)) {
        assert_eq!((sequence, read), (&expected, written));
    }
    assert_eq!(store.read(&worker).expect("read"), [(Sequence(1), records[0].clone())]);
    assert_eq!(store.services().expect("services"), [web, worker]);
}

/// Artifacts are counted from 1 per name and kind; the same one published again keeps its number.
pub fn artifacts_are_numbered_by_name_and_kind(store: &dyn Store) {
    let publish = |name: &str, kind: &str, image: u8| store.publish(an_artifact(name, kind, image)).expect("publish").version.0;
    assert_eq!(publish("hello/web", "oci.image", 1), 1);
    assert_eq!(publish("hello/web", "oci.image", 2), 2);
    assert_eq!(publish("hello/web", "amazon.ami", 1), 1);
    assert_eq!(publish("hello/api", "oci.image", 1), 1);
    assert_eq!(publish("hello/web", "oci.image", 1), 1, "the same artifact got a second number");
    let later = NewArtifact { published: Instant(9_999), ..an_artifact("hello/web", "oci.image", 2) };
    let again = store.publish(later).expect("publish");
    assert_eq!((again.version.0, again.published), (2, Instant(1_000)), "a published artifact was changed");
    let found = |name: Option<&str>| -> Vec<_> {
        let found = store.artifacts(name).expect("artifacts");
        found.into_iter().map(|artifact| (artifact.name, artifact.kind, artifact.version.0)).collect()
    };
    let of = |name: &str, kind: &str, version: u32| (name.to_string(), kind.to_string(), version);
    let web = [of("hello/web", "amazon.ami", 1), of("hello/web", "oci.image", 1), of("hello/web", "oci.image", 2)];
    assert_eq!(found(Some("hello/web")), web);
    assert_eq!(found(None), [&[of("hello/api", "oci.image", 1)][..], &web].concat());
    assert_eq!(store.artifacts(Some("hello/api")).expect("artifacts")[0].metadata, an_artifact("", "", 1).metadata);
}

/// Two that publish at once get numbers without a gap and without a double.
pub fn artifacts_published_at_once_have_no_gap(store: &(dyn Store + Sync)) {
    const EACH: u32 = 100;
    let publish = |thread: u32| {
        (0..EACH)
            .map(|number| {
                let mut artifact = an_artifact("hello/web", "oci.image", 0);
                artifact.metadata.insert("commit".to_string(), format!("{thread}-{number}"));
                store.publish(artifact).expect("publish").version.0
            })
            .collect::<Vec<_>>()
    };
    let mut numbers = std::thread::scope(|scope| {
        let threads = [1, 2].map(|thread| scope.spawn(move || publish(thread)));
        threads.into_iter().flat_map(|thread| thread.join().expect("a publisher ended")).collect::<Vec<_>>()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=2 * EACH).collect::<Vec<_>>());
}

/// A declaration is found by its content, and only by that.
pub fn declarations_are_kept_by_content(store: &dyn Store) {
    let declaration = a_declaration();
    let content = declaration.content();
    let missing = store.declaration(content).expect_err("nothing was kept yet");
    assert_eq!(missing.error_kind(), ErrorKind::NotFound);
    store.put_declaration(content, &declaration).expect("put");
    store.put_declaration(content, &declaration).expect("put again");
    let found = store.declaration(content).expect("declaration");
    assert_eq!(found, declaration);
    assert_eq!(found.content(), content, "a declaration changed its content on the way");
}

/// A rollout has one receipt, the last one given.
pub fn receipts_are_replaced(store: &dyn Store) {
    let (web, rollout) = (service("web"), RolloutNumber(3));
    assert_eq!(store.receipt(&web, rollout).expect_err("there is none").error_kind(), ErrorKind::NotFound);
    store.put_receipt(&web, rollout, "provisional").expect("put");
    store.put_receipt(&web, rollout, "final").expect("put");
    store.put_receipt(&web, RolloutNumber(4), "another").expect("put");
    assert_eq!(store.receipt(&web, rollout).expect("receipt"), "final");
}

/// Values are found by name, the last one given.
pub fn values_are_replaced(store: &dyn Store) {
    assert_eq!(store.value("build.cache").expect("value"), None);
    store.put_value("build.cache", "one").expect("put");
    store.put_value("build.cache", "two").expect("put");
    assert_eq!(store.value("build.cache").expect("value").as_deref(), Some("two"));
    assert_eq!(store.value("other").expect("value"), None);
}

/// Revocations are kept by the artifact's name and version, the last one given, until they are lifted.
pub fn revocations_hold_until_they_are_lifted(store: &dyn Store) {
    let revoked = |reason: &str| Revocation { at: Instant(7), reason: reason.to_string() };
    let of = |name: &str| store.revocations(name).expect("revocations").into_iter().collect::<Vec<_>>();
    assert_eq!(of("hello/web"), []);
    store.put_revocation("hello/web", ArtifactVersion(3), &revoked("leaks a key")).expect("put");
    store.put_revocation("hello/web", ArtifactVersion(2), &revoked("unknown")).expect("put");
    store.put_revocation("hello/web", ArtifactVersion(2), &revoked("is slow")).expect("put again");
    store.put_revocation("hello/api", ArtifactVersion(2), &revoked("is another one's")).expect("put");
    assert_eq!(of("hello/web"), [(ArtifactVersion(2), revoked("is slow")), (ArtifactVersion(3), revoked("leaks a key"))]);
    store.remove_revocation("hello/web", ArtifactVersion(2)).expect("removed");
    store.remove_revocation("hello/web", ArtifactVersion(9)).expect("was not revoked");
    assert_eq!(of("hello/web"), [(ArtifactVersion(3), revoked("leaks a key"))]);
    assert_eq!(of("hello/api").len(), 1);
}

fn service(name: &str) -> ServiceName {
    ServiceName::new("hello", name).expect("a name")
}

fn an_artifact(name: &str, kind: &str, image: u8) -> NewArtifact {
    NewArtifact {
        name: name.to_string(),
        kind: kind.to_string(),
        image: Digest([image; 32]),
        published: Instant(1_000),
        metadata: BTreeMap::from([
            ("commit".to_string(), "0a1b2c".to_string()),
            ("layer.base".to_string(), "ünïcode \"quoted\"".to_string()),
        ]),
    }
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
        policy: policy(),
        tasks: Tasks::default(),
    }
}

fn policy() -> Policy {
    Policy {
        floor: 2,
        gate_passes: 3,
        gate_failures: 4,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_micros(30_000_001),
        bake: Duration::ZERO,
        ..Policy::default()
    }
}

/// Records with every kind of event, effect, notice, rejection and outcome.
#[must_use]
pub fn every_record() -> Vec<JournalRecord> {
    let mut records: Vec<_> = every_event().into_iter().map(|event| JournalRecord { at: Instant(5), event, effects: Vec::new() }).collect();
    let effects = (1..).map(EffectId).zip(every_effect()).collect();
    records.push(JournalRecord { at: Instant(1_767_225_600_123), event: Event::Restarted, effects });
    records
}

const NODE: NodeId = NodeId { group: GroupId { release: ReleaseNumber(4), instance: InstanceId(12) }, ordinal: 2 };

fn every_event() -> Vec<Event> {
    let declaration = Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(7),
        image: Digest([2; 32]),
        nodes: 3,
        policy: policy(),
        serves: true,
        tasks: BTreeSet::new(),
    };
    let failure = Failure { reason: "no room\non the disk".to_string(), is_final: true };
    let nodes = [
        Condition::Starting,
        Condition::Running,
        Condition::Exited { code: None, output: String::new() },
        Condition::Exited { code: Some(-1), output: "the end".to_string() },
    ];
    let health = Health { passes: 0, failures: 3, failures_after_answer: 2, evidence: Some(evidence()) };
    let seen = |(ordinal, condition)| {
        (NODE.group.node(ordinal), NodeSeen { condition, image: Digest([3; 32]), health: health.clone(), requests_in_flight: 9 })
    };
    vec![
        Event::declared(declaration),
        Event::RollbackRequested { to: None, forced: false },
        Event::RollbackRequested { to: Some(ReleaseNumber(2)), forced: false },
        Event::Observed(Observation::default()),
        Event::Observed(Observation {
            nodes: (0..).zip(nodes).map(seen).collect(),
            proxies: BTreeMap::from([("one".to_string(), Some(Generation(u64::MAX))), ("two".to_string(), None)]),
        }),
        Event::EffectEnded { effect: EffectId(u64::MAX), result: Ok(()) },
        Event::EffectEnded { effect: EffectId(1), result: Err(failure) },
        Event::Restarted,
    ]
}

fn every_effect() -> Vec<Effect> {
    let effects = vec![
        Effect::EnsureGroup { group: NODE.group, size: 3 },
        Effect::Route(Route {
            generation: Generation(8),
            members: BTreeMap::from([(NODE, Weight::EQUAL), (NODE.group.node(3), Weight::PROBED)]),
        }),
        Effect::Drain { nodes: BTreeSet::from([NODE]), deadline: Duration::from_millis(1) },
        Effect::DestroyNodes { nodes: BTreeSet::from([NODE, NODE.group.node(0)]) },
    ];
    effects.into_iter().chain(every_notice().into_iter().map(Effect::Notify)).collect()
}

fn every_notice() -> Vec<Notice> {
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
    for reason in every_rejection() {
        notices.push(Notice::Rejecting { rollout, reason: reason.clone() });
        notices.push(Notice::RolloutEnded { rollout, outcome: Outcome::Rejected(reason), settled: true });
    }
    notices
}

fn every_rejection() -> Vec<Rejection> {
    vec![
        Rejection::GateFailed { node: NODE, evidence: evidence() },
        Rejection::NodeExited { node: NODE, code: Some(7), output: "bye".to_string() },
        Rejection::ProgressDeadline { waiting_for: "r4-i12-n2".to_string() },
        Rejection::WrongImage { node: NODE },
        Rejection::EffectFailed { effect: "EnsureGroup".to_string(), reason: "corrupt".to_string() },
        Rejection::TakenBack,
    ]
}

fn evidence() -> Evidence {
    Evidence { check: "GET /healthz".to_string(), result: "status 500".to_string(), times: 3 }
}
