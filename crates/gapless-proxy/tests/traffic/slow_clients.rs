//! Clients that take their time, many at once: they cost a bounded memory, and nobody else anything.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::{Node, checksum};
use crate::support::proxy::{Proxy, member, of, resident_kib, route, totals};
use crate::support::script::{Scripted, Then};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SLOW_HEADS: usize = 200;
const SLOW_READERS: usize = 50;
const SLOW_BODIES: usize = 50;
/// How often each of them sends a byte.
const PAUSE: Duration = Duration::from_secs(1);
/// How many bytes each of them sends so.
const BYTES: usize = 4;
/// As much as a download and an upload of any size may take together.
const RESIDENT_LIMIT_KIB: u64 = 48 * 1024;
/// An answer that no socket's buffers hold.
const LARGE: usize = 16 * 1024 * 1024;

/// A node for the healthy and for slow bodies; for `large.test` one whose answer is large.
fn serving() -> (Proxy, Node, Scripted) {
    let (proxy, node, large) = (Proxy::start(), Node::start("a"), Scripted::start());
    large.script(
        "/large",
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes(), vec![b'x'; LARGE]].concat(),
        Then::Stays,
    );
    let mut both = of(route(1, &[(&node, 1)]));
    let mut other = route(1, &[]);
    other.host = "large.test".to_string();
    other.members.insert("large".to_string(), member(large.address, 1, "web-r1"));
    both.services.insert("large/web".to_string(), other);
    proxy.put(&both);
    eventually("both pass", || proxy.status().nodes.values().flat_map(|nodes| nodes.values()).all(|node| node.passes > 0));
    (proxy, node, large)
}

/// Connections that have sent this much.
fn begin(proxy: &Proxy, count: usize, sent: &[u8]) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address).expect("a connection");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            stream.write_all(sent).expect("the proxy reads");
            stream
        })
        .collect()
}

/// The rest of each, a byte at a time.
fn trickle(slow: &mut [(Vec<TcpStream>, &[u8])]) {
    for at in 0..BYTES {
        let next = Instant::now() + PAUSE;
        for (streams, bytes) in &mut *slow {
            for stream in streams {
                stream.write_all(&bytes[at..=at]).expect("who is slow is not sent away before the limit");
            }
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn many_slow_clients_cost_nobody_anything() {
    let (proxy, _node, large) = serving();
    let pid = proxy.worker_pid();
    let load = Load::start(proxy.address, 4);
    let heads = begin(&proxy, SLOW_HEADS, b"GET /name HTTP/1.1\r\nHost: a\r\nX: ");
    let bodies = begin(&proxy, SLOW_BODIES, b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    let readers = begin(&proxy, SLOW_READERS, b"GET /large HTTP/1.1\r\nHost: large.test\r\n\r\n");
    eventually("every large answer has begun", || large.heard().len() == SLOW_READERS);
    eventually("every slow body is on its way", || proxy.node_status("a").unwrap().requests_in_flight as usize >= SLOW_BODIES);
    let mut slow = [(heads, b"slow".as_slice()), (bodies, b"slow")];
    trickle(&mut slow);
    let resident = resident_kib(pid);
    assert!(resident < RESIDENT_LIMIT_KIB, "{resident} KiB resident");
    let [(heads, _), (bodies, _)] = slow;
    let slow_ones = [(heads, b"\r\n\r\n".as_slice(), "a".to_string()), (bodies, b"!", format!("a 5 {}", checksum(b"slow!")))];
    for (streams, end, told) in slow_ones {
        for mut stream in streams {
            stream.write_all(end).unwrap();
            let answer = Client::of(proxy.address, stream).receive().expect("an answer in the end");
            assert_eq!((answer.status, answer.text()), (200, told.clone()));
        }
    }
    drop(readers);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert!(seen.requests > 100, "{} requests beside the slow ones", seen.requests);
    eventually("the readers are seen to be gone", || proxy.record().client_gone == SLOW_READERS as u64);
    assert_eq!(totals(&proxy.record()).failed, 0);
}
