//! Which requests are sent again, and which never.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, of, route, snapshot, totals};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn a_get_on_a_dead_node_is_answered_by_another() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let address = proxy.address;
    let slow: Vec<_> = (0..6).map(|_| std::thread::spawn(move || Client::new(address).get("/slow?ms=400").unwrap())).collect();
    eventually("both have some", || a.begun() > 0 && b.begun() > 0 && a.begun() + b.begun() == 6);
    let on_a = a.begun();
    a.kill();
    for client in slow {
        let answer = client.join().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "b"));
    }
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.retried), (6, 0, on_a));
    eventually("it is not ready", || !proxy.node_status("a").unwrap().ready);
    assert!(proxy.node_status("a").unwrap().failure.is_some());
}

#[test]
fn under_load_a_dying_node_fails_no_get() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let address = proxy.address;
    let clients: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                (0..200).filter(|_| client.get("/name").map_or(true, |answer| answer.status != 200)).count()
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(20));
    a.kill();
    let failed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(failed, 0);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed), (1200, 0));
}

#[test]
fn a_post_that_was_sent_fails_with_its_cause_and_is_sent_once() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let load = Load::start(proxy.address, 2);
    let before = a.inside.broken.load(Ordering::SeqCst) + b.inside.broken.load(Ordering::SeqCst);
    let answer = Client::new(proxy.address).post("/close", b"order 1 book").unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with("node-closed: node "), "{}", answer.text());
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert_eq!(before, 0);
    assert_eq!(a.begun() + b.begun(), seen.requests + 1, "the POST reached one node, once");
    let counted = totals(&proxy.record());
    assert_eq!(counted.by_cause.get("node-closed"), Some(&1));
    assert_eq!((counted.failed, counted.retried), (1, 0));
}

#[test]
fn a_post_that_could_not_be_sent_goes_elsewhere() {
    let proxy = Proxy::start();
    let (dead, b) = (Node::start("dead"), Node::start("b"));
    dead.kill();
    // Nobody has been checked when the requests come: the dead one is tried.
    proxy.put(&snapshot(1, &[(&dead, 1000), (&b, 1)]));
    let upload = vec![9; 300_000];
    let answer = Client::new(proxy.address).post("/upload", &upload).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().starts_with("b 300000 "), "{}", answer.text());
    for _ in 0..20 {
        assert_eq!(Client::new(proxy.address).post("/upload", b"x").unwrap().status, 200);
    }
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn what_can_be_sent_again_is_sent_to_every_member_at_most_once_more() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let body = vec![1; 60 * 1024];
    let answer = Client::new(proxy.address).request("PUT", "/close", &[], &body).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(a.begun() + b.begun(), 3, "two members: three tries");
    assert!(a.begun() >= 1 && b.begun() >= 1);
    // Too large to be kept: sent once.
    let before = a.begun() + b.begun();
    let answer = Client::new(proxy.address).request("PUT", "/close", &[], &vec![1; 65 * 1024]).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(a.begun() + b.begun(), before + 1);
    // Switched off: sent once.
    let mut off = route(2, &[(&a, 1), (&b, 1)]);
    off.retry = false;
    proxy.put(&of(off));
    let before = a.begun() + b.begun();
    assert_eq!(Client::new(proxy.address).get("/close").unwrap().status, 502);
    assert_eq!(a.begun() + b.begun(), before + 1);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.retried), (3, 3, 1));
}

#[test]
fn nothing_is_sent_again_once_a_byte_of_the_answer_was_passed_on() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    assert!(Client::new(proxy.address).get("/truncated-chunks?n=2").is_err());
    assert_eq!(a.begun() + b.begun(), 1);
    let counted = totals(&proxy.record());
    assert_eq!(counted.by_cause.get("truncated"), Some(&1));
    assert_eq!(counted.retried, 0);
}

#[test]
fn a_lone_node_that_closes_every_kept_connection_fails_no_get() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let address = proxy.address;
    let at_once: Vec<_> = (0..4).map(|_| std::thread::spawn(move || Client::new(address).get("/slow?ms=200").unwrap())).collect();
    assert!(at_once.into_iter().all(|client| client.join().unwrap().status == 200), "four connections are kept");
    node.inside.breaks_kept.store(true, Ordering::SeqCst);
    // Each of the proxy's threads keeps connections of its own: enough requests that some thread has two of these.
    let (begun, requests) = (node.begun(), 32);
    for _ in 0..requests {
        let answer = Client::new(address).get("/name").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    }
    assert!(node.begun() > begun + requests, "kept connections were tried first");
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn a_node_that_closes_idle_connections_early_fails_no_request() {
    for retry in [true, false] {
        let proxy = Proxy::start();
        let node = Node::start("a");
        node.inside.idle_ms.store(2, Ordering::SeqCst);
        let mut route = route(1, &[(&node, 1)]);
        route.retry = retry;
        proxy.put(&of(route));
        proxy.wait_ready(&["a"]);
        let address = proxy.address;
        let clients: Vec<_> = (0..4_u64)
            .map(|number| {
                std::thread::spawn(move || {
                    let mut client = Client::new(address);
                    let mut failures = Vec::new();
                    for round in 0..150_u64 {
                        // Around the node's limit, so that the close often crosses the next request.
                        std::thread::sleep(Duration::from_micros(1500 + (round * 7 + number * 13) % 10 * 100));
                        let answered = if round % 2 == 0 { client.post("/upload", b"12345") } else { client.get("/name") };
                        match answered {
                            Ok(answer) if answer.status == 200 => {}
                            other => failures.push(format!("{round}: {other:?}")),
                        }
                    }
                    failures
                })
            })
            .collect();
        let failures: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert_eq!(failures, Vec::<String>::new(), "retry: {retry}");
        assert_eq!(totals(&proxy.record()).failed, 0);
    }
}
