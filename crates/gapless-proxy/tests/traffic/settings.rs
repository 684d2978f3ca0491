//! What a person sets: which requests are let in, how a node is chosen, and that a change needs no restart.

use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, of, route, snapshot, totals};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn serving() -> (Proxy, Node, Node) {
    let (proxy, a, b) = (Proxy::start(), Node::start("a"), Node::start("b"));
    proxy.put(&snapshot(1, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    (proxy, a, b)
}

fn treated(treatment: Value) -> Value {
    json!({ "services": { SERVICE: treatment } })
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn get(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::new(proxy.address).request("GET", path, headers, b"").expect("an answer")
}

#[test]
fn the_longest_path_of_a_host_counts_and_a_service_may_answer_more_places() {
    let (proxy, shop, api) = (Proxy::start(), Node::start("shop"), Node::start("api"));
    let mut both = of(route(1, &[(&shop, 1)]));
    both.services.get_mut(SERVICE).unwrap().host = "shop.example".to_string();
    let mut other = route(1, &[(&api, 1)]);
    other.host = "shop.example/api/v2".to_string();
    both.services.insert("shop/api".to_string(), other);
    proxy.put(&both);
    eventually("both pass", || proxy.status().nodes.values().flat_map(|nodes| nodes.values()).all(|node| node.passes > 0));
    let ask = |host: &str, path: &str| get(&proxy, path, &[("Host", host)]);
    for (path, node) in
        [("/name", "shop"), ("/api/v2", "api"), ("/api/v2?x", "api"), ("/api/v2/name", "api"), ("/api/v2x", "shop"), ("/api", "shop")]
    {
        assert_eq!(ask("shop.example", path).text(), node, "{path}");
    }
    assert_eq!(ask("www.shop.example", "/name").status, 404);
    proxy.settings(json!({ "services": { "shop/api": { "also": ["www.shop.example", "shop.example/old"] } } }));
    assert_eq!((ask("www.shop.example", "/").text(), ask("shop.example", "/old/x").text()), ("api".to_string(), "api".to_string()));
    assert_eq!(ask("shop.example", "/name").text(), "shop", "what a service declares comes before");
}

#[test]
fn who_is_kept_out_is_told_why_and_counted_apart() {
    let (proxy, a, b) = serving();
    let load = Load::start(proxy.address, 2);
    let seen = load.stop();
    let before = a.begun() + b.begun();
    proxy.settings(treated(json!({ "body_bytes": 10 })));
    let post = |body: &[u8]| Client::new(proxy.address).post("/upload", body).unwrap();
    assert_eq!((post(b"0123456789").status, post(b"0123456789A").status), (200, 413));
    let chunked = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert_eq!(Client::new(proxy.address).raw(chunked, false).unwrap().status, 413);
    proxy.settings(treated(json!({ "maintenance": { "page": "<h1>back at noon</h1>", "retry_after_s": 60 } })));
    let closed = get(&proxy, "/name", &[]);
    assert_eq!(
        (closed.status, closed.header("retry-after"), closed.header("content-type")),
        (503, Some("60"), Some("text/html; charset=utf-8"))
    );
    assert_eq!(closed.text(), "<h1>back at noon</h1>");
    proxy.settings(treated(json!({ "rate": { "per_second": 1, "burst": 3 } })));
    let statuses: Vec<u16> = (0..5).map(|_| get(&proxy, "/name", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    proxy.settings(treated(json!({ "requests_in_flight": 1 })));
    let address = proxy.address;
    let slow = std::thread::spawn(move || Client::new(address).get("/slow?ms=600").unwrap().status);
    eventually("one is on its way", || a.asked("/slow?ms=600") + b.asked("/slow?ms=600") == 1);
    assert_eq!(get(&proxy, "/name", &[]).status, 503);
    assert_eq!(slow.join().unwrap(), 200);
    proxy.settings(json!({}));
    assert_eq!(get(&proxy, "/name", &[]).status, 200);
    let record = proxy.record();
    let counted = totals(&record);
    assert_eq!((counted.failed, record.refused), (0, 5), "the body that grew too large broke off: {counted:?}");
    assert_eq!(counted.requests, seen.requests + a.begun() + b.begun() - before - 1);
}

#[test]
fn an_address_may_have_so_many_connections_and_a_head_so_many_bytes() {
    let (proxy, _a, _b) = serving();
    proxy.settings(json!({ "clients": { "connections_per_address": 2, "head_bytes": 2000, "head_fields": 5 } }));
    let mut kept: Vec<Client> = (0..2).map(|_| Client::new(proxy.address)).collect();
    assert!(kept.iter_mut().all(|client| client.get("/name").unwrap().status == 200));
    assert!(Client::new(proxy.address).get("/name").is_err(), "a third connection");
    kept.pop();
    eventually("there is room again", || Client::new(proxy.address).get("/name").is_ok_and(|answer| answer.status == 200));
    drop(kept);
    proxy.settings(json!({ "clients": { "head_bytes": 2000, "head_fields": 5 } }));
    let long = "x".repeat(2000);
    assert_eq!(get(&proxy, "/name", &[("X-Long", &long)]).status, 431);
    assert_eq!(get(&proxy, &format!("/{long}"), &[]).status, 414);
    assert_eq!(get(&proxy, "/name", &[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]).status, 431);
}

#[test]
fn each_part_of_a_request_has_its_time() {
    let (proxy, _a, _b) = serving();
    proxy.settings(treated(json!({ "timeouts": { "answer_ms": 200, "body_ms": 200, "answer_body_ms": 300 } })));
    let load = Load::start(proxy.address, 2);
    let begun = Instant::now();
    assert_eq!(get(&proxy, "/slow?ms=3000", &[]).status, 504);
    let mut slow = Client::new(proxy.address);
    slow.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin").unwrap();
    assert_eq!(slow.receive().unwrap().status, 408);
    assert!(Client::new(proxy.address).get("/stream?n=2&ms=3000").is_err(), "it falls silent inside its answer");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(get(&proxy, "/stream?n=10&ms=100", &[]).body.len(), 100, "as long as it goes on");
    proxy.settings(json!({ "clients": { "head_ms": 200, "idle_ms": 200 } }));
    let mut silent = Client::new(proxy.address);
    silent.send(b"GET / HTT").unwrap();
    assert_eq!(silent.receive().unwrap().status, 408);
    let mut idle = Client::new(proxy.address);
    idle.get("/name").unwrap();
    let mut end = [0; 1];
    assert_eq!(std::io::Read::read(idle.stream().unwrap(), &mut end).unwrap(), 0, "an idle connection ends");
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn a_client_stays_on_its_node_and_then_on_its_release_until_that_has_no_share() {
    let (proxy, a, b, c) = (Proxy::start(), Node::start("a"), Node::start("b"), Node::start("c"));
    let put = |generation, weights: [u16; 3]| {
        let mut route = route(generation, &[(&a, weights[0]), (&b, weights[1]), (&c, weights[2])]);
        route.members.get_mut("c").unwrap().release = "web-r2".to_string();
        proxy.put(&of(route));
    };
    put(1, [1, 1, 1]);
    proxy.wait_ready(&["a", "b", "c"]);
    proxy.settings(treated(json!({ "sticky": { "cookie": "where" } })));
    let first = (0..50).map(|_| get(&proxy, "/name", &[])).find(|answer| answer.text() == "a").expect("one of many on a");
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().unwrap().to_string();
    assert_eq!(cookie, "where=a.web-r1");
    let ask = || get(&proxy, "/name", &[("Cookie", &format!("other=1; {cookie}"))]);
    assert!((0..30).all(|_| ask().text() == "a" && ask().header("set-cookie").is_none()));
    // Its node leaves, and its release stays.
    put(2, [0, 1, 1000]);
    let moved = ask();
    assert_eq!((moved.text().as_str(), moved.header("set-cookie").map(|value| value.starts_with("where=b.web-r1;"))), ("b", Some(true)));
    // Its release has no share any more.
    put(3, [0, 0, 1]);
    assert_eq!(ask().text(), "c");
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn testers_get_the_newest_release_and_others_what_the_weights_say() {
    let (proxy, old, new) = (Proxy::start(), Node::start("old"), Node::start("new"));
    let mut both = route(1, &[(&old, 1000), (&new, 1)]);
    both.members.get_mut("new").unwrap().release = "web-r10".to_string();
    both.members.get_mut("old").unwrap().release = "web-r9".to_string();
    proxy.put(&of(both.clone()));
    proxy.wait_ready(&["old", "new"]);
    proxy.settings(treated(json!({ "testers": { "header": ["X-Tester", "yes"], "cookie": ["tester", "1"] }, "tells_release": false })));
    let count = |headers: &[(&str, &str)]| (0..40).filter(|_| get(&proxy, "/name", headers).text() == "new").count();
    assert_eq!((count(&[("x-tester", "yes")]), count(&[("Cookie", "tester=1")])), (40, 40));
    assert!(count(&[("X-Tester", "no")]) < 5);
    assert_eq!(get(&proxy, "/name", &[]).header("x-gapless-release"), None, "switched off");
    // The newest one has no share: testers are like others.
    both.generation = 2;
    both.members.get_mut("new").unwrap().weight = 0;
    proxy.put(&of(both));
    assert_eq!(count(&[("x-tester", "yes")]), 0);
}

#[test]
fn one_after_the_other_is_one_after_the_other() {
    let (proxy, a, b) = serving();
    proxy.settings(treated(json!({ "balance": "round-robin" })));
    let mut client = Client::new(proxy.address);
    let (before_a, before_b) = (a.begun(), b.begun());
    (0..100).for_each(|_| drop(client.get("/name").unwrap()));
    assert_eq!((a.begun() - before_a, b.begun() - before_b), (50, 50));
}

#[test]
fn a_node_that_loses_requests_in_a_row_is_left_alone_with_the_evidence() {
    let (proxy, a, b) = serving();
    proxy.settings(treated(json!({ "eject_after": 3 })));
    let mut slow_check = route(2, &[(&a, 1), (&b, 1)]);
    slow_check.members.values_mut().for_each(|member| member.check.interval_ms = 60_000);
    proxy.put(&of(slow_check));
    a.inside.breaks.store(true, Ordering::SeqCst);
    let load = Load::start(proxy.address, 2);
    eventually("it is left alone", || {
        proxy.node_status("a").unwrap().ejected.is_some_and(|why| why.contains("3 requests in a row came to nothing"))
    });
    load.stop();
    let begun = a.begun();
    assert!((0..30).all(|_| get(&proxy, "/name", &[]).text() == "b"));
    assert_eq!(a.begun(), begun);
    // Where nobody else is there, it is better than nobody.
    proxy.put(&snapshot(3, &[(&a, 1)]));
    a.inside.breaks.store(false, Ordering::SeqCst);
    assert_eq!(get(&proxy, "/name", &[]).text(), "a");
}

#[test]
fn a_new_node_warms_up() {
    let (proxy, a, b) = (Proxy::start(), Node::start("a"), Node::start("b"));
    proxy.settings(treated(json!({ "slow_start_ms": 60_000 })));
    proxy.put(&snapshot(1, &[(&a, 1)]));
    proxy.wait_ready(&["a"]);
    std::thread::sleep(Duration::from_millis(1500));
    proxy.put(&snapshot(2, &[(&a, 1), (&b, 1)]));
    proxy.wait_ready(&["a", "b"]);
    let names: BTreeMap<String, usize> = (0..400).map(|_| get(&proxy, "/name", &[]).text()).fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    });
    // 1.5 s of 60 against the least share, which is 20 of 1000; without a slow start both would have 200.
    assert!(names.get("b").copied().unwrap_or(0) > 100 && names["a"] > 180, "both have the least share or little more: {names:?}");
}

#[test]
fn settings_change_under_load_without_a_restart_and_listeners_come_and_go() {
    let (proxy, _a, _b) = serving();
    let pid = proxy.worker_pid();
    let load = Load::start(proxy.address, 4);
    for round in 0..20 {
        proxy.settings(treated(json!({ "balance": if round % 2 == 0 { "round-robin" } else { "two-choices" } })));
    }
    assert_eq!(proxy.worker_pid(), pid, "the same worker all the time");
    let more = free_address();
    proxy.settings(json!({ "listeners": [{ "address": more, "speaks": "http" }] }));
    assert_eq!(proxy.proxy_status().listening, [proxy.address, more]);
    assert_eq!(Client::new(more).get("/name").unwrap().status, 200);
    let on_more = Load::start(more, 2);
    proxy.settings(json!({ "listeners": [{ "address": more, "speaks": { "redirect-to-https": 443 } }] }));
    on_more.stop();
    let redirected = Client::new(more).request("POST", "/a?b", &[("Host", "Shop.example:80")], b"x").unwrap();
    assert_eq!((redirected.status, redirected.header("location")), (308, Some("https://shop.example/a?b")));
    proxy.settings(json!({}));
    eventually("nobody listens there", || Client::new(more).get("/name").is_err());
    let refused = proxy.try_settings(json!({ "listeners": [{ "address": "192.0.2.1:80", "speaks": "http" }] })).unwrap_err();
    assert!(refused.to_string().contains("cannot listen on 192.0.2.1:80"), "{refused}");
    assert!(proxy.try_settings(json!({ "clients": { "head_bytes": 1 } })).is_err());
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    assert_eq!(totals(&proxy.record()).failed, 0);
}

#[test]
fn settings_outlive_the_worker_and_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let (state, address) = (folder.path().join("state"), free_address());
    let node = Node::start("a");
    let mut proxy = Proxy::start_in(state.clone(), address);
    proxy.put(&snapshot(1, &[(&node, 1)]));
    proxy.settings(treated(json!({ "maintenance": { "page": "later" } })));
    crate::support::proxy::signal(proxy.worker_pid(), rustix::process::Signal::KILL);
    eventually("the next worker keeps the settings", || Client::new(address).get("/name").is_ok_and(|answer| answer.text() == "later"));
    proxy.terminate();
    assert!(proxy.wait_end().success());
    let proxy = Proxy::start_in(state, address);
    assert_eq!(get(&proxy, "/name", &[]).text(), "later");
}

#[test]
fn the_access_log_tells_of_every_request() {
    let (proxy, _a, _b) = serving();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    proxy.settings(json!({ "access_log": path }));
    let answer =
        get(&proxy, "/bytes?n=300", &[("Host", "Shop.example:80"), ("X-Request-Id", "abc"), ("User-Agent", "a \"quoted\"\u{e9} one")]);
    let _ = Client::new(proxy.address).post("/close", b"x");
    let lines = |path: &std::path::Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    };
    eventually("two lines", || lines(&path).len() == 2);
    let mut told = lines(&path);
    told.sort_by_key(|line| line["status"].as_u64());
    let line = &told[0];
    for (name, value) in [
        ("client", json!("127.0.0.1")),
        ("service", json!(SERVICE)),
        ("method", json!("GET")),
        ("host", json!("shop.example")),
        ("target", json!("/bytes?n=300")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("bytes", json!(300)),
        ("release", json!("web-r1")),
        ("request_id", json!("abc")),
        ("outcome", json!("whole")),
        ("retried", json!(false)),
        ("user_agent", json!("a \"quoted\"\u{e9} one")),
        ("node", json!(answer.node())),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert_eq!(
        (told[1]["outcome"].as_str(), told[1]["cause"].as_str(), told[1]["status"].as_u64()),
        (Some("failed"), Some("node-closed"), Some(502))
    );
    // A file that is moved away is made anew.
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    eventually("a fresh file", || {
        get(&proxy, "/name", &[]);
        !lines(&path).is_empty()
    });
}

#[test]
fn metrics_tell_what_happened_and_a_collector_finds_them() {
    let (proxy, _a, _b) = serving();
    let address = free_address();
    proxy.settings(json!({ "metrics": address }));
    (0..7).for_each(|_| drop(get(&proxy, "/name", &[])));
    get(&proxy, "/status?code=404", &[]);
    let _ = Client::new(proxy.address).post("/close", b"x");
    let told = |address: SocketAddr| Client::new(address).get("/metrics").map(|answer| answer.text()).unwrap_or_default();
    let text = told(address);
    for line in [
        "gapless_requests_total{service=\"hello/web\",release=\"web-r1\",status=\"2\"} 7",
        "gapless_requests_total{service=\"hello/web\",release=\"web-r1\",status=\"4\"} 1",
        "gapless_failed_total{service=\"hello/web\",release=\"\",cause=\"node-closed\"} 1",
        "gapless_small_get_seconds_count{service=\"hello/web\",release=\"web-r1\"} 8",
        "gapless_node_ready{service=\"hello/web\",node=\"a\"} 1",
        "# TYPE gapless_small_get_seconds histogram",
    ] {
        assert!(text.lines().any(|told| told == line), "`{line}` is missing in\n{text}");
    }
    proxy.upgrade().expect("a new worker");
    eventually("the next worker tells its own", || told(address).contains("gapless_node_ready"));
    let more = free_address();
    proxy.settings(json!({ "metrics": more }));
    assert!(told(more).contains("gapless_client_connections"));
    eventually("no longer there", || told(address).is_empty());
}
