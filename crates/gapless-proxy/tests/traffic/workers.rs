//! Workers come and go on the same sockets.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, is_alive, program, signal, snapshot, totals};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_killed_worker_is_replaced_on_the_same_sockets_from_the_disk() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(7, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let clients = 8;
    let load = Load::start(proxy.address, clients);
    let mut kills = 0;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        let killed = proxy.worker_pid();
        // Stopped first, so that connections wait in the queue of the very sockets: these must be served by the next worker.
        signal(killed, Signal::STOP);
        eventually("all its threads stand still", || is_stopped(killed));
        let address = proxy.address;
        let waiting: Vec<_> =
            (0..20).map(|_| std::thread::spawn(move || Client::new(address).get("/name").map(|answer| answer.status))).collect();
        std::thread::sleep(Duration::from_millis(100));
        signal(killed, Signal::KILL);
        kills += 1;
        for client in waiting {
            assert_eq!(client.join().unwrap().expect("a connection that waited is served"), 200);
        }
        eventually("another worker serves", || {
            proxy.try_status().is_some_and(|status| status.replaced == kills && status.workers.len() == 1)
        });
        assert_ne!(proxy.worker_pid(), killed);
    }
    let seen = load.stop();
    // What was in flight on the killed worker is lost: at most one request of each client, each time. None is a refused connection.
    assert!(seen.failures.len() <= clients * kills as usize, "{:?}", seen.failures);
    assert!(seen.failures.iter().all(|failure| !failure.contains("refused") && !failure.contains("status")), "{:?}", seen.failures);
    assert_eq!(proxy.status().generations[SERVICE], 7);
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
}

fn is_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks.into_iter().all(|task| std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T ")))
}

#[test]
fn a_snapshot_is_on_the_disk_before_it_is_acknowledged() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    let load = {
        proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
        proxy.wait_ready(&["a", "b"]);
        Load::start(proxy.address, 2)
    };
    for generation in 2..8 {
        let wanted = snapshot(generation, &[(if generation % 2 == 0 { &a } else { &b }, 1)]);
        let pid = proxy.worker_pid();
        assert_eq!(proxy.put(&wanted).generations[SERVICE], generation);
        signal(pid, Signal::KILL);
        let text = std::fs::read_to_string(proxy.state.join("snapshot.json")).unwrap();
        let stored: gapless_wire::route::Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(stored, wanted);
        let replaced = u32::try_from(generation - 1).unwrap();
        eventually("another worker serves", || {
            proxy.try_status().is_some_and(|status| status.replaced == replaced && status.workers.len() == 1)
        });
        assert_eq!(proxy.status().generations[SERVICE], generation);
        let answer = Client::new(proxy.address).get("/name").unwrap();
        assert_eq!(answer.text(), if generation % 2 == 0 { "a" } else { "b" });
    }
    load.stop();
}

#[test]
fn an_upgrade_under_load_loses_nothing() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(3, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 8);
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=1500").unwrap().text());
    eventually("the slow request runs", || proxy.node_status("a").unwrap().requests_in_flight > 0);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        let old = proxy.worker_pid();
        let status = proxy.upgrade().expect("the upgrade");
        assert_ne!(status.workers.last().unwrap().pid, old);
        assert!(status.workers.iter().all(|worker| worker.leaving == (worker.pid != status.workers.last().unwrap().pid)));
        assert_eq!(proxy.status().generations[SERVICE], 3);
    }
    std::thread::sleep(Duration::from_millis(100));
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert!(seen.requests > 300, "too little traffic: {}", seen.requests);
    assert_eq!(slow.join().unwrap(), "a");
    eventually("the old workers have ended", || proxy.proxy_status().workers.len() == 1);
    assert_eq!(proxy.proxy_status().replaced, 0);
    let sockets =
        std::fs::read_dir(&proxy.state).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("worker-"));
    assert_eq!(sockets.count(), 1);
}

#[test]
fn what_a_leaving_worker_acknowledges_the_newest_has() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1)]));
    proxy.wait_ready(&["a"]);
    let mut kept = Client::new(proxy.address);
    let address = proxy.address;
    kept.send(b"GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("it runs", || a.begun() == 1);
    let load = Load::start(address, 2);
    let status = proxy.upgrade().unwrap();
    let [leaving, newest] = status.workers.as_slice() else { panic!("two workers: {status:?}") };
    assert!(leaving.leaving && !newest.leaving);
    let old = Proxy::client_of(&leaving.socket);
    // Told to the leaving worker alone.
    assert_eq!(proxy.try_put(&old, &snapshot(2, &[(&b, 1)])).unwrap().generations[SERVICE], 2);
    assert_eq!(proxy.status().generations[SERVICE], 2);
    assert_eq!(Client::new(address).get("/name").unwrap().text(), "b");
    let refused = proxy.try_put(&old, &snapshot(1, &[(&a, 1)])).unwrap_err();
    assert!(refused.to_string().contains("409"), "{refused}");
    // The leaving worker's last request gets its answer, and the connection ends in order.
    let answer = kept.receive().unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("a", Some("close")));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    eventually("the leaving worker has ended", || proxy.proxy_status().workers.len() == 1);
}

#[test]
fn an_idle_connection_of_a_leaving_worker_gets_one_more_answer() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let mut idle = Client::new(proxy.address);
    assert_eq!(idle.get("/name").unwrap().header("connection"), None);
    let load = Load::start(proxy.address, 2);
    proxy.upgrade().unwrap();
    assert_eq!(proxy.proxy_status().workers.len(), 2, "the old worker waits for its idle client");
    assert_eq!(idle.get("/name").unwrap().header("connection"), Some("close"));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    eventually("then it ends", || proxy.proxy_status().workers.len() == 1);
}

#[test]
fn stopping_finishes_what_runs_and_leaves_nothing() {
    let mut proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=700").unwrap());
    let mut idle = Client::new(address);
    idle.get("/name").unwrap();
    eventually("it runs", || node.begun() == 2);
    let worker = proxy.worker_pid();
    // As a terminal or a service manager does it: to the whole group.
    signal(worker, Signal::TERM);
    signal(worker, Signal::INT);
    proxy.terminate();
    let answer = slow.join().unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("a", Some("close")));
    assert!(proxy.wait_end().success());
    assert!(!is_alive(worker));
    assert!(Client::new(address).get("/name").is_err(), "nobody listens");
    let mut left: Vec<String> =
        std::fs::read_dir(&proxy.state).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    left.sort();
    assert_eq!(left, ["proxy.lock", "snapshot.json"]);
}

#[test]
fn a_worker_without_a_holder_finishes_and_ends_and_a_new_holder_finds_the_port() {
    let mut proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(5, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=3000").unwrap().text());
    eventually("it runs", || node.begun() == 1);
    let worker = proxy.worker_pid();
    proxy.kill_holder();
    let next = Proxy::start_in(proxy.state.clone(), address);
    assert_eq!(next.status().generations[SERVICE], 5);
    assert_eq!(Client::new(address).get("/name").unwrap().text(), "a");
    let listed = |pid| next.proxy_status().workers.iter().any(|known| known.pid == pid && known.leaving);
    assert!(listed(worker), "whoever destroys nodes has to wait for the old worker too: {:?}", next.proxy_status());
    next.put(&snapshot(6, &[(&node, 1)]));
    let old = next.proxy_status().workers.into_iter().find(|known| known.pid == worker).expect("the old worker");
    let put_to_the_old = |generation| next.try_put(&Proxy::client_of(&old.socket), &snapshot(generation, &[(&node, 1)]));
    assert_eq!(put_to_the_old(7).unwrap().generations[SERVICE], 7);
    assert_eq!(next.status().generations[SERVICE], 7, "the newest had it first");
    assert!(put_to_the_old(6).is_err(), "nothing older");
    assert_eq!(slow.join().unwrap(), "a", "the old worker finished its request");
    eventually("the old worker has ended", || !is_alive(worker));
    eventually("nobody tells of it any more", || !listed(worker));
}

#[test]
fn a_damaged_snapshot_is_told_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("snapshot.json"), "{\"version\": 1, \"services\": {").unwrap();
    let proxy = Proxy::start_in(state, "127.0.0.1:0".parse().unwrap());
    let status = proxy.status();
    assert!(status.problem.as_deref().is_some_and(|problem| problem.contains("cannot be used")), "{status:?}");
    assert_eq!(Client::new(proxy.address).get("/").unwrap().status, 503, "its requests fail: they are nobody's refusal");
    assert_eq!(proxy.proxy_status().replaced, 0, "no crash loop");
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    assert_eq!(proxy.status().problem, None);
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
}

#[test]
fn one_proxy_for_each_folder_and_port() {
    let proxy = Proxy::start();
    let start = |state: &std::path::Path, listen: &str| Command::new(program()).arg(state).arg(listen).output().unwrap();
    let same_folder = start(&proxy.state, "127.0.0.1:0");
    assert!(!same_folder.status.success());
    assert!(String::from_utf8_lossy(&same_folder.stderr).contains("another proxy uses"), "{same_folder:?}");
    let other = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let same_port = start(other.path(), &proxy.address.to_string());
    assert!(!same_port.status.success());
    let told = String::from_utf8_lossy(&same_port.stderr).into_owned();
    assert!(told.contains("cannot listen on") && told.contains("hint: another program listens there"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(proxy.proxy_status().workers.len(), 1);
}

#[test]
fn a_worker_that_cannot_start_is_told_and_a_crash_loop_is_slow() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("x".repeat(120));
    let started = Command::new(program()).arg(&state).arg("127.0.0.1:0").output().unwrap();
    assert!(!started.status.success());
    assert!(String::from_utf8_lossy(&started.stderr).contains("cannot open the admin socket"), "{started:?}");

    let proxy = Proxy::start();
    let begun = Instant::now();
    let mut killed = Vec::new();
    while begun.elapsed() < Duration::from_secs(2) {
        let worker = proxy.proxy_status().workers.last().map(|worker| worker.pid);
        if let Some(pid) = worker.filter(|pid| !killed.contains(pid) && is_alive(*pid)) {
            signal(pid, Signal::KILL);
            killed.push(pid);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!((4..=12).contains(&killed.len()), "{} deaths in two seconds: the first at once, then with pauses", killed.len());
    eventually("a worker serves in the end", || {
        proxy.try_status().is_some_and(|status| status.workers.last().is_some_and(|worker| is_alive(worker.pid)))
    });
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
    assert_eq!(totals(&proxy.record()).failed, 0);
}
