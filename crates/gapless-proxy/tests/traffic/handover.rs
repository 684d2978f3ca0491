//! The holder goes on as a newer program, and sockets come from a service manager: nobody notices.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, is_alive, program, signal, snapshot, totals};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

fn serving() -> (Proxy, Node) {
    let (proxy, node) = (Proxy::start(), Node::start("a"));
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

fn hand_on(proxy: &Proxy, times: u32) {
    proxy.hand_on().expect("the order is taken");
    eventually("the holder is a new one", || proxy.try_status().is_some_and(|status| status.handed_on == times));
}

#[test]
fn a_holder_goes_on_as_a_new_program_under_load_and_supervises_as_before() {
    let (mut proxy, _node) = serving();
    let load = Load::start(proxy.address, 4);
    let holder = proxy.proxy_status().holder;
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=2500").map(|answer| answer.status));
    for times in 1..=5 {
        hand_on(&proxy, times);
        assert_eq!(proxy.proxy_status().holder, holder, "the process is the same");
        assert_eq!(proxy.proxy_status().listening, [address]);
    }
    // The serving worker was made by the holder before: it is replaced, obeys, and is told apart from one that leaves.
    let worker = proxy.worker_pid();
    signal(worker, Signal::KILL);
    eventually("it is replaced", || proxy.try_status().is_some_and(|status| status.replaced == 1 && proxy.worker_pid() != worker));
    hand_on(&proxy, 6);
    assert_eq!(proxy.proxy_status().replaced, 1);
    proxy.settings(serde_json::json!({ "clients": { "head_bytes": 4096 } }));
    proxy.upgrade().expect("a new worker");
    assert_eq!(slow.join().unwrap().expect("whole"), 200);
    let seen = load.stop();
    // The requests of the killed worker are the only ones that may have failed.
    assert!(seen.failures.len() <= 4, "{:?}", seen.failures);
    eventually("all older workers have ended", || proxy.proxy_status().workers.len() == 1);
    let last = proxy.worker_pid();
    proxy.terminate();
    assert!(proxy.wait_end().success());
    eventually("it took its worker with it", || !is_alive(last));
}

#[test]
fn a_program_that_cannot_serve_is_no_holder_either() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("proxy");
    std::fs::copy(program(), &copy).unwrap();
    let mut proxy = Proxy::start_program(&copy, folder.path().join("state"), "127.0.0.1:0".parse().unwrap());
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 2);
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let refused = proxy.hand_on().expect_err("a worker of it cannot serve").to_string();
    assert!(refused.contains("goes on as it was"), "{refused}");
    std::fs::remove_file(&copy).unwrap();
    std::fs::copy(program(), &copy).unwrap();
    hand_on(&proxy, 1);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(totals(&proxy.record()).failed, 0);
    proxy.terminate();
    assert!(proxy.wait_end().success());
}

#[test]
fn sockets_of_a_service_manager_are_listened_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, descriptor) = (listener.local_addr().unwrap(), listener.as_raw_fd());
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    // Whoever is passed sockets finds its own number beside them, which only the process itself can write.
    let mut command = Command::new("/bin/bash");
    let script = format!("exec 3<&{descriptor}; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$1\" 127.0.0.1:1");
    command.args(["-c", &script]).arg(program()).arg(&state);
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("a descriptor that is passed on");
    let mut proxy = Proxy::start_command(command, state, address);
    assert_eq!(proxy.proxy_status().listening, [address], "and on nothing else");
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(address, 4);
    hand_on(&proxy, 1);
    proxy.upgrade().expect("a new worker");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    proxy.terminate();
    assert!(proxy.wait_end().success());
}
