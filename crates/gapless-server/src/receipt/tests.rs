//! Receipts are signed, any change is found, and the arithmetic of the measure is right.

use super::{NotGenuine, ProxyRecord, Recorded, SigningKey, Window, measure, verify};
use gapless_wire::receipt::{Measured, Phases, RECEIPT_VERSION, Ran, Receipt, SignedReceipt};
use gapless_wire::record::{Record, Slice};
use gapless_wire::rollout::{Outcome, RolloutKind};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

fn ran() -> Ran {
    Ran {
        release: "web-r2".into(),
        artifact: "hello/web".into(),
        version: 2,
        commit: Some("c0ffee".into()),
        image: "sha256:00".into(),
        layers: BTreeMap::from([("layer.base".into(), "sha256:01".into())]),
        declaration: "sha256:02".into(),
    }
}

fn receipt() -> Receipt {
    Receipt {
        version: RECEIPT_VERSION,
        installation: "a1b2c3".into(),
        service: "hello/web".into(),
        rollout: 2,
        kind: RolloutKind::Deploy,
        outcome: Outcome::Live,
        reason: None,
        from: None,
        to: ran(),
        started_ms: 1_000,
        ended_ms: 2_000,
        steps: Vec::new(),
        measured: Some(Measured { requests: 500, ..Measured::default() }),
        switch_ms: Some(700),
        gone_ms: Some(1_000),
        build_ms: None,
        outage_ms: None,
        phases: Phases { boot: Some(300), ..Phases::default() },
        longest_phase: Some("boot".into()),
        server_restarts: 0,
        incomplete: Vec::new(),
    }
}

fn signed(folder: &std::path::Path) -> SignedReceipt {
    SigningKey::open(folder).expect("key").sign(receipt()).expect("signed")
}

#[test]
fn a_receipt_is_verified_as_it_was_signed() {
    let folder = tempfile::tempdir().expect("folder");
    let signed = signed(folder.path());
    let pretty = serde_json::to_string_pretty(&signed).expect("json");
    assert_eq!(verify(&pretty, None), Ok(signed.clone()));
    assert_eq!(verify(&pretty, Some(&signed.key)), Ok(signed.clone()));
    assert_eq!(verify(&pretty, Some(&"0".repeat(64))), Err(NotGenuine::OtherKey { found: signed.key }));
}

#[test]
fn every_changed_digit_and_letter_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let text = serde_json::to_string(&signed(folder.path())).expect("json");
    let mut tried = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()) {
        let mut changed = text.clone().into_bytes();
        changed[at] = if byte == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(changed).expect("text");
        assert!(verify(&changed, None).is_err(), "a change at byte {at} was not found");
        tried += 1;
    }
    assert!(tried > 500, "only {tried} changes were tried");
}

#[test]
fn an_added_field_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let mut value = serde_json::to_value(signed(folder.path())).expect("json");
    value["receipt"]["added"] = serde_json::json!(true);
    assert_eq!(verify(&value.to_string(), None), Err(NotGenuine::Changed));
}

#[test]
fn the_key_is_made_once_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().expect("folder");
    let keys = folder.path().join("keys");
    let first = SigningKey::open(&keys).expect("made").public();
    assert_eq!(SigningKey::open(&keys).expect("opened").public(), first);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(&keys.join("receipt.key"))), (0o700, 0o600));
    std::fs::write(keys.join("receipt.key"), "damaged").expect("written");
    assert!(SigningKey::open(&keys).is_err(), "a damaged key is not replaced");
}

fn slice(at_ms: u64, release: &str, requests: u64, small: (u64, u64), gap: u64) -> Slice {
    Slice {
        at_ms,
        service: "hello/web".into(),
        release: release.into(),
        requests,
        statuses: [0, requests, 0, 0, 0],
        latencies: vec![(1_000, requests - 1), (9_000, 1)],
        small_ended: Some(small),
        small_gap_ms: gap,
        ..Slice::default()
    }
}

fn proxy(workers: Vec<Recorded>) -> ProxyRecord {
    ProxyRecord { proxy: "a.sock".into(), workers }
}

fn recorded(began_ms: u64, until_ms: u64, slices: Vec<Slice>) -> Recorded {
    Recorded { record: Record { worker: 7, began_ms, until_ms, slices, ..Record::default() }, lives: true, gone_by_ms: None }
}

#[test]
fn the_measure_counts_what_ended_inside_the_window() {
    let mut failed = slice(1_200, "web-r2", 10, (1_210, 1_290), 15);
    failed.failed.insert("truncated".into(), 2);
    failed.cut = 1;
    let slices = vec![
        slice(900, "web-r1", 10, (910, 990), 10),
        slice(1_000, "web-r1", 10, (1_000, 1_080), 12),
        failed,
        slice(1_900, "web-r2", 10, (1_940, 1_990), 9),
        slice(2_100, "web-r2", 10, (2_110, 2_190), 9),
    ];
    let window = Window { from_ms: 1_050, shifted_ms: Some(1_250), until_ms: 1_999 };
    let (measured, incomplete) = measure("hello/web", window, &[proxy(vec![recorded(0, 3_000, slices)])]);
    let measured = measured.expect("measured");
    assert_eq!(incomplete, Vec::<String>::new());
    assert_eq!((measured.requests, measured.failed, measured.cut), (30, 2, 1));
    assert_eq!(measured.failed_by_cause["truncated"], 2);
    assert_eq!(measured.longest_gap_ms, Some(650));
    assert_eq!((measured.before.count, measured.during.count, measured.after.count), (10, 20, 10));
    assert_eq!((measured.during.p50_us, measured.during.p99_us, measured.during.max_us), (1_000, 9_000, 9_000));
    assert_eq!(measured.by_release, BTreeMap::from([("web-r1".into(), 10), ("web-r2".into(), 20)]));
}

#[test]
fn what_no_record_covers_is_said() {
    let window = Window { from_ms: 1_000, shifted_ms: None, until_ms: 2_000 };
    let (measured, why) = measure("hello/web", window, &[]);
    assert!(measured.is_none());
    assert_eq!(why, ["no proxy's record was to be had"]);

    let why = |proxies: &[ProxyRecord]| measure("hello/web", window, proxies).1;
    assert_eq!(
        why(&[proxy(vec![recorded(1_500, 3_000, Vec::new())])]),
        ["no record of the proxy a.sock reaches back to the rollout's start"]
    );
    let early = why(&[proxy(vec![recorded(0, 1_500, Vec::new())])]);
    assert_eq!(early, ["the proxy's worker 7 was read up to 1500 only", "no record of the proxy a.sock reaches to the rollout's end"]);

    let gone = Recorded { lives: false, ..recorded(0, 1_400, Vec::new()) };
    let why = why(&[proxy(vec![gone, recorded(1_450, 3_000, Vec::new())])]);
    assert_eq!(why, ["the proxy's worker 7 ended; what it counted after 1400 is lost"]);
}

#[test]
fn each_proxy_has_to_cover_the_window_by_itself() {
    let window = Window { from_ms: 1_000, shifted_ms: None, until_ms: 2_000 };
    let whole = || ProxyRecord { proxy: "b.sock".into(), workers: vec![recorded(0, 3_000, Vec::new())] };
    let why = |workers: Vec<Recorded>| measure("hello/web", window, &[proxy(workers), whole()]).1;
    assert_eq!(why(vec![recorded(0, 3_000, Vec::new())]), Vec::<String>::new());
    assert_eq!(why(Vec::new()), ["no record of the proxy a.sock was to be had"]);
    assert_eq!(
        why(vec![recorded(0, 900, Vec::new())]),
        ["no record of the proxy a.sock was to be had"],
        "it was read before the window only"
    );
    assert_eq!(why(vec![recorded(1_500, 3_000, Vec::new())]), ["no record of the proxy a.sock reaches back to the rollout's start"]);
    let late = "no record of the proxy a.sock reaches to the rollout's end";
    assert_eq!(why(vec![recorded(0, 1_500, Vec::new())]), ["the proxy's worker 7 was read up to 1500 only", late]);
}

#[test]
fn slices_that_a_worker_has_dropped_make_the_measure_incomplete() {
    let window = Window { from_ms: 1_000, shifted_ms: None, until_ms: 2_000 };
    let mut dropped = recorded(0, 3_000, Vec::new());
    dropped.record.complete_from_ms = 1_700;
    let why = |workers: Vec<Recorded>| measure("hello/web", window, &[proxy(workers)]).1;
    let kept = "what the proxy's worker 7 counted before 1700 is no longer kept";
    assert_eq!(why(vec![dropped.clone()]), ["no record of the proxy a.sock reaches back to the rollout's start", kept]);
    assert_eq!(why(vec![dropped.clone(), recorded(0, 3_000, Vec::new())]), [kept], "another worker does not make up for it");
    dropped.record.complete_from_ms = 900;
    assert_eq!(why(vec![dropped]), Vec::<String>::new());
}

#[test]
fn a_count_of_the_kernel_that_could_not_be_read_is_said() {
    let window = Window { from_ms: 1_000, shifted_ms: None, until_ms: 2_000 };
    let mut blind = recorded(0, 3_000, Vec::new());
    blind.record.listen_drops_unknown = true;
    let (_, why) = measure("hello/web", window, &[proxy(vec![blind])]);
    assert_eq!(why, ["the proxy's worker 7 could not read the kernel's count of dropped connections"]);
}

#[test]
fn what_a_worker_without_routes_refused_is_counted_by_every_service() {
    let window = Window { from_ms: 1_000, shifted_ms: None, until_ms: 2_000 };
    let mut lost = slice(1_500, "", 2, (0, 0), 0);
    lost.service = String::new();
    lost.latencies = Vec::new();
    lost.failed = [("no-routes".to_string(), 2)].into();
    let (measured, _) = measure("hello/web", window, &[proxy(vec![recorded(0, 3_000, vec![lost])])]);
    assert_eq!(measured.map(|measured| (measured.requests, measured.failed)), Some((2, 2)));
}
