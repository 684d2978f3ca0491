//! The record: what it adds up to is what the clients saw.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, of, route, totals};
use gapless_wire::record::SLICE_MS;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn the_totals_are_the_clients_counts_exactly() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    let mut route = route(1, &[(&a, 1), (&b, 1)]);
    route.members.get_mut("b").unwrap().release = "web-r2".to_string();
    proxy.put(&of(route));
    proxy.wait_ready(&["a", "b"]);
    let load = Load::start(proxy.address, 8);
    let mut parts = Vec::new();
    let mut since = 0;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(250));
        let part = proxy.record_since(since);
        assert!(part.slices.iter().all(|slice| (since..part.until_ms).contains(&slice.at_ms) && slice.at_ms % SLICE_MS == 0));
        since = part.until_ms;
        parts.push(part);
    }
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    parts.push(proxy.record_since(since));
    let in_parts: u64 = parts.iter().map(|part| totals(part).requests).sum();
    assert_eq!(in_parts, seen.requests, "read in parts, nothing is missing and nothing is there twice");
    let whole = proxy.record();
    let counted = totals(&whole);
    assert_eq!((counted.requests, counted.failed, counted.statuses), (seen.requests, 0, [0, seen.requests, 0, 0, 0]));
    let of_release = |release: &str| whole.slices.iter().filter(|slice| slice.release == release).map(|slice| slice.requests).sum::<u64>();
    assert_eq!((of_release("web-r1"), of_release("web-r2")), (a.begun(), b.begun()));
    assert!(whole.slices.iter().all(|slice| slice.service == SERVICE));
    assert_eq!((whole.client_gone, whole.refused), (0, 0));
    assert_eq!(whole.worker, proxy.worker_pid());
}

#[test]
fn small_gets_are_timed_from_their_head_to_their_last_byte() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&of(route(1, &[(&node, 1)])));
    proxy.wait_ready(&["a"]);
    let mut client = Client::new(proxy.address);
    client.get("/slow?ms=120").unwrap();
    client.get("/bytes?n=65536").unwrap();
    client.get("/bytes?n=65537").unwrap();
    client.post("/upload", b"x").unwrap();
    let record = proxy.record();
    let mut times: Vec<u64> = record.slices.iter().flat_map(|slice| slice.latencies.iter().map(|(time, _)| *time)).collect();
    times.sort_unstable();
    assert_eq!(times.len(), 2, "one of 64 KiB, and the slow one: {times:?}");
    assert!((120_000..200_000).contains(&times[1]), "{times:?}");
    assert!(record.slices.iter().filter_map(|slice| slice.small_ended).all(|(first, last)| first <= last));
    assert!(record.began_ms < record.until_ms);
}

#[test]
fn a_try_that_comes_to_nothing_is_counted_for_the_release_whose_node_had_it() {
    let proxy = Proxy::start();
    let (good, bad) = (Node::start("good"), Node::start("bad"));
    let mut route = route(1, &[(&good, 1), (&bad, 1)]);
    route.members.get_mut("bad").unwrap().release = "web-r2".to_string();
    proxy.put(&of(route.clone()));
    proxy.wait_ready(&["good", "bad"]);
    bad.inside.breaks.store(true, Ordering::SeqCst);
    let load = Load::start(proxy.address, 4);
    eventually("the bad node had requests, sent again elsewhere or failed", || bad.begun() >= 100);
    let seen = load.stop();
    let record = proxy.record();
    let counted = totals(&record);
    let tries = |release: &str| record.slices.iter().filter(|slice| slice.release == release).map(|slice| slice.failed_tries).sum::<u64>();
    assert_eq!((tries("web-r1"), tries("web-r2")), (0, bad.begun()));
    assert_eq!(counted.retried + counted.failed, bad.begun(), "a GET was sent again, an upload failed");
    assert_eq!((counted.requests, counted.failed), (seen.requests, seen.failures.len() as u64));
    assert_eq!(record.slices.iter().filter(|slice| slice.release == "web-r2").map(|slice| slice.requests).sum::<u64>(), 0);
}
