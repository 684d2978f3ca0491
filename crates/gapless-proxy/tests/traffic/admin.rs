//! The admin sockets: who may open them, and what they say to nonsense.

use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, of, route, snapshot};
use gapless_wire::client::ClientError;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn ask(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may answer and close before it has read all of it.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
        if read == 0 || String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn only_the_owner_may_open_them() {
    let proxy = Proxy::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&proxy.state), 0o700);
    assert_eq!(mode(&proxy.state.join("proxy.sock")), 0o600);
    assert_eq!(mode(proxy.worker().socket()), 0o600);
    proxy.put(&snapshot(1, &[]));
    assert_eq!(mode(&proxy.state.join("snapshot.json")), 0o600);
}

#[test]
fn an_older_generation_is_refused_with_the_one_in_force() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(5, &[(&a, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 4);
    let Err(ClientError::Refused { status, body }) = proxy.try_put(&proxy.worker(), &snapshot(4, &[(&b, 1)])) else { panic!("accepted") };
    assert_eq!(status, 409);
    assert_eq!(serde_json::from_str::<gapless_wire::route::Applied>(&body).unwrap().generations[SERVICE], 5);
    assert_eq!(proxy.put(&snapshot(5, &[(&a, 1)])).generations[SERVICE], 5, "the same again is accepted");
    // One service's older generation refuses the whole snapshot, and nothing of it is applied.
    let mut two = snapshot(4, &[(&b, 1)]);
    let mut other = route(9, &[(&b, 1)]);
    other.host = "other.example".to_string();
    two.services.insert("other/web".to_string(), other);
    assert!(proxy.try_put(&proxy.worker(), &two).is_err());
    assert!(!proxy.status().generations.contains_key("other/web"));
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(b.begun(), 0);
}

#[test]
fn nonsense_is_refused_in_clear_words_and_changes_nothing() {
    let proxy = Proxy::start();
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 2);
    let socket = proxy.worker().socket().to_path_buf();
    let put = |body: &str| {
        ask(&socket, format!("PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    assert!(put("{\"version\":").starts_with("HTTP/1.1 400"));
    assert!(put("{\"version\": 99, \"services\": {}}").starts_with("HTTP/1.1 400"));
    assert!(ask(&socket, b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(ask(&socket, b"GET /v1/status?after=x HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 400"));
    let too_large =
        [b"PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\n\r\n".as_slice(), &vec![b' '; 17_000_000]].concat();
    assert!(ask(&socket, &too_large).starts_with("HTTP/1.1 413"));
    let wrong = |change: &dyn Fn(&mut gapless_wire::route::Snapshot)| {
        let mut snapshot = of(route(2, &[(&node, 1)]));
        change(&mut snapshot);
        match proxy.try_put(&proxy.worker(), &snapshot) {
            Err(ClientError::Refused { status, body }) => format!("{} {body}", status.as_u16()),
            other => panic!("accepted: {other:?}"),
        }
    };
    assert!(
        wrong(&|s| s.services.get_mut(SERVICE).unwrap().host = "Upper.example".into()).starts_with("400 service `hello/web`: the host")
    );
    assert!(
        wrong(&|s| s.services.get_mut(SERVICE).unwrap().members.get_mut("a").unwrap().check.path = "healthz".into())
            .contains("must begin with a slash")
    );
    assert!(wrong(&|s| s.services.get_mut(SERVICE).unwrap().members.get_mut("a").unwrap().check.interval_ms = 0).contains("interval"));
    assert!(wrong(&|s| s.services.get_mut(SERVICE).unwrap().members.get_mut("a").unwrap().release = "a\nb".into()).contains("header"));
    assert!(
        wrong(&|s| {
            let same = s.services[SERVICE].clone();
            s.services.insert("other/web".into(), same);
        })
        .contains("both answer the host")
    );
    assert_eq!(proxy.status().generations[SERVICE], 1);
    let stored = std::fs::read_to_string(proxy.state.join("snapshot.json")).unwrap();
    assert!(stored.contains("\"generation\": 1"), "{stored}");
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().text(), "a");
}

#[test]
fn a_disk_that_refuses_leaves_the_routes_as_they_are() {
    let proxy = Proxy::start();
    let (a, b) = (Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1)]));
    proxy.wait_ready(&["a"]);
    let load = Load::start(proxy.address, 2);
    // Root writes everywhere; but nobody can rename a file onto a folder.
    let file = proxy.state.join("snapshot.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    let Err(ClientError::Refused { status, body }) = proxy.try_put(&proxy.worker(), &snapshot(2, &[(&b, 1)])) else { panic!("accepted") };
    assert_eq!(status, 507);
    assert!(body.contains("cannot write the snapshot") && body.contains("unchanged"), "{body}");
    assert_eq!(proxy.status().generations[SERVICE], 1);
    std::fs::remove_dir_all(&file).unwrap();
    assert_eq!(proxy.put(&snapshot(2, &[(&b, 1)])).generations[SERVICE], 2);
    assert_eq!(load.stop().failures, Vec::<String>::new());
}
