//! Clients that take their time, or too much: they are bounded, and cost nobody else anything.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, snapshot, totals};
use std::io::Read;
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
    assert_eq!(proxy.node_status("old").unwrap().requests_in_flight, 3);
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
