//! Draining: idle connections close at once, the rest ends by itself or is cut at the deadline, and counts come back to zero in every path.

use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, snapshot, totals};
use crate::support::{PATIENCE, eventually};
use std::io::{BufRead, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn in_flight(proxy: &Proxy, node: &str) -> u32 {
    proxy.node_status(node).map_or(0, |status| status.requests_in_flight)
}

#[test]
fn what_still_runs_at_the_deadline_is_cut_and_counted() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    proxy.put(&snapshot(1, &[(&old, 1)]));
    proxy.wait_ready(&["old"]);
    let mut waiting = Client::new(proxy.address);
    waiting.send(b"GET /slow?ms=5000 HTTP/1.1\r\nHost: web.test\r\n\r\n").unwrap();
    let mut streaming = Client::new(proxy.address);
    streaming.send(b"GET /stream?n=500&ms=10 HTTP/1.1\r\nHost: web.test\r\n\r\n").unwrap();
    let mut until_close = Client::new(proxy.address);
    until_close.send(b"GET /echo HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(until_close.receive().unwrap().status, 101);
    eventually("all three run on the old node", || old.begun() == 3);
    let load = Load::start(proxy.address, 4);
    proxy.put(&snapshot(2, &[(&new, 1)]));
    proxy.wait_ready(&["new"]);
    let before_cut = load.stop();
    let load = Load::start(proxy.address, 4);
    let begun = Instant::now();
    proxy.drain("old", 300);
    proxy.drain("old", 60_000); // The first deadline stays.
    let answer = waiting.receive().expect("an answer in order");
    assert!(begun.elapsed() >= Duration::from_millis(290), "cut before its deadline: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "cut too late: {:?}", begun.elapsed());
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{}", answer.text());
    assert!(answer.text().contains("drain deadline"), "{}", answer.text());
    let cut = streaming.receive().expect_err("a cut stream must not end politely");
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(until_close.stream().unwrap().read(&mut [0; 8]).expect("a close in order"), 0);
    eventually("the old node is forgotten", || proxy.node_status("old").is_none());
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    // Requests of the first load could reach the old node before the swap: they are whole.
    assert_eq!(before_cut.failures, Vec::<String>::new());
    let counted = totals(&proxy.record());
    assert_eq!((counted.cut, counted.failed), (3, 0), "{counted:?}");
    assert_eq!(counted.requests, seen.requests + before_cut.requests + 3);
}

#[test]
fn idle_connections_are_closed_before_the_drain_is_acknowledged() {
    let proxy = Proxy::start();
    let old = Node::start("old");
    proxy.put(&snapshot(1, &[(&old, 1)]));
    proxy.wait_ready(&["old"]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = proxy.address;
            std::thread::spawn(move || Client::new(address).get("/slow?ms=100").unwrap().status)
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    eventually("idle connections wait", || proxy.node_status("old").unwrap().idle_connections >= 6);
    proxy.drain("old", 1000);
    assert_eq!(proxy.node_status("old").unwrap().idle_connections, 0);
    // A node that is not named any more loses them without a drain.
    let (left, new) = (Node::start("left"), Node::start("new"));
    proxy.put(&snapshot(2, &[(&left, 1)]));
    proxy.wait_ready(&["left"]);
    let connections = left.inside.connections.load(Ordering::SeqCst);
    Client::new(proxy.address).get("/name").unwrap();
    assert!(left.inside.connections.load(Ordering::SeqCst) > connections);
    proxy.put(&snapshot(3, &[(&new, 1)]));
    eventually("the node sees its connections close", || proxy.status().nodes["hello/web"].keys().all(|name| name != "left"));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "new");
}

#[test]
fn the_wait_for_an_old_nodes_last_request_is_woken() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    proxy.put(&snapshot(1, &[(&old, 1)]));
    proxy.wait_ready(&["old"]);
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=700").unwrap().text());
    eventually("it runs", || old.begun() == 1);
    proxy.put(&snapshot(2, &[(&new, 1)]));
    let until = Instant::now() + PATIENCE;
    let mut revision = 0;
    loop {
        assert!(Instant::now() < until, "never woken for the end of the last request");
        let status = proxy.status_after(revision, 10_000);
        revision = status.revision;
        if !status.nodes["hello/web"].contains_key("old") {
            break;
        }
    }
    assert_eq!(slow.join().unwrap(), "old");
    // Nothing changes now but the counts of passes, and these stop being news: the wait lasts.
    eventually("the checks are no news any more", || {
        let begun = Instant::now();
        let revision = proxy.status().revision;
        proxy.status_after(revision, 300).revision == revision && begun.elapsed() >= Duration::from_millis(300)
    });
}

#[test]
fn counts_come_back_to_zero_in_every_path() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 2);
    // The client goes away before the head, inside the body, and inside its own upload: before the node has it, and while it is passed on.
    let sent = |request: &str| {
        let mut client = Client::new(proxy.address);
        client.send(request.as_bytes()).unwrap();
        client
    };
    let mut waiting = sent("GET /slow?ms=3000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut inside = sent("GET /stream?n=600&ms=5 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut small = sent("PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin");
    let mut large = sent("POST /upload?large=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin");
    eventually("the node has the requests", || node.asked("/slow?ms=3000") == 1 && node.asked("/upload?large=1") == 1);
    assert!(!inside.stream().unwrap().fill_buf().unwrap().is_empty(), "the answer has begun");
    [&mut waiting, &mut inside, &mut small, &mut large].into_iter().for_each(Client::close);
    // The node breaks off: before the head, inside a body of known length, inside chunks, and with something that is no HTTP.
    let mut statuses = Vec::new();
    for path in ["/close", "/truncated-length", "/truncated-chunks?n=3", "/garbage"] {
        let answered = Client::new(proxy.address).post(path, b"x");
        statuses.push(answered.map(|answer| answer.status).ok());
    }
    assert_eq!(statuses, [Some(502), None, None, Some(502)]);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    eventually("the count is zero", || in_flight(&proxy, "a") == 0);
    let record = proxy.record();
    let counted = totals(&record);
    assert_eq!(record.client_gone, 4, "{counted:?}");
    let of_release = record.slices.iter().filter(|slice| slice.release == "web-r1");
    assert_eq!(
        of_release.clone().map(|slice| slice.unanswered).sum::<u64>(),
        1,
        "one client did not wait for the answer; one left within it, two within their own upload"
    );
    let answered = of_release.clone().flat_map(|slice| &slice.answered).map(|(_, count)| count).sum::<u64>();
    let silent = of_release.map(|slice| slice.asked).sum::<u64>() - answered;
    assert_eq!(silent, 2 + 2, "two clients left before an answer began, and two answers never began: what broke off had begun");
    assert_eq!(counted.requests, seen.requests + 4);
    let causes: Vec<(&str, u64)> = counted.by_cause.iter().map(|(cause, times)| (cause.as_str(), *times)).collect();
    assert_eq!(causes, [("bad-answer", 1), ("node-closed", 1), ("truncated", 2)]);
    eventually("the node's own requests end too", || {
        node.inside.ended.load(Ordering::SeqCst) + node.inside.broken.load(Ordering::SeqCst) == node.begun()
    });
}

#[test]
fn a_drained_node_that_gets_weight_again_is_used_again() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1)]));
    proxy.wait_ready(&["a"]);
    proxy.put(&snapshot(2, &[(&b, 1), (&a, 0)]));
    proxy.drain("a", 1);
    proxy.put(&snapshot(3, &[(&a, 1)]));
    std::thread::sleep(Duration::from_millis(50));
    let mut client = Client::new(proxy.address);
    assert_eq!(client.get("/slow?ms=100").unwrap().text(), "a");
    client.stream().unwrap().get_mut().write_all(b"GET /name HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(client.receive().unwrap().text(), "a");
    assert_eq!(totals(&proxy.record()).cut, 0);
}

#[test]
fn a_check_that_runs_comes_to_its_end_before_the_drain_is_acknowledged() {
    let proxy = Proxy::start();
    let (old, new) = (Node::start("old"), Node::start("new"));
    old.inside.check_ms.store(300, Ordering::SeqCst);
    let checks = || (old.inside.checks.load(Ordering::SeqCst), old.inside.checks_answered.load(Ordering::SeqCst));
    proxy.put(&snapshot(1, &[(&new, 1)]));
    proxy.wait_ready(&["new"]);
    let load = Load::start(proxy.address, 2);
    for generation in 1..4 {
        proxy.put(&snapshot(2 * generation, &[(&old, 0), (&new, 1)]));
        eventually("a check of the old node runs", || checks().0 > checks().1);
        proxy.put(&snapshot(2 * generation + 1, &[(&new, 1)]));
        proxy.drain("old", 60_000);
        let (begun, answered) = checks();
        assert_eq!(begun, answered, "the drain was acknowledged while a check ran");
    }
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
}
