//! What every store keeps to, as checks that each store's tests run over an empty one. A check panics with what it saw.

pub mod examples;
pub mod faults;

pub use self::examples::{a_declaration, every_record};

use self::examples::{every_declaration, every_state};
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use gapless_engine::error::ErrorKind;
use gapless_engine::store::{Journal, NewArtifact, Records, Revocation, Sequence};
use std::collections::BTreeMap;

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
    let missing = store.declaration(a_declaration().content()).expect_err("nothing was kept yet");
    assert_eq!(missing.error_kind(), ErrorKind::NotFound);
    for declaration in every_declaration() {
        let content = declaration.content();
        store.put_declaration(content, &declaration).expect("put");
        store.put_declaration(content, &declaration).expect("put again");
        let found = store.declaration(content).expect("declaration");
        assert_eq!(found, declaration);
        assert_eq!(found.content(), content, "a declaration changed its content on the way");
    }
}

/// The records after a place are those of the whole journal that come after it.
pub fn a_journal_is_read_from_any_place_on(store: &dyn Store) {
    let web = service("web");
    for record in every_record().iter().take(5) {
        store.append(&web, record).expect("append");
        store.append(&service("worker"), record).expect("append");
    }
    let whole = store.read(&web).expect("read");
    for after in 0..=6 {
        let read = store.read_after(&web, Sequence(after)).expect("read");
        assert_eq!(read, whole.iter().skip(usize::try_from(after).expect("a place")).cloned().collect::<Vec<_>>());
    }
}

/// The latest state that was kept of a service comes back as it was, whatever it holds, and the journal keeps its records.
pub fn the_latest_state_is_kept(store: &dyn Store) {
    let (web, worker) = (service("web"), service("worker"));
    assert_eq!(store.kept(&web).expect("kept"), None);
    let record = &every_record()[0];
    for (number, state) in (1..).zip(every_state()) {
        store.append(&web, record).expect("append");
        store.keep(&web, Sequence(number), Instant(number * 10), &state).expect("keep");
        assert_eq!(store.kept(&web).expect("kept"), Some((Sequence(number), Instant(number * 10), state)));
    }
    store.keep(&web, Sequence(1), Instant(10), &every_state()[0]).expect("keep an old one");
    let states = every_state().len() as u64;
    assert_eq!(
        store.kept(&web).expect("kept").map(|(sequence, ..)| sequence),
        Some(Sequence(states)),
        "an older state took a newer one's place"
    );
    assert_eq!(store.kept(&worker).expect("kept"), None);
    assert_eq!(store.read(&web).expect("read").len() as u64, states);
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
