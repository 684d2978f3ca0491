//! What listeners speak: TLS, what a balancer says before, and bytes of any kind.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, snapshot, totals};
use crate::support::tls::{Authority, Secure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

fn serving() -> (Proxy, Node) {
    let (proxy, node) = (Proxy::start(), Node::start("a"));
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn over_tls(address: SocketAddr, pairs: &[(&Path, &Path)]) -> Value {
    let certificates: Vec<Value> = pairs.iter().map(|(chain, key)| json!({ "chain": chain, "key": key })).collect();
    json!({ "listeners": [{ "address": address, "speaks": "https" }], "certificates": certificates })
}

#[test]
fn tls_is_spoken_and_a_certificate_is_changed_under_load_without_a_restart() {
    let (proxy, _node) = serving();
    let (folder, authority, address) = (tempfile::tempdir().unwrap(), Authority::new(), free_address());
    let (chain, key) = authority.certify(folder.path(), "first", &["shop.example", "*.shop.example"]);
    let (other_chain, other_key) = authority.certify(folder.path(), "other", &["blog.example"]);
    proxy.settings(over_tls(address, &[(&chain, &key), (&other_chain, &other_key)]));
    let mut secure = Secure::connect(address, "shop.example", &authority, &["h2x", "http/1.1"]).expect("TLS");
    assert_eq!((secure.protocol().as_deref(), secure.version().as_str()), (Some("http/1.1"), "TLSv1_3"));
    let head = secure.get("/head", "shop.example").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.contains("x-forwarded-proto: https") && head.contains("proto=https"), "{head}");
    assert!((0..50).all(|_| secure.get("/name", "shop.example").unwrap().ends_with('a')), "one connection goes on");
    let serial = |host: &str| Secure::connect(address, host, &authority, &[]).unwrap().serial();
    let (first, blog) = (serial("www.shop.example"), serial("blog.example"));
    assert_ne!(first, blog);
    let load = Load::start(proxy.address, 2);
    authority.certify(folder.path(), "first", &["shop.example", "*.shop.example"]);
    eventually("the new certificate is shown", || serial("shop.example") != first);
    assert_eq!(serial("blog.example"), blog);
    assert!(secure.get("/name", "shop.example").unwrap().ends_with('a'), "a connection from before goes on");
    assert_eq!(load.stop().failures, Vec::<String>::new());
    std::fs::write(&key, "broken").unwrap();
    let refused = proxy.try_settings(over_tls(address, &[(&chain, &key)])).unwrap_err().to_string();
    assert!(refused.contains("first.key"), "{refused}");
    assert!(Secure::connect(address, "shop.example", &authority, &[]).is_ok(), "what was in force stays");
}

#[test]
fn large_bodies_pass_through_tls_both_ways() {
    let (proxy, _node) = serving();
    let (folder, authority, address) = (tempfile::tempdir().unwrap(), Authority::new(), free_address());
    let (chain, key) = authority.certify(folder.path(), "one", &["shop.example"]);
    proxy.settings(over_tls(address, &[(&chain, &key)]));
    let mut secure = Secure::connect(address, "shop.example", &authority, &[]).unwrap();
    let answer = secure.get("/bytes?n=3000000", "shop.example").unwrap();
    assert_eq!(answer.len(), 3_000_000);
    let body = vec![7; 2_000_000];
    let head = format!("POST /upload HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n", body.len());
    secure.send(head.as_bytes()).unwrap();
    secure.send(&body).unwrap();
    assert!(secure.answer().unwrap().starts_with("a 2000000 "));
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn who_does_not_speak_tls_costs_nobody_anything() {
    let (proxy, _node) = serving();
    let (folder, authority, address) = (tempfile::tempdir().unwrap(), Authority::new(), free_address());
    let (chain, key) = authority.certify(folder.path(), "one", &["shop.example"]);
    proxy.settings(over_tls(address, &[(&chain, &key)]));
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(Secure::connect(address, "shop.example", &authority, &[]).unwrap().get("/name", "shop.example").unwrap().ends_with('a'));
    drop(silent);
}

#[test]
fn a_balancer_says_who_the_client_is_and_others_are_not_believed() {
    let (proxy, _node) = serving();
    let (trusted, closed) = (free_address(), free_address());
    proxy.settings(json!({ "listeners": [
        { "address": trusted, "speaks": "http", "balancers": ["127.0.0.1"] }, { "address": closed, "speaks": "http", "balancers": ["192.0.2.1"] }
    ] }));
    let ask = |address: SocketAddr, before: &[u8]| -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&[before, b"GET /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.to_ascii_lowercase()
    };
    assert!(ask(trusted, b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\n").contains("x-forwarded-for: 203.0.113.9\r\n"));
    let binary = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[203, 0, 113, 7, 10, 0, 0, 1, 1, 1, 0, 80]].concat();
    assert!(ask(trusted, &binary).contains("for=203.0.113.7;"));
    assert_eq!(ask(trusted, b""), "", "a request without the balancer's word");
    assert_eq!(ask(closed, b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\n"), "", "from an address that is no balancer's");
    assert!(
        ask(proxy.address, b"PROXY TCP4 203.0.113.9 10.0.0.1 4000 80\r\n").starts_with("http/1.1 505"),
        "where nobody is before the proxy"
    );
}

/// A node that is no HTTP server: it says its name, and then back what it is told, line by line.
fn line_server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    let answer = if line.starts_with("GET ") {
                        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_string()
                    } else {
                        format!("{name}: {line}")
                    };
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[test]
fn bytes_of_any_kind_are_carried_to_a_service_and_move_with_it() {
    let (proxy, address) = (Proxy::start(), free_address());
    let put = |generation: u64, node: &str, at: SocketAddr| {
        let mut wanted = snapshot(generation, &[]);
        let member = crate::support::proxy::member(at, 1, "web-r1");
        wanted.services.get_mut(SERVICE).unwrap().members.insert(node.to_string(), member);
        proxy.put(&wanted);
    };
    put(1, "old", line_server("old"));
    proxy.settings(json!({ "listeners": [{ "address": address, "speaks": { "tcp": SERVICE } }] }));
    let open = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        BufReader::new(stream)
    };
    let say = |stream: &mut BufReader<TcpStream>, text: &str| {
        stream.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).map(|_| answer)
    };
    let mut first = open();
    assert_eq!(say(&mut first, "one").unwrap(), "old: one\n");
    put(2, "new", line_server("new"));
    assert_eq!(say(&mut open(), "two").unwrap(), "new: two\n");
    assert_eq!(say(&mut first, "three").unwrap(), "old: three\n", "who is there stays there");
    proxy.drain("old", 200);
    eventually("it is cut at the drain deadline", || proxy.node_status("old").is_none());
    assert!(say(&mut first, "four").map_or(true, |answer| answer.is_empty()));
    let counted = totals(&proxy.record());
    assert_eq!((counted.cut, counted.failed), (1, 0));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().status, 200);
}
