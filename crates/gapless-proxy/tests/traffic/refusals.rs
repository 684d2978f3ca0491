//! Requests that are none, or that two programs could read differently: each is refused, ends its connection, and no node hears of it. Beside them stand look-alikes that are legal.

mod bodies;
mod framing;
mod lines;
mod names;

use crate::support::client::{Client, read_answer};
use crate::support::node::Node;
use crate::support::proxy::{Proxy, snapshot, totals};
use crate::support::{PATIENCE, eventually};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Cases that the proxy does not handle as they say yet: whoever mends one takes it off.
const OPEN: &[&str] = &[];
/// How long a healthy request beside a bad one may take: far below every limit that a bad one could make it wait for.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What a client gets.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// This status as the last answer, and no node hears of the request.
    Refused(u16),
    /// This status as the last answer, after the head, which was in order, has gone to a node, which gets a body without an end.
    Broken(u16),
    /// No answer.
    Closed,
    /// So many answers of a node, and the connection goes on.
    Served(u64),
    /// An answer of a node, and the connection ends.
    ServedLast,
    /// So many answers of a node, and then this status as the last answer.
    ServedThenRefused(u64, u16),
}

struct Case {
    name: &'static str,
    sent: Vec<u8>,
    /// The client sends its end behind it.
    ends: bool,
    must: Must,
}

fn case(name: &'static str, must: Must, sent: impl Into<Vec<u8>>) -> Case {
    Case { name, sent: sent.into(), ends: false, must }
}

fn refused(name: &'static str, status: u16, sent: impl Into<Vec<u8>>) -> Case {
    case(name, Must::Refused(status), sent)
}

fn closed(name: &'static str, sent: impl Into<Vec<u8>>) -> Case {
    case(name, Must::Closed, sent).ending()
}

impl Case {
    fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    fn is_bad(&self) -> bool {
        !matches!(self.must, Must::Served(_) | Must::ServedLast)
    }
}

/// A GET with these lines in its head.
fn with_fields(lines: &[u8]) -> Vec<u8> {
    [b"GET /name HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n"].concat()
}

fn one_node() -> (Proxy, Node) {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Sends a case and looks at what comes back.
fn converse(address: SocketAddr, case: &Case) -> Result<(), String> {
    let mut stream = connect(address);
    // A proxy that has seen enough may close before it has read all.
    let _ = stream.write_all(&case.sent);
    if case.ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut stream = BufReader::new(stream);
    match case.must {
        Must::Refused(status) | Must::Broken(status) => last_answer(&mut stream, status),
        Must::Closed => match rest(&mut stream)? {
            rest if rest.is_empty() => Ok(()),
            rest => Err(format!("an answer: {}", String::from_utf8_lossy(&rest))),
        },
        Must::Served(answers) => {
            served(&mut stream, answers)?;
            stream.get_mut().write_all(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| error.to_string())?;
            served(&mut stream, 1)
        }
        Must::ServedLast => {
            served(&mut stream, 1)?;
            if rest(&mut stream)?.is_empty() { Ok(()) } else { Err("more than one answer".to_string()) }
        }
        Must::ServedThenRefused(answers, status) => {
            served(&mut stream, answers)?;
            last_answer(&mut stream, status)
        }
    }
}

fn served(stream: &mut BufReader<TcpStream>, answers: u64) -> Result<(), String> {
    for number in 0..answers {
        let answer = read_answer(stream, false).map_err(|error| format!("answer {number}: {error}"))?;
        if answer.status != 200 || answer.node() != "a" {
            return Err(format!("answer {number}: {} {}", answer.status, answer.text()));
        }
    }
    Ok(())
}

/// What comes until the end of the connection.
fn rest(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>, String> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(rest),
        Err(error) if error.kind() == ErrorKind::ConnectionReset && rest.is_empty() => Ok(rest),
        Err(error) => Err(format!("no end: {error}, after {}", String::from_utf8_lossy(&rest))),
    }
}

/// One whole answer of the proxy's own, which says that it is the last one, and is.
fn last_answer(stream: &mut BufReader<TcpStream>, status: u16) -> Result<(), String> {
    let rest = rest(stream)?;
    let text = String::from_utf8_lossy(&rest);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: `{text}`"))?;
    let is_right = head.starts_with(&format!("HTTP/1.1 {status} ")) && !head.contains("x-gapless-node");
    let is_last = head.contains("\r\nconnection: close") && head.contains(&format!("\r\ncontent-length: {}", body.len()));
    if is_right && is_last { Ok(()) } else { Err(format!("not {status} as the last answer: {text}")) }
}

/// Judges one case: what the client gets, what the node hears, and that somebody else is served at once.
fn judge(address: SocketAddr, node: &Node, case: &Case) -> Result<(), String> {
    let counts = || (node.begun(), node.inside.ended.load(Ordering::SeqCst), node.inside.broken.load(Ordering::SeqCst));
    let before = counts();
    converse(address, case)?;
    let begun = Instant::now();
    let healthy = Client::new(address).get("/name").map_err(|error| format!("then nobody is served: {error}"))?;
    if (healthy.status, healthy.text().as_str()) != (200, "a") || begun.elapsed() > AT_ONCE {
        return Err(format!("then a healthy request gets {} after {:?}", healthy.status, begun.elapsed()));
    }
    let (whole, broken) = match case.must {
        Must::Refused(_) | Must::Closed => (0, 0),
        Must::Broken(_) => (0, 1),
        Must::Served(answers) => (answers + 1, 0),
        Must::ServedLast => (1, 0),
        Must::ServedThenRefused(answers, _) => (answers, 0),
    };
    let wanted = (before.0 + whole + broken + 1, before.1 + whole + 1, before.2 + broken);
    eventually_or(wanted, counts).map_err(|counted| format!("the node counts {counted:?} begun, ended and broken, not {wanted:?}"))
}

/// The node counts behind its answers.
fn eventually_or<T: PartialEq>(wanted: T, look: impl Fn() -> T) -> Result<(), T> {
    let until = Instant::now() + AT_ONCE;
    loop {
        match look() {
            seen if seen == wanted => return Ok(()),
            seen if Instant::now() > until => return Err(seen),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Judges all of them, and says what is wrong with any.
#[track_caller]
fn judge_all(cases: &[Case]) {
    let (proxy, node) = one_node();
    let pid = proxy.worker_pid();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| match (judge(proxy.address, &node, case), OPEN.contains(&case.name)) {
            (Ok(()), false) | (Err(_), true) => None,
            (Ok(()), true) => Some(format!("{}: is mended, and still on the list of what is open", case.name)),
            (Err(reason), false) => Some(format!("{}: {reason}", case.name)),
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(node.asked("/smuggled"), 0, "a request that was hidden in another one reached the node");
    assert_eq!(proxy.worker_pid(), pid, "the worker is the one that began");
    assert_eq!(totals(&proxy.record()).failed, 0, "what a client did wrong is no failure");
}

#[test]
fn lines_that_are_none_are_refused() {
    judge_all(
        &[lines::request_lines(), lines::targets(), lines::endings(), lines::other_protocols()].into_iter().flatten().collect::<Vec<_>>(),
    );
}

#[test]
fn fields_that_are_none_are_refused() {
    judge_all(
        &[names::names(), names::values(), names::hosts(), names::sizes(), names::expectations()].into_iter().flatten().collect::<Vec<_>>(),
    );
}

#[test]
fn lengths_that_two_programs_could_read_differently_are_refused() {
    judge_all(&[framing::lengths(), framing::encodings(), framing::classics()].into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn bodies_that_are_not_what_their_heads_say_are_refused() {
    judge_all(
        &[bodies::sizes(), bodies::chunks(), bodies::trailers(), bodies::legal(), bodies::ends()].into_iter().flatten().collect::<Vec<_>>(),
    );
}

#[test]
fn there_are_many_cases_and_each_has_a_name_of_its_own() {
    let mut all: Vec<Case> =
        [lines::request_lines(), lines::targets(), lines::endings(), lines::other_protocols()].into_iter().flatten().collect();
    all.extend([names::names(), names::values(), names::hosts(), names::sizes(), names::expectations()].into_iter().flatten());
    all.extend([framing::lengths(), framing::encodings(), framing::classics()].into_iter().flatten());
    all.extend([bodies::sizes(), bodies::chunks(), bodies::trailers(), bodies::legal(), bodies::ends()].into_iter().flatten());
    let names: std::collections::BTreeSet<&str> = all.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all.len(), "two cases have one name");
    let bad = all.iter().filter(|case| case.is_bad()).count();
    assert!(bad >= 200, "{bad} bad cases");
    assert!(all.len() - bad >= 40, "{} legal ones", all.len() - bad);
}

#[test]
fn a_client_that_goes_away_at_any_place_leaves_nothing_behind() {
    let (proxy, node) = one_node();
    let whole = b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nX-Kept: yes\r\n\r\nhello world";
    for place in 0..whole.len() {
        for resets in [false, true] {
            let mut stream = connect(proxy.address);
            stream.write_all(&whole[..place]).expect("the proxy reads");
            if resets {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
    assert_eq!(node.begun(), 1, "of a request that is not whole, and could be sent again, no node hears");
    let body = "hello world".len() as u64;
    eventually("each that broke a body off is seen", || proxy.record().client_gone >= body);
    assert_eq!(totals(&proxy.record()).failed, 0);
}

/// The proxy speaks HTTP/2 without TLS to who begins with it; behind a request of HTTP/1 the same bytes are none.
#[test]
fn what_begins_as_http_2_is_http_2_to_its_end() {
    let (proxy, node) = one_node();
    for behind in [b"SM\r\n\r\n".as_slice(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = connect(proxy.address);
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\n", behind, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Whether it ends in order or by a reset is HTTP/2's affair.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.windows(7).any(|part| part == b"HTTP/1."), "an answer of HTTP/1");
    }
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
    assert_eq!(node.begun(), 1);
}
