//! HTTP/2 on both sides.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::{Node, checksum};
use crate::support::node2::Node2;
use crate::support::proxy::{Proxy, SERVICE, member, snapshot, totals};
use crate::support::tls::{Authority, Secure};
use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{HeaderMap, Method, Request};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

fn serving() -> (Proxy, Node) {
    let (proxy, node) = (Proxy::start(), Node::start("a"));
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn ask(
    sender: &SendRequest<Bytes>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let mut request = Request::builder().method(method).uri(format!("http://web.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let is_end = body.is_empty() && trailers.is_none();
    let (response, mut stream) = sender.send_request(request.body(()).expect("a request"), is_end)?;
    if !is_end {
        stream.send_data(Bytes::copy_from_slice(body), trailers.is_none())?;
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
    }
    let (head, mut incoming) = tokio::time::timeout(Duration::from_secs(15), response).await.expect("an answer in time")?.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk?;
        incoming.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = incoming.trailers().await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> Result<Answer, h2::Error> {
    ask(sender, Method::GET, path, &[], b"", None).await
}

#[test]
fn many_requests_share_a_connection_and_reach_nodes_of_http_1() {
    let (proxy, node) = serving();
    let seen = runtime().block_on(async {
        let sender = connect(proxy.address).await;
        let head = ask(
            &sender,
            Method::GET,
            "/head?q=1",
            &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-kept", "yes")],
            b"",
            None,
        )
        .await
        .unwrap();
        let told = head.text().to_ascii_lowercase();
        assert!(told.starts_with("get /head?q=1 http/1.1\r\n"), "{told}");
        for line in [
            "host: web.test\r\n",
            "cookie: a=1; b=2\r\n",
            "x-kept: yes\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
            "x-forwarded-proto: http\r\n",
        ] {
            assert!(told.contains(line), "`{line}` is missing in {told}");
        }
        assert!(!told.contains("te:") && !told.contains("connection"), "{told}");
        assert_eq!(head.headers["x-gapless-node"], "a");
        let slow: Vec<_> = (0..60)
            .map(|_| {
                tokio::spawn({
                    let sender = sender.clone();
                    async move { get(&sender, "/slow?ms=300").await.unwrap().text() }
                })
            })
            .collect();
        for answer in slow {
            assert_eq!(answer.await.unwrap(), "a");
        }
        let large = get(&sender, "/bytes?n=5000000").await.unwrap();
        assert!(large.body.len() == 5_000_000 && large.body.iter().all(|byte| *byte == b'x'));
        assert_eq!(get(&sender, "/stream?n=30&ms=1").await.unwrap().body.len(), 300);
        let none = ask(&sender, Method::HEAD, "/bytes?n=123", &[], b"", None).await.unwrap();
        assert_eq!((none.body.len(), none.headers["content-length"].to_str().unwrap()), (0, "123"));
        assert_eq!(get(&sender, "/status?code=404").await.unwrap().status, 404);
        for _ in 0..200 {
            assert_eq!(get(&sender, "/name").await.unwrap().text(), "a");
        }
        node.begun()
    });
    assert_eq!(seen, 265);
    let counted = totals(&proxy.record());
    assert_eq!((counted.requests, counted.failed), (265, 0));
}

#[test]
fn uploads_stream_with_and_without_a_length() {
    let (proxy, _node) = serving();
    runtime().block_on(async {
        let sender = connect(proxy.address).await;
        let body = vec![5; 200_000];
        let wanted = format!("a 200000 {}", checksum(&body));
        let answer = ask(&sender, Method::POST, "/upload", &[("content-length", "200000")], &body, None).await.unwrap();
        assert_eq!(answer.text(), wanted);
        assert_eq!(ask(&sender, Method::POST, "/upload", &[], &body, None).await.unwrap().text(), wanted);
        assert_eq!(
            ask(&sender, Method::PUT, "/upload", &[("content-length", "3")], b"abc", None).await.unwrap().text(),
            format!("a 3 {}", checksum(b"abc"))
        );
        assert!(ask(&sender, Method::POST, "/upload", &[("content-length", "5")], b"abc", None).await.is_err(), "shorter than it says");
    });
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn what_is_wrong_is_refused_and_the_connection_goes_on() {
    let (proxy, node) = serving();
    runtime().block_on(async {
        let sender = connect(proxy.address).await;
        let truncated = get(&sender, "/truncated-length").await;
        assert!(truncated.is_err(), "a cut body must not look whole");
        assert_eq!(ask(&sender, Method::POST, "/close", &[], b"x", None).await.unwrap().status, 502);
        let before = node.begun();
        assert!(
            ask(&sender, Method::GET, "/name", &[("connection", "close")], b"", None).await.map_or(true, |answer| answer.status == 400)
        );
        assert_eq!(node.begun(), before);
        assert_eq!(get(&sender, "/name").await.unwrap().text(), "a");
    });
}

#[test]
fn a_client_that_takes_its_requests_back_at_once_is_disconnected_and_starves_nobody() {
    let (proxy, _node) = serving();
    let load = Load::start(proxy.address, 2);
    let ended = runtime().block_on(async {
        let sender = connect(proxy.address).await;
        for round in 0..20_000 {
            let Ok(mut ready) = sender.clone().ready().await else { return Some(round) };
            let request = Request::get("http://web.test/slow?ms=500").body(()).unwrap();
            let Ok((_, mut stream)) = ready.send_request(request, true) else { return Some(round) };
            stream.send_reset(h2::Reason::CANCEL);
        }
        None
    });
    assert!(ended.is_some(), "it went on for ever");
    assert_eq!(load.stop().failures, Vec::<String>::new());
    eventually("nothing is left of it", || proxy.node_status("a").unwrap().requests_in_flight == 0);
}

#[test]
fn over_tls_http_2_is_chosen_by_those_who_offer_it() {
    let (proxy, _node) = serving();
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (chain, key) = authority.certify(folder.path(), "one", &["web.test"]);
    proxy.settings(json!({ "listeners": [{ "address": address, "speaks": "https" }], "certificates": [{ "chain": chain, "key": key }] }));
    assert_eq!(Secure::connect(address, "web.test", &authority, &["h2", "http/1.1"]).unwrap().protocol().as_deref(), Some("h2"));
    assert_eq!(Secure::connect(address, "web.test", &authority, &["http/1.1"]).unwrap().protocol().as_deref(), Some("http/1.1"));
    runtime().block_on(async {
        let connector = tokio_rustls::TlsConnector::from(authority.client(&["h2"]));
        let stream = connector.connect("web.test".try_into().unwrap(), TcpStream::connect(address).await.unwrap()).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..50 {
            assert_eq!(get(&sender, "/name").await.unwrap().text(), "a");
        }
        assert_eq!(get(&sender, "/bytes?n=2000000").await.unwrap().body.len(), 2_000_000);
        assert!(get(&sender, "/head").await.unwrap().text().contains("x-forwarded-proto: https"));
    });
}

#[test]
fn an_upgrade_lets_connections_of_http_2_finish_in_order() {
    let (proxy, _node) = serving();
    let runtime = runtime();
    let sender = runtime.block_on(connect(proxy.address));
    let slow = runtime.spawn({
        let sender = sender.clone();
        async move { get(&sender, "/slow?ms=800").await.map(|answer| answer.text()) }
    });
    eventually("it runs", || proxy.node_status("a").unwrap().requests_in_flight == 1);
    proxy.upgrade().expect("a new worker");
    assert_eq!(runtime.block_on(slow).unwrap().expect("whole"), "a");
    drop(sender);
    eventually("the old worker has ended", || proxy.proxy_status().workers.len() == 1);
    assert_eq!(totals(&proxy.record()).failed, 0);
}

fn to_node_of_http_2() -> (Proxy, Node2) {
    let (proxy, node) = (Proxy::start(), Node2::start("n2"));
    proxy.settings(json!({ "services": { SERVICE: { "nodes_speak": "http2" } } }));
    let mut wanted = snapshot(1, &[]);
    wanted.services.get_mut(SERVICE).unwrap().members.insert("n2".to_string(), member(node.address, 1, "web-r1"));
    proxy.put(&wanted);
    eventually("it is used", || Client::new(proxy.address).get("/name").is_ok_and(|answer| answer.status == 200));
    (proxy, node)
}

#[test]
fn nodes_of_http_2_get_requests_and_trailers_on_one_connection() {
    let (proxy, node) = to_node_of_http_2();
    let mut old = Client::new(proxy.address);
    assert_eq!(old.get("/name").unwrap().text(), "n2");
    assert_eq!(old.post("/upload", &[1; 100_000]).unwrap().text(), "n2 100000");
    assert_eq!(old.request("PUT", "/upload", &[], &[1; 1000]).unwrap().text(), "n2 1000");
    assert_eq!(old.get("/bytes?n=1000000").unwrap().body.len(), 1_000_000);
    let connections = node.connections.load(Ordering::SeqCst);
    runtime().block_on(async {
        let sender = connect(proxy.address).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let answer =
            ask(&sender, Method::POST, "/grpc", &[("te", "trailers"), ("content-type", "application/grpc")], b"message", Some(trailers))
                .await
                .unwrap();
        assert_eq!(answer.text(), "message te=trailers x-sum=7");
        let trailers = answer.trailers.expect("trailers");
        assert_eq!((trailers["grpc-status"].to_str().unwrap(), answer.status), ("0", 200));
        for _ in 0..100 {
            assert_eq!(get(&sender, "/name").await.unwrap().text(), "n2");
        }
    });
    // One for each of the proxy's threads, and its checks.
    let opened = node.connections.load(Ordering::SeqCst) - connections;
    assert!(opened < 40, "{opened} connections for a hundred requests");
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn a_node_of_http_2_that_says_goodbye_loses_no_request() {
    let (proxy, node) = to_node_of_http_2();
    node.goodbye_after.store(20, Ordering::SeqCst);
    let mut client = Client::new(proxy.address);
    for round in 0..300 {
        let answered = if round % 2 == 0 { client.get("/name") } else { client.post("/upload", b"12345") };
        assert_eq!(answered.map(|answer| answer.status).ok(), Some(200), "{round}");
    }
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn a_stream_to_a_node_of_http_2_is_cut_at_the_drain_deadline() {
    let (proxy, _node) = to_node_of_http_2();
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=20000").map(|answer| answer.status));
    eventually("it runs", || proxy.node_status("n2").unwrap().requests_in_flight == 1);
    proxy.put(&snapshot(2, &[]));
    proxy.drain("n2", 200);
    eventually("it is cut", || proxy.node_status("n2").is_none());
    assert_eq!(slow.join().unwrap().expect("an answer in order"), 503);
    assert_eq!(totals(&proxy.record()).cut, 1);
}
