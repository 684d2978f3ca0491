//! Which nodes are used, and what happens while none is.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, of, route, snapshot, totals};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn a_request_is_held_until_a_node_is_ready() {
    let proxy = Proxy::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let placeholder = Node::start("a");
    let mut route = route(1, &[(&placeholder, 1)]);
    route.members.get_mut("a").unwrap().address = address;
    route.hold_ms = 5000;
    proxy.put(&of(route));
    eventually("the node is known to refuse", || {
        proxy.node_status("a").is_some_and(|status| status.failure.as_deref() == Some("connection refused"))
    });
    let status = proxy.node_status("a").unwrap();
    assert_eq!((status.ready, status.failures_after_answer), (false, 0));
    let proxy_address = proxy.address;
    let held = std::thread::spawn(move || (Client::new(proxy_address).post("/upload", b"hello").unwrap(), Instant::now()));
    std::thread::sleep(Duration::from_millis(300));
    let late = Node::start_at("a", address);
    let booted = Instant::now();
    let (answer, answered) = held.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found = answered - booted;
    assert!(found < Duration::from_millis(400), "a booted node is found within a check of 20 ms, not {found:?}");
    assert_eq!(late.begun(), 1);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.held, counted.retried, counted.failed), (1, 1, 0, 0));
}

#[test]
fn when_the_hold_is_over_the_answer_is_503() {
    let proxy = Proxy::start();
    let (dead, healthy) = (Node::start("dead"), Node::start("healthy"));
    dead.inside.health.store(500, Ordering::SeqCst);
    let mut waits = route(1, &[(&dead, 1)]);
    waits.hold_ms = 200;
    proxy.put(&of(waits));
    eventually("the checks failed", || proxy.node_status("dead").is_some_and(|status| status.failures >= 2));
    let status = proxy.node_status("dead").unwrap();
    assert_eq!(status.failure.as_deref(), Some("status 500"));
    assert!(!status.ready && status.failures_after_answer >= 2);
    let begun = Instant::now();
    let answer = Client::new(proxy.address).get("/name").unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("no-ready-node: "), "{}", answer.text());
    // Without a hold it comes at once.
    proxy.put(&snapshot(2, &[(&dead, 1), (&healthy, 0)]));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().status, 503);
    let counted = totals(&proxy.record());
    assert_eq!((counted.failed, counted.held, dead.begun()), (2, 1, 0));
    assert_eq!(counted.by_cause.get("no-ready-node"), Some(&2));
}

#[test]
fn a_node_that_fails_its_checks_gets_nothing_and_comes_back() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let load = Load::start(proxy.address, 4);
    eventually("both are used", || a.begun() > 20 && b.begun() > 20);
    a.inside.health.store(500, Ordering::SeqCst);
    eventually("it is taken out", || !proxy.node_status("a").unwrap().ready);
    eventually("its requests end", || proxy.node_status("a").unwrap().requests_in_flight == 0);
    let before = a.begun();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(a.begun(), before);
    a.inside.health.store(200, Ordering::SeqCst);
    eventually("it is used again", || a.begun() > before + 20);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.retried, counted.held), (seen.requests, 0, 0, 0));
}

#[test]
fn a_node_at_weight_0_is_checked_and_keeps_its_count_at_the_shift() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    proxy.put(&snapshot(1, &[(&old, 1)]));
    proxy.wait_ready(&["old"]);
    let load = Load::start(proxy.address, 4);
    proxy.put(&snapshot(2, &[(&old, 1), (&new, 0)]));
    eventually("five checks passed", || proxy.node_status("new").unwrap().passes >= 5);
    let before = proxy.node_status("new").unwrap();
    assert!(!before.ready, "no weight, no traffic");
    assert_eq!(new.begun(), 0);
    proxy.put(&snapshot(3, &[(&old, 0), (&new, 1)]));
    let after = proxy.node_status("new").unwrap();
    assert!(after.passes >= before.passes && after.ready, "{after:?}");
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    let counted = totals(&proxy.record());
    assert_eq!((counted.failed, counted.retried, counted.held), (0, 0, 0));
    assert!(proxy.node_status("old").unwrap().passes > 0, "weight 0 is still checked");
}

#[test]
fn a_node_on_trial_is_checked_sooner_until_it_has_its_passes_and_one_that_serves_is_not() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    let mut route = route(1, &[(&old, 1), (&new, 0)]);
    for member in route.members.values_mut() {
        // Longer than anything is waited for here: a second check comes after a tenth of it, or not at all.
        (member.check.interval_ms, member.check.passes) = (20_000, 2);
    }
    proxy.put(&of(route));
    proxy.wait_ready(&["old", "new"]);
    let load = Load::start(proxy.address, 2);
    eventually("the new node has its passes", || proxy.node_status("new").is_some_and(|status| status.passes == 2));
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    let checks = |node: &Node| node.inside.checks.load(Ordering::SeqCst);
    assert_eq!((checks(&old), checks(&new)), (1, 2));
}

#[test]
fn failures_are_told_in_words() {
    let proxy = Proxy::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (closing, silent_node) = (Node::start("closing"), Node::start("silent"));
    let mut route = route(1, &[(&closing, 0), (&silent_node, 0)]);
    let member = route.members.get_mut("silent").unwrap();
    member.address = silent.local_addr().unwrap();
    member.check.timeout_ms = 100;
    route.members.get_mut("closing").unwrap().check.path = "/close".to_string();
    proxy.put(&of(route));
    let failure = |node: &str| proxy.node_status(node).and_then(|status| status.failure);
    eventually("both failed", || failure("silent").is_some() && failure("closing").is_some());
    assert_eq!(failure("silent").unwrap(), "no answer within 100ms");
    assert_eq!(failure("closing").unwrap(), "connection closed before the answer");
    assert_eq!(proxy.node_status("silent").unwrap().failures_after_answer, 0);
}

#[test]
fn nodes_that_are_only_late_serve_when_nobody_else_does() {
    let proxy = Proxy::start();
    let (late, prompt) = (Node::start("late"), Node::start("prompt"));
    let mut route = route(1, &[(&late, 1)]);
    let check = &mut route.members.get_mut("late").unwrap().check;
    (check.path, check.timeout_ms) = ("/slow?ms=400".to_string(), 40);
    proxy.put(&of(route.clone()));
    eventually("its checks are late", || proxy.node_status("late").is_some_and(|status| status.failures >= 2));
    let status = proxy.node_status("late").unwrap();
    assert_eq!((status.ready, status.failure.as_deref()), (false, Some("no answer within 40ms")));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "late");
    route.generation = 2;
    route.members.extend(snapshot(2, &[(&prompt, 1)]).services.remove("hello/web").unwrap().members);
    proxy.put(&of(route));
    proxy.wait_ready(&["prompt"]);
    let load = Load::start(proxy.address, 2);
    eventually("the prompt one serves", || prompt.begun() > 50);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert_eq!(prompt.begun(), seen.requests, "everything goes to the one that answers its checks in time");
}
