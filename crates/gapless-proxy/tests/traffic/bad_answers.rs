//! Answers of a node that are none, or that two programs could read differently. Whatever comes of one, no byte of it is taken for the answer of another request, and the record counts it.

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Proxy, SERVICE, Totals, member, of, route, totals};
use crate::support::script::{Scripted, Then};
use gapless_wire::record::cause;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a bad answer may take to be known as one.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What the client gets.
#[derive(Clone, Copy)]
enum Gets {
    /// 502, with this cause.
    Gateway(&'static str),
    /// An answer that is not whole, and is seen to be that.
    Broken,
    /// This status, and this body.
    Whole(u16, &'static str),
}

struct Case {
    name: &'static str,
    says: Vec<u8>,
    then: Then,
    gets: Gets,
}

fn case(name: &'static str, gets: Gets, then: Then, says: impl Into<Vec<u8>>) -> Case {
    Case { name, says: says.into(), then, gets }
}

fn bad(name: &'static str, says: impl Into<Vec<u8>>) -> Case {
    case(name, Gets::Gateway(cause::BAD_ANSWER), Then::Stays, says)
}

/// A head with this line in it, and a body that would do.
fn bad_field(name: &'static str, line: &[u8]) -> Case {
    bad(name, [b"HTTP/1.1 200 OK\r\n", line, b"\r\n\r\nevil"].concat())
}

fn broken(name: &'static str, then: Then, body: &[u8]) -> Case {
    case(name, Gets::Broken, then, [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat())
}

fn whole(name: &'static str, status: u16, body: &'static str, says: impl Into<Vec<u8>>) -> Case {
    case(name, Gets::Whole(status, body), Then::Stays, says)
}

fn status_lines() -> Vec<Case> {
    let line = |name, line: &[u8]| bad(name, [line, b"\r\nContent-Length: 4\r\n\r\nevil"].concat());
    vec![
        line("another protocol", b"220 SMTP ready"),
        line("a version alone", b"HTTP/1.1"),
        line("a status of two digits", b"HTTP/1.1 20 OK"),
        line("a status of four digits", b"HTTP/1.1 2000 OK"),
        line("a status below 100", b"HTTP/1.1 099 OK"),
        line("a status below 0", b"HTTP/1.1 -20 OK"),
        line("a status in words", b"HTTP/1.1 OK"),
        line("version 2.0", b"HTTP/2.0 200 OK"),
        line("version 1.2", b"HTTP/1.2 200 OK"),
        line("a version in lower case", b"http/1.1 200 OK"),
        line("ICY", b"ICY 200 OK"),
        line("two spaces before the status", b"HTTP/1.1  200 OK"),
        line("a tab before the status", b"HTTP/1.1\t200 OK"),
        line("a space before the version", b" HTTP/1.1 200 OK"),
        line("a reason with a NUL", b"HTTP/1.1 200 O\0K"),
        line("a reason with a carriage return", b"HTTP/1.1 200 O\rK"),
        bad("a request", b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("empty lines", b"\r\n\r\n\r\n"),
        bad("noise", (0..=255_u8).collect::<Vec<_>>().repeat(20)),
        bad("an interim answer and noise", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nnoise\r\n\r\n"),
        bad("another protocol, unasked", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nevil"),
        whole("a status without a reason", 200, "good", b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\ngood"),
        whole("a status with an empty reason", 200, "good", b"HTTP/1.1 200 \r\nContent-Length: 4\r\n\r\ngood"),
        whole("a reason that is not ASCII", 200, "good", b"HTTP/1.1 200 \xc3\x96K\xff\r\nContent-Length: 4\r\n\r\ngood"),
        whole("a status that nobody knows", 999, "good", b"HTTP/1.1 999 X\r\nContent-Length: 4\r\n\r\ngood"),
        whole("an interim answer", 200, "good", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        bad("line feeds alone", b"HTTP/1.1 200 OK\nContent-Length: 4\n\nevil"),
        bad("a line feed alone after the first line", b"HTTP/1.1 200 OK\nContent-Length: 4\r\n\r\nevil"),
        bad("a line feed alone at the end", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\nevil"),
        bad_field("a line feed in a value", b"Location: /\nContent-Length: 4"),
        bad_field("a carriage return in a value", b"Location: /\rContent-Length: 4"),
        bad_field("a NUL in a value", b"Location: /\0\r\nContent-Length: 4"),
        bad_field("a line that goes on", b"Location: /\r\n Content-Length: 4"),
        bad_field("a space before a colon", b"Content-Length : 4"),
        bad_field("a line without a colon", b"Content-Length 4"),
        bad_field("a name of two words", b"Content Length: 4"),
        bad_field("an empty name", b": 4"),
        bad_field("two lengths that are the same", b"Content-Length: 4\r\nContent-Length: 4"),
        bad_field("two lengths that differ", b"Content-Length: 4\r\nContent-Length: 0"),
        bad_field("a list of lengths", b"Content-Length: 4, 4"),
        bad_field("a length below 0", b"Content-Length: -4"),
        bad_field("a length with a plus", b"Content-Length: +4"),
        bad_field("a length of 2^64 and 4", b"Content-Length: 18446744073709551620"),
        bad_field("an empty length", b"Content-Length:"),
        bad_field("a length and chunks", b"Content-Length: 4\r\nTransfer-Encoding: chunked"),
        bad_field("chunks and a length", b"Transfer-Encoding: chunked\r\nContent-Length: 4"),
        bad_field("gzip", b"Transfer-Encoding: gzip"),
        bad_field("gzip in chunks", b"Transfer-Encoding: gzip, chunked"),
        bad_field("the coding twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        bad_field("a coding that ends in chunked", b"Transfer-Encoding: xchunked"),
        bad_field("a coding with a vertical tab", b"Transfer-Encoding: \x0bchunked"),
        bad_field("129 fields", &b"X: a\r\n".repeat(129)[..129 * 6 - 2]),
        bad_field("a head of 300 kB", &[b"X: ".as_slice(), &b"a".repeat(300_000)].concat()),
        bad("chunks in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
        bad("a length that is none, where there is no body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4, 4\r\n\r\n"),
        whole(
            "a head of 100 kB",
            200,
            "good",
            [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &b"a".repeat(100_000), b"\r\nContent-Length: 4\r\n\r\ngood"].concat(),
        ),
        whole(
            "a line's end in code",
            200,
            "good",
            b"HTTP/1.1 200 OK\r\nLocation: /%0d%0aContent-Length:%200\r\nContent-Length: 4\r\n\r\ngood",
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    vec![
        broken("a size that is none", Then::Stays, b"evil\r\n"),
        broken("a size below 0", Then::Stays, b"-1\r\nevil\r\n0\r\n\r\n"),
        broken("a size with its base", Then::Stays, b"0x4\r\nevil\r\n0\r\n\r\n"),
        broken("a size with a space before it", Then::Stays, b" 4\r\nevil\r\n0\r\n\r\n"),
        broken("a size of 2^64 and 4", Then::Stays, b"10000000000000004\r\nevil\r\n0\r\n\r\n"),
        broken("a size and a line feed alone", Then::Stays, b"4\nevil\r\n0\r\n\r\n"),
        broken("a chunk that is longer than its size", Then::Stays, b"4\r\nevil, and more\r\n0\r\n\r\n"),
        broken("a chunk that is shorter than its size", Then::Stays, b"5\r\nevil\r\n0\r\n\r\n"),
        broken("an answer in place of a chunk", Then::Stays, b"4\r\ngood\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        broken("an extension that is too long", Then::Stays, &[b"4;".as_slice(), &b"a".repeat(300), b"\r\nevil\r\n0\r\n\r\n"].concat()),
        broken("a trailer that is none", Then::Stays, b"4\r\nevil\r\n0\r\nX : a\r\n\r\n"),
        broken(
            "trailers that are too large",
            Then::Stays,
            &[b"4\r\nevil\r\n0\r\nX: ".as_slice(), &b"a".repeat(20_000), b"\r\n\r\n"].concat(),
        ),
        broken("a chunk that ends too early", Then::Closes, b"5\r\nhel"),
        broken("chunks without their last one", Then::Closes, b"5\r\nhello\r\n"),
        broken("a chunk that is reset", Then::Resets, b"5\r\nhel"),
        case("a length that is not reached", Gets::Broken, Then::Closes, short),
        case("a length that is not reached, and a reset", Gets::Broken, Then::Resets, short),
        case("nothing", Gets::Gateway(cause::NODE_CLOSED), Then::Closes, b""),
        case("a reset", Gets::Gateway(cause::NODE_CLOSED), Then::Resets, b""),
        case("an end in the first line", Gets::Gateway(cause::NODE_CLOSED), Then::Closes, b"HTTP/1.1 20"),
        case("an end in the head", Gets::Gateway(cause::NODE_CLOSED), Then::Closes, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"),
        case("an interim answer and the end", Gets::Gateway(cause::NODE_CLOSED), Then::Closes, b"HTTP/1.1 100 Continue\r\n\r\n"),
        case("the connection's end as the body's", Gets::Whole(200, "good"), Then::Closes, b"HTTP/1.1 200 OK\r\n\r\ngood"),
        case("the same in HTTP/1.0", Gets::Whole(200, "good"), Then::Closes, b"HTTP/1.0 200 OK\r\n\r\ngood"),
        whole(
            "chunks with extensions and a trailer",
            200,
            "good",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4;a=b\r\ngood\r\n0\r\nX: a\r\n\r\n",
        ),
    ]
}

/// What stands behind an answer is nobody's.
fn extra_bytes() -> Vec<Case> {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let behind = |head: &str| format!("HTTP/1.1 {head}{evil}");
    vec![
        whole("an answer behind a length", 200, "good", behind("200 OK\r\nContent-Length: 4\r\n\r\ngood")),
        whole("an answer behind a length of 0", 200, "", behind("200 OK\r\nContent-Length: 0\r\n\r\n")),
        whole("an answer behind chunks", 200, "good", behind("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n")),
        whole("an answer behind 204", 204, "", behind("204 No Content\r\n\r\n")),
        whole("an answer behind 204 with a length", 204, "", behind("204 No Content\r\nContent-Length: 44\r\n\r\n")),
        whole("an answer behind 304", 304, "", behind("304 Not Modified\r\nContent-Length: 44\r\n\r\n")),
        whole("an answer behind 304 with chunks", 304, "", behind("304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n")),
        whole("an answer that was split in a redirect", 302, "", behind("302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")),
        whole("an empty line behind a length", 200, "good", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood\r\n"),
        whole(
            "a long tail",
            200,
            "good",
            [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".as_slice(), &evil.as_bytes().repeat(5000)].concat(),
        ),
    ]
}

fn serving() -> (Proxy, Scripted) {
    let (proxy, node) = (Proxy::start(), Scripted::start());
    let mut route = route(1, &[]);
    route.members.insert("a".to_string(), member(node.address, 1, "web-r1"));
    proxy.put(&of(route));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

fn judge(client: &mut Client, case: &Case, target: &str) -> Result<(), String> {
    let begun = Instant::now();
    let got = client.get(target);
    let is_right = match (case.gets, &got) {
        (Gets::Gateway(cause), Ok(answer)) => answer.status == 502 && answer.text().starts_with(&format!("{cause}: ")),
        (Gets::Broken, Err(_)) => true,
        (Gets::Whole(status, body), Ok(answer)) => (answer.status, answer.text().as_str()) == (status, body),
        _ => false,
    };
    if !is_right || begun.elapsed() > AT_ONCE {
        return Err(format!("after {:?} {:?}", begun.elapsed(), got.map(|answer| (answer.status, answer.text()))));
    }
    // The first may be given the connection of the bad answer, on both sides.
    for number in 0..3 {
        let good = format!("/good{target}?{number}");
        let answer = client.get(&good).map_err(|error| format!("then {good}: {error}"))?;
        if (answer.status, answer.text()) != (200, good) {
            return Err(format!("then {}: {}", answer.status, answer.text()));
        }
    }
    Ok(())
}

#[test]
fn a_bad_answer_is_nobody_elses_and_is_counted() {
    let (proxy, node) = serving();
    let cases: Vec<Case> = [status_lines(), fields(), bodies(), extra_bytes()].into_iter().flatten().collect();
    let mut client = Client::new(proxy.address);
    let mut wrong = Vec::new();
    let mut wanted = Totals::default();
    for (number, case) in cases.iter().enumerate() {
        let target = format!("/case-{number}");
        node.script(&target, case.says.clone(), case.then);
        if let Err(reason) = judge(&mut client, case, &target) {
            wrong.push(format!("{}: {reason}", case.name));
            client.close();
        }
        let failed = match case.gets {
            Gets::Gateway(cause) => Some(cause),
            Gets::Broken => Some(cause::TRUNCATED),
            Gets::Whole(..) => None,
        };
        if let Some(cause) = failed {
            wanted.failed += 1;
            *wanted.by_cause.entry(cause.to_string()).or_default() += 1;
        }
        wanted.requests += 4;
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(wanted.failed >= 60, "{} bad answers", wanted.failed);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.by_cause), (wanted.requests, wanted.failed, wanted.by_cause));
}

#[test]
fn what_a_node_says_unasked_is_no_answer() {
    let (proxy, node) = serving();
    let mut client = Client::new(proxy.address);
    let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".as_slice();
    for round in 0..60 {
        let target = format!("/good?{round}");
        let answer = client.get(&target).expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, target));
        // The client has its answer, so the connection to the node waits for the next request.
        node.say_unasked(
            [evil, b"x", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"][round % 4],
        );
    }
    assert_eq!(node.connections(), 60, "a connection on which something was said unasked was used again");
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn a_node_that_only_says_that_it_will_answer_comes_to_an_end() {
    let (proxy, node) = serving();
    let (progress, hint) = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    node.script("/progress", *progress, Then::Repeats);
    node.script("/hints", *hint, Then::Repeats);
    node.script("/some", [hint.repeat(500).as_slice(), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"].concat(), Then::Stays);
    for target in ["/progress", "/hints"] {
        for version in ["1.1", "1.0"] {
            let mut stream = TcpStream::connect(proxy.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(format!("GET {target} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            let mut told = String::new();
            stream.read_to_string(&mut told).unwrap();
            assert!(told.contains(" 502 Bad Gateway\r\n") && told.contains("bad-answer: "), "{target}: {told}");
            assert!(version == "1.1" || !told.contains(" 103 "), "a client of HTTP/1.0 knows no interim answers");
        }
    }
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /some HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert_eq!((told.matches("HTTP/1.1 103 ").count(), told.matches("HTTP/1.1 200 ").count()), (500, 1));
    let counted = totals(&proxy.record());
    assert_eq!((counted.failed, counted.by_cause.get("bad-answer")), (4, Some(&4)));
}

#[test]
fn a_node_that_stops_inside_its_head_is_waited_for_as_long_as_was_said() {
    let (proxy, node) = serving();
    proxy.settings(json!({ "services": { SERVICE: { "timeouts": { "answer_ms": 300, "answer_body_ms": 300 } } } }));
    for (target, says) in [("/nothing", ""), ("/line", "HTTP/1.1 2"), ("/head", "HTTP/1.1 200 OK\r\nContent-Le"), ("/empty", "\r\n")] {
        node.script(target, says, Then::Stays);
        let answer = Client::new(proxy.address).get(target).unwrap();
        assert!(answer.status == 504 && answer.text().starts_with("timeout: "), "{target}: {} {}", answer.status, answer.text());
    }
    for (target, says) in [("/length", "Content-Length: 10\r\n\r\nhel"), ("/chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel")] {
        node.script(target, format!("HTTP/1.1 200 OK\r\n{says}"), Then::Stays);
        Client::new(proxy.address).get(target).expect_err("an answer that stopped looks whole");
    }
    let counted = totals(&proxy.record());
    assert_eq!((counted.by_cause.get("timeout"), counted.by_cause.get("truncated")), (Some(&4), Some(&2)));
}

#[test]
fn a_node_hears_no_trailer_that_frames_or_routes() {
    let (proxy, node) = serving();
    let trailers = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nX-Request-Id: evil\r\nX-Sum: \xff7";
    let head = b"POST /trailers HTTP/1.1\r\nHost: a\r\nX-Text: \xc3\xa4\xff\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let answer = Client::new(proxy.address).raw(&[head.as_slice(), trailers, b"\r\n\r\n"].concat(), false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "/trailers"));
    eventually("it is heard", || node.heard().len() == 1);
    let heard = node.heard().remove(0);
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("X-Text: \u{e4}\u{fffd}\r\n"), "what is not ASCII is passed on: {head}");
    assert_eq!(body, "5\r\nhello\r\n0\r\nX-Sum: \u{fffd}7\r\n\r\n");
}
