//! What arrives at a node, and what arrives at a client.

use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::node::{Node, checksum};
use crate::support::proxy::{Proxy, SERVICE, of, resident_kib, route, snapshot, totals};
use crate::support::{PATIENCE, eventually};
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn one_node() -> (Proxy, Node) {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

#[test]
fn a_node_sees_who_asks_and_nothing_of_the_clients_connection() {
    let (proxy, _node) = one_node();
    let headers = [
        ("Host", "Shop.Example:8080"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("X-Forwarded-For", "10.1.1.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Kept", "yes"),
    ];
    let answer = Client::new(proxy.address).request("GET", "/head?q=%20x&y", &headers, b"").unwrap();
    let head = answer.text().to_ascii_lowercase();
    assert!(head.starts_with("get /head?q=%20x&y http/1.1\r\n"), "{head}");
    for line in [
        "host: shop.example:8080",
        "x-forwarded-for: 10.1.1.1, 127.0.0.1",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: shop.example:8080",
        "x-kept: yes",
    ] {
        assert!(head.contains(line), "`{line}` is missing in {head}");
    }
    for line in ["x-hop", "keep-alive", "te:", "connection:"] {
        assert!(!head.contains(line), "`{line}` got through: {head}");
    }
    assert_eq!((answer.header("x-gapless-release"), answer.header("x-gapless-node")), (Some("web-r1"), Some("a")));
}

#[test]
fn two_services_by_host_and_an_unknown_one() {
    let proxy = Proxy::start();
    let (shop, blog) = (Node::start("shop"), Node::start("blog"));
    let mut both = of(route(1, &[(&shop, 1)]));
    both.services.get_mut(SERVICE).unwrap().host = "shop.example".to_string();
    let mut other = route(1, &[(&blog, 1)]);
    other.host = "blog.example".to_string();
    both.services.insert("blog/web".to_string(), other);
    proxy.put(&both);
    eventually("both pass", || proxy.status().nodes.values().flat_map(|nodes| nodes.values()).all(|node| node.passes > 0));
    let ask = |host: &str| Client::new(proxy.address).request("GET", "/name", &[("Host", host)], b"").unwrap();
    assert_eq!(ask("shop.example").text(), "shop");
    assert_eq!(ask("BLOG.example:80").text(), "blog");
    let unknown = ask("other.example");
    assert_eq!((unknown.status, unknown.text().as_str()), (404, "no service answers this host\n"));
    // The target's host comes before the header's.
    let absolute = b"GET http://blog.example/name HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    assert_eq!(Client::new(proxy.address).raw(absolute, false).unwrap().text(), "blog");
    let record = proxy.record();
    assert_eq!(record.refused, 1);
    let of_service = |name: &str| record.slices.iter().filter(|slice| slice.service == name).map(|slice| slice.requests).sum::<u64>();
    assert_eq!((of_service(SERVICE), of_service("blog/web")), (1, 2));
    // One service leaves, the other does not notice.
    let load = Load::start(proxy.address, 1);
    load.stop();
    both.services.remove(SERVICE);
    proxy.put(&both);
    assert_eq!(ask("shop.example").status, 404);
    assert_eq!(ask("blog.example").text(), "blog");
    // `*` takes what nobody else has.
    both.services.insert("any/web".to_string(), route(1, &[(&shop, 1)]));
    proxy.put(&both);
    assert_eq!((ask("other.example").text().as_str(), ask("blog.example").text().as_str()), ("shop", "blog"));
}

#[test]
fn a_broken_answer_breaks_the_clients_connection_and_is_counted() {
    let (proxy, _node) = one_node();
    let load = Load::start(proxy.address, 2);
    for path in ["/truncated-length", "/truncated-chunks?n=5"] {
        let error = Client::new(proxy.address).get(path).expect_err("a cut body must not look whole");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{path}");
    }
    // HTTP/1.0 has no chunks: only a reset can say it.
    let mut old = TcpStream::connect(proxy.address).unwrap();
    old.set_read_timeout(Some(PATIENCE)).unwrap();
    old.write_all(b"GET /truncated-chunks?n=5 HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let ended = old.read_to_end(&mut answer);
    assert_eq!(ended.expect_err("a polite end").kind(), ErrorKind::ConnectionReset);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    let counted = totals(&proxy.record());
    assert_eq!((counted.failed, counted.by_cause.get("truncated")), (3, Some(&3)));
}

#[test]
fn bodies_stream_both_ways_in_constant_memory() {
    let (proxy, node) = one_node();
    let pid = proxy.worker_pid();
    let load = Load::start(proxy.address, 2);
    let size = 64 * 1024 * 1024;
    let mut download = Client::new(proxy.address);
    download.send(format!("GET /bytes?n={size} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let stream = download.stream().unwrap();
    let mut line = String::new();
    while !line.ends_with("\r\n\r\n") {
        stream.read_line(&mut line).unwrap();
    }
    // The client does not read for a while: the proxy must not take the rest into memory.
    std::thread::sleep(Duration::from_millis(300));
    let resident = resident_kib(pid);
    let mut body = vec![0; size];
    stream.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'x'));
    assert!(resident < 48 * 1024, "{resident} KiB resident while 64 MiB wait");
    let mut upload = Client::new(proxy.address);
    upload.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").as_bytes()).unwrap();
    upload.send(&body[..size / 2]).unwrap();
    eventually("the first half arrives before the second is sent", || node.inside.uploaded.load(Ordering::SeqCst) >= (size / 2) as u64);
    let resident = resident_kib(pid);
    assert!(resident < 48 * 1024, "{resident} KiB resident inside an upload");
    upload.send(&body[size / 2..]).unwrap();
    assert_eq!(upload.receive().unwrap().text(), format!("a {size} {}", checksum(&body)));
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn chunked_uploads_and_answers_and_heads() {
    let (proxy, _node) = one_node();
    let mut client = Client::new(proxy.address);
    let answer = client
        .raw(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", false)
        .unwrap();
    assert_eq!(answer.text(), format!("a 11 {}", checksum(b"hello world")));
    let answer =
        client.raw(b"GET /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n", false).unwrap();
    assert_eq!(answer.text(), format!("a 5 {}", checksum(b"query")), "a GET may have a body, and its length need not be known");
    let answer = client.get("/stream?n=20&ms=1").unwrap();
    assert_eq!(answer.body.len(), 200);
    let answer = client.request("HEAD", "/bytes?n=12345", &[], b"").unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("12345")));
    assert_eq!(client.get("/until-close").unwrap().text(), "until the end");
    assert_eq!(client.get("/status?code=404").unwrap().status, 404);
    assert_eq!(client.get("/name").unwrap().text(), "a");
    assert!(client.is_open());
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed), (7, 0));
    assert_eq!(counted.statuses, [0, 6, 0, 1, 0], "the application's own 404 is its own");
}

#[test]
fn a_client_of_http_1_0_is_served() {
    let (proxy, _node) = one_node();
    for (request, wanted) in [("GET /name HTTP/1.0\r\n\r\n", "a"), ("GET /stream?n=2 HTTP/1.0\r\nHost: x\r\n\r\n", "01234567890123456789")]
    {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with(wanted), "{answer}");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let (proxy, _node) = one_node();
    for path in ["/upload", "/name"] {
        let mut client = Client::new(proxy.address);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        client.stream().unwrap().read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
        client.send(b"hello").unwrap();
        client.stream().unwrap().read_line(&mut String::new()).unwrap();
        assert_eq!(client.receive().unwrap().status, 200);
    }
}

#[test]
fn an_upgraded_stream_passes_both_ways_and_counts_as_one_request() {
    let (proxy, _node) = one_node();
    let mut client = Client::new(proxy.address);
    client.send(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    for round in 0..10 {
        let message = format!("message {round}");
        client.send(message.as_bytes()).unwrap();
        let mut back = vec![0; message.len()];
        client.stream().unwrap().read_exact(&mut back).unwrap();
        assert_eq!(back, message.as_bytes());
    }
    assert_eq!(proxy.node_status("a").unwrap().requests_in_flight, 1);
    client.close();
    eventually("it ends", || proxy.node_status("a").unwrap().requests_in_flight == 0);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed, counted.cut, counted.small), (1, 0, 0, 0));
    assert_eq!(counted.statuses, [1, 0, 0, 0, 0]);
}

#[test]
fn wrong_requests_are_refused_and_nothing_is_smuggled() {
    let (proxy, node) = one_node();
    let refused = |request: &[u8]| Client::new(proxy.address).raw(request, false).map(|answer| answer.status);
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n").unwrap(), 400);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap(), 400);
    assert_eq!(refused(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").unwrap(), 405);
    assert_eq!(refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx").unwrap(), 400);
    assert_eq!(refused(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n").unwrap(), 400);
    assert_eq!(node.begun(), 0, "none of them reached the node");
    // Two lengths: which of them counts differs between programs, so neither does, and the connection ends with this answer.
    for order in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"] {
        let request = format!("POST /head HTTP/1.1\r\nHost: a\r\n{order}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut client = Client::new(proxy.address);
        client.send(request.as_bytes()).unwrap();
        assert_eq!(client.receive().unwrap().status, 400);
        assert_eq!(client.stream().unwrap().read(&mut [0; 64]).unwrap_or(0), 0, "{order}: the connection goes on");
    }
    assert_eq!(node.begun(), 0, "neither of the two requests on each connection is taken for one");
    let begun = Instant::now();
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
    assert!(begun.elapsed() < Duration::from_secs(2));
}
