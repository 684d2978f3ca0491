//! Clients that take their time, or too much: they are bounded, and cost nobody else anything.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, of, route, snapshot, totals};
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LARGE: usize = 64 * 1024 * 1024;

fn serving() -> (Proxy, Node) {
    let (proxy, node) = (Proxy::start(), Node::start("old"));
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["old"]);
    (proxy, node)
}

#[test]
fn a_request_whose_client_does_not_read_is_cut_at_the_deadline_and_counted() {
    let (proxy, _old) = serving();
    let new = Node::start("new");
    let mut stalled: Vec<Client> = (0..3).map(|_| Client::new(proxy.address)).collect();
    for (client, version) in stalled.iter_mut().zip(["1.1", "1.1", "1.0"]) {
        client.send(format!("GET /bytes?n={LARGE} HTTP/{version}\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        // The answer has begun; nothing more is read of it.
        client.stream().unwrap().read_exact(&mut [0; 100]).unwrap();
    }
    let load = Load::start(proxy.address, 2);
    // Long enough for every buffer on the way to be full.
    std::thread::sleep(Duration::from_millis(500));
    proxy.put(&snapshot(2, &[(&new, 1)]));
    proxy.wait_ready(&["new"]);
    eventually("of the load, none is on the old node any more", || proxy.node_status("old").unwrap().requests_in_flight == 3);
    proxy.drain("old", 200);
    let begun = Instant::now();
    eventually("the old node has no request in flight", || proxy.node_status("old").is_none());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for client in &mut stalled {
        let mut rest = Vec::new();
        let read = client.stream().unwrap().read_to_end(&mut rest);
        assert!(read.is_err() || rest.len() < LARGE, "a cut answer came whole");
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
    let record = proxy.record();
    let counted = totals(&record);
    assert_eq!((counted.cut, counted.failed, record.client_gone), (3, 0, 0), "{counted:?}");
}

#[test]
fn a_small_upload_that_does_not_go_on_is_given_up() {
    let (proxy, old) = serving();
    let mut slow = Client::new(proxy.address);
    slow.send(b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin").unwrap();
    let load = Load::start(proxy.address, 2);
    let begun = Instant::now();
    let answer = slow.receive().expect("an answer in order");
    assert!((Duration::from_secs(5)..Duration::from_secs(15)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert_eq!(old.begun(), seen.requests, "no node saw anything of it");
    let record = proxy.record();
    assert_eq!((record.client_gone, totals(&record).failed), (1, 0));
}

#[test]
fn a_request_that_is_held_when_the_proxy_stops_is_cut_in_order() {
    let mut proxy = Proxy::start();
    let mut empty = route(1, &[]);
    empty.hold_ms = 60_000;
    proxy.put(&of(empty));
    let mut held = Client::new(proxy.address);
    held.stream().unwrap().get_mut().set_read_timeout(Some(Duration::from_secs(45))).unwrap();
    held.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    proxy.terminate();
    let answer = held.receive().expect("an answer, not a closed connection");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.text().starts_with("cut: "), "{}", answer.text());
    assert!(proxy.wait_end().success());
}

#[test]
fn more_clients_than_descriptors_wait_until_there_is_room() {
    let (proxy, _node) = serving();
    let limit = rustix::process::Rlimit { current: Some(220), maximum: Some(220) };
    let holder = rustix::process::Pid::from_raw(i32::try_from(proxy.proxy_status().holder).unwrap()).unwrap();
    rustix::process::prlimit(Some(holder), rustix::process::Resource::Nofile, limit).expect("the holder's limit");
    proxy.upgrade().expect("a worker with few descriptors");
    eventually("it is alone", || proxy.proxy_status().workers.len() == 1);
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(proxy.address).expect("the kernel takes it")).collect();
    let address = proxy.address;
    let waiting = std::thread::spawn(move || Client::new(address).get("/name").map(|answer| answer.status));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!waiting.is_finished(), "more clients than there are descriptors for");
    // The admin socket still answers, and checks still pass: descriptors are left for these.
    assert!(proxy.node_status("old").unwrap().ready);
    drop(idle);
    assert_eq!(waiting.join().unwrap().expect("served once there is room"), 200);
    assert_eq!(totals(&proxy.record()).failed, 0);
}
