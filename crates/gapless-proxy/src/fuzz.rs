//! What the fuzzer calls: each parser of ours, and the whole way of a request beside a node that says what it likes. See `fuzz/README.md`.

use crate::balancer;
use crate::buffer::Inlet;
use crate::cookie;
use crate::core::{self, Core, Shared};
use crate::fields::Fields;
use crate::http1;
use crate::http1::body::{BodyReader, Piece};
use crate::http1::head::{EndOfHead, Framing, answer_framing, parse_answer, parse_request, parse_trailers, request_framing};
use crate::request::{Client, Inbound};
use gapless_wire::route::{Check, Member, SNAPSHOT_VERSION, ServiceRoute, Snapshot};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The limit of one exchange: nothing in it waits for longer by itself.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);

/// A request's head: what is taken is passed on as one request with the same method and target, and without a line that the client did not have.
pub fn request_head(bytes: &[u8]) {
    let Ok(Some(length)) = EndOfHead::default().find(bytes) else { return };
    let mut inbound = Inbound::default();
    if inbound.read(&bytes[..length], 128, || 7).is_err() {
        return;
    }
    let mut written = Vec::new();
    inbound.write_head(&mut written, &Client::new(Ipv4Addr::LOCALHOST.into()));
    let (mut before, mut after) = (Fields::default(), Fields::default());
    parse_request(&bytes[..length], &mut before).expect("it was read");
    let line = parse_request(&written, &mut after).expect("what is passed on is a request");
    assert_eq!(EndOfHead::default().find(&written), Ok(Some(written.len())), "one head, and nothing behind it");
    assert_eq!(&written[line.method], inbound.method.as_str().as_bytes());
    assert_eq!(&written[line.target], inbound.target());
    assert!(after.len() <= before.len() + 8);
    assert_eq!(request_framing(&after, 1).expect("it says how long it is"), inbound.framing);
}

/// An answer's head, and trailers.
pub fn answer_head(bytes: &[u8]) {
    let mut fields = Fields::default();
    if let Ok((line, _)) = parse_answer(bytes, &mut fields) {
        // Whether it is taken or not, it is judged.
        let _ = answer_framing(&fields, line, false);
        let _ = fields.passed_on().count();
    }
    let _ = parse_trailers(bytes, &mut fields);
}

/// A body: what comes out does not depend on how its bytes were torn. The first byte says how.
pub fn body(bytes: &[u8]) {
    let Some((torn, bytes)) = bytes.split_first() else { return };
    let framing = if torn & 1 == 0 { Framing::Chunked } else { Framing::Length(u64::from(*torn)) };
    let whole = taken(framing, bytes, bytes.len().max(1));
    assert_eq!(whole, taken(framing, bytes, usize::from(*torn >> 1).max(1)));
}

/// What was taken of a body, and whether it ended, broke or waits for more.
fn taken(framing: Framing, bytes: &[u8], part: usize) -> (Vec<u8>, &'static str) {
    let (mut reader, mut inlet, mut rest, mut whole) = (BodyReader::new(framing), Inlet::default(), bytes, Vec::new());
    loop {
        match reader.piece(&mut inlet) {
            Ok(Piece::Data(count)) => {
                whole.extend_from_slice(&inlet.data()[..count]);
                reader.consume(&mut inlet, count);
            }
            Ok(Piece::End) => return (whole, "ended"),
            Err(_) => return (whole, "broken"),
            Ok(Piece::More) if rest.is_empty() => return (whole, "waits"),
            Ok(Piece::More) => {
                let (now, later) = rest.split_at(part.min(rest.len()));
                inlet.push(now);
                rest = later;
            }
        }
    }
}

/// What a balancer says, and a cookie.
pub fn small(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut rest = bytes;
    let _ = runtime.block_on(balancer::read(&mut rest));
    let mut fields = Fields::default();
    fields.push(b"cookie", bytes);
    let _ = cookie::value(&fields, "gapless").and_then(cookie::place);
}

/// A client that says the first part, and a node that says the second to everybody who asks: the connection ends, and nothing is left in flight.
pub fn exchange(bytes: &[u8]) {
    let Some((at, bytes)) = bytes.split_first() else { return };
    let (client, node) = bytes.split_at(usize::from(*at).min(bytes.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let ended = tokio::time::timeout(EXCHANGE_LIMIT, carry(client, node.to_vec())).await;
        assert!(ended.is_ok(), "an exchange hangs");
    });
}

async fn carry(said: &[u8], answer: Vec<u8>) {
    let (front, nodes) = (TcpListener::bind("127.0.0.1:0").await.expect("a port"), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let core = core_with(nodes.local_addr().expect("an address"));
    let speaking = tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = nodes.accept().await {
            let mut heard = [0; 4096];
            // A node that hears nothing says nothing.
            if stream.read(&mut heard).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(&answer).await;
            }
        }
    });
    let mut client = TcpStream::connect(front.local_addr().expect("an address")).await.expect("a connection");
    let (stream, peer) = front.accept().await.expect("the client");
    let serving = core.clone();
    let served = tokio::task::spawn_local(async move {
        let stream = serving.streams.of_client(stream);
        http1::client::serve(&serving, &stream, Client::new(peer.ip())).await;
    });
    let _ = client.write_all(said).await;
    let _ = client.shutdown().await;
    let _ = client.read_to_end(&mut Vec::new()).await;
    drop(client);
    served.await.expect("it does not panic");
    speaking.abort();
    let nodes = core.shared.routes.status();
    assert!(nodes.values().flat_map(|nodes| nodes.values()).all(|node| node.requests_in_flight == 0), "a claim is left");
}

fn core_with(address: std::net::SocketAddr) -> Rc<Core> {
    let shared = Arc::new(Shared::new(100, std::path::Path::new("/nonexistent")));
    let check = Check { path: "/".into(), interval_ms: 1000, timeout_ms: 1000, passes: 1, failures: 1 };
    let member = Member { address, weight: 1, release: "web-r1".into(), check };
    let members = BTreeMap::from([("a".to_string(), member)]);
    let route = ServiceRoute { generation: 1, host: "*".into(), members, retry: true, hold_ms: 0 };
    let snapshot = Snapshot { version: SNAPSHOT_VERSION, services: BTreeMap::from([("hello/web".to_string(), route)]) };
    shared.routes.apply(snapshot).expect("a snapshot");
    core::alone(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Dice;

    /// How many inputs a parser gets here, where nobody looks which of them led to new code.
    const INPUTS: usize = 20_000;
    /// The same for a whole exchange, which takes some hundred microseconds.
    const EXCHANGES: usize = 600;

    const REQUESTS: &[&[u8]] = &[
        b"GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n",
        b"POST http://b.example/x HTTP/1.1\r\nHost: b.example\r\nContent-Length: 5\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=\"[::1]\"\r\n\r\nhello",
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;a=b\r\nhello\r\n0\r\nDigest: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nCookie: gapless=a.web-r1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ];
    const ANSWERS: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Gapless-Node: me\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
    ];
    const PIECES: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"\0",
        b"\t",
        b",",
        b";",
        b"\"",
        b"\\",
        b"0",
        b"ffffffffffffffff",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: c\r\n",
        b"HTTP/1.1 ",
        b"chunked",
        b"\xff",
        b"-",
    ];

    /// A seed with some of it changed.
    fn changed(dice: &mut Dice, seeds: &[&[u8]]) -> Vec<u8> {
        let mut below = |limit: usize| usize::try_from(dice.draw() % limit.max(1) as u64).unwrap();
        let mut bytes = seeds[below(seeds.len())].to_vec();
        for _ in 0..below(6) {
            let at = below(bytes.len() + 1);
            match below(4) {
                0 => drop(bytes.splice(at..at, PIECES[below(PIECES.len())].iter().copied())),
                1 => drop(bytes.drain(at..(at + below(8)).min(bytes.len()))),
                2 if at < bytes.len() => bytes[at] = u8::try_from(below(256)).unwrap(),
                _ => {
                    let again = bytes[at..(at + below(40)).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, again));
                }
            }
        }
        bytes
    }

    #[test]
    fn generated_heads_bodies_and_greetings_hold_what_they_promise() {
        let mut dice = Dice::new(11);
        for _ in 0..INPUTS {
            request_head(&changed(&mut dice, REQUESTS));
            answer_head(&changed(&mut dice, ANSWERS));
            let torn = u8::try_from(dice.draw() % 256).unwrap();
            let chunks: &[&[u8]] =
                &[b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nDigest: x\r\n\r\nnext", b"0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"];
            body(&[&[torn], changed(&mut dice, chunks).as_slice()].concat());
            small(&changed(
                &mut dice,
                &[b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c0123456789ab", b"a=1; gapless=a.web-r1"],
            ));
        }
    }

    #[test]
    fn generated_exchanges_end_and_leave_nothing_in_flight() {
        let mut dice = Dice::new(12);
        for _ in 0..EXCHANGES {
            let client = changed(&mut dice, REQUESTS);
            let at = u8::try_from(client.len().min(255)).unwrap();
            exchange(&[&[at], &client[..usize::from(at)], changed(&mut dice, ANSWERS).as_slice()].concat());
        }
    }
}
