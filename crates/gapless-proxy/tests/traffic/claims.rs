//! Once a snapshot is acknowledged, no new request lands on a node that it does not name.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::{Node, checksum};
use crate::support::proxy::{Proxy, of, route, snapshot, totals};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SWAPS: u64 = 60;

/// Swaps between two nodes under load of 8 clients. Retry is off: nothing may hide behind it.
fn swap_under_load(retry: bool) {
    let proxy = Proxy::start();
    let nodes = [Node::start("even"), Node::start("odd")];
    let put = |generation: u64| {
        let (new, old) = (&nodes[(generation % 2) as usize], &nodes[((generation + 1) % 2) as usize]);
        let mut route = route(generation, &[(new, 1), (old, 0)]);
        route.retry = retry;
        // Every second swap unnames the old node, every other keeps it at weight 0.
        if generation % 4 < 2 {
            route.members.remove(&old.inside.name);
        }
        proxy.put(&of(route));
    };
    put(2);
    proxy.wait_ready(&["even"]);
    let (begun, returned) = (Arc::new(AtomicU64::new(2)), Arc::new(AtomicU64::new(2)));
    let (mark, judged) = (returned.clone(), begun.clone());
    let load = Load::judged(
        proxy.address,
        8,
        Arc::new(move || mark.load(Ordering::SeqCst)),
        Arc::new(move |before, answer| {
            let after = judged.load(Ordering::SeqCst);
            let right = if before % 2 == 0 { "even" } else { "odd" };
            if before == after && answer.node() != right {
                Err(format!("generation {before} was acknowledged, but {} answered", answer.node()))
            } else {
                Ok(())
            }
        }),
    );
    for generation in 3..3 + SWAPS {
        begun.store(generation, Ordering::SeqCst);
        put(generation);
        returned.store(generation, Ordering::SeqCst);
        let old = &nodes[((generation + 1) % 2) as usize];
        eventually("the old node's last request ends", || {
            proxy.node_status(&old.inside.name).is_none_or(|status| status.requests_in_flight == 0)
        });
        let before = old.begun();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(old.begun(), before, "a request reached the old node after its count was 0 (generation {generation})");
    }
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert!(seen.requests > 500, "too little traffic to prove anything: {}", seen.requests);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.retried, counted.held, counted.cut), (seen.requests, 0, 0, 0, 0));
}

#[test]
fn no_request_lands_on_an_old_node_once_the_swap_has_returned() {
    swap_under_load(true);
}

#[test]
fn swaps_lose_nothing_with_retry_and_hold_switched_off() {
    swap_under_load(false);
}

#[test]
fn a_slow_answer_and_an_upload_on_the_old_node_complete() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    proxy.put(&snapshot(1, &[(&old, 1)]));
    proxy.wait_ready(&["old"]);
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=800").expect("the slow answer"));
    let mut uploading = Client::new(address);
    uploading.send(b"POST /upload HTTP/1.1\r\nHost: web.test\r\nContent-Length: 100000\r\n\r\n").expect("the upload begins");
    uploading.send(&[7; 50_000]).expect("its first half");
    eventually("both reach the old node", || old.begun() == 2);
    proxy.put(&snapshot(2, &[(&new, 1)]));
    assert_eq!(proxy.node_status("old").expect("it left and has requests").requests_in_flight, 2);
    proxy.drain("old", 10_000);
    let load = Load::start(address, 4);
    std::thread::sleep(Duration::from_millis(100));
    uploading.send(&[7; 50_000]).expect("its second half");
    let answer = uploading.receive().expect("the upload's answer");
    assert_eq!(answer.text(), format!("old 100000 {}", checksum(&[7; 100_000])));
    assert_eq!(slow.join().expect("the slow client").text(), "old");
    eventually("the old node is forgotten", || proxy.node_status("old").is_none());
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert_eq!(old.begun(), 2);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.cut), (seen.requests + 2, 0, 0));
}
