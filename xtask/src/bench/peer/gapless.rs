//! Ours: driven through its admin sockets, as the engine does it.

use super::{DRAIN_PATIENCE, Members, Running, START_PATIENCE, Site};
use crate::bench::process::Program;
use crate::bench::{http, interrupt};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one service that is served.
const SERVICE: &str = "bench/web";

/// Passed checks in a row before a node gets traffic.
const PASSES: u64 = 2;

/// How long a worker waits for news before it says that there are none, in milliseconds.
const STATUS_WAIT_MS: u64 = 200;

/// How long a request may be held when no node is ready, in milliseconds.
const HOLD_MS: u64 = 5000;

pub fn start(site: &Site) -> Result<Program, String> {
    Program::start("gapless", &mut command(&site.program, &state(site), site.address), &site.log(), Signal::TERM)
}

/// The first route, and TLS where there is any.
pub fn begin(running: &mut Running) -> Result<(), String> {
    let site = running.site.clone();
    interrupt::wait_for("the proxy's worker", START_PATIENCE, || Ok(workers(&site).ok()))?;
    route(running, &[(&named(&site.members, running.release), 1)])?;
    http::ask(&holder(&site), "PUT", "/v1/settings", Some(&settings(&site)))?;
    running.tls = workers(&site).is_ok();
    Ok(())
}

/// In the engine's order: the new nodes are checked without traffic, then they get it all, then the old ones are drained.
pub fn switch(running: &mut Running, from: &Members, to: &Members) -> Result<(), String> {
    let release = running.release;
    running.release += 1;
    let (from, to) = (&named(from, release), &named(to, release + 1));
    route(running, &[(from, 1), (to, 0)])?;
    wait(running, "checks of the new nodes", |nodes| to.iter().all(|(name, _)| nodes[name]["passes"].as_u64() >= Some(PASSES)))?;
    route(running, &[(to, 1)])?;
    let names: Vec<&String> = from.iter().map(|(name, _)| name).collect();
    let order = json!({ "service": SERVICE, "nodes": names, "deadline_ms": DRAIN_PATIENCE.as_millis() });
    for worker in workers(&running.site)? {
        http::ask(&worker, "POST", "/v1/drain", Some(&order))?;
    }
    let over = |node: &Value| node["requests_in_flight"].as_u64().unwrap_or(0) == 0 && node["idle_connections"].as_u64().unwrap_or(0) == 0;
    wait(running, "the last requests of the old nodes", |nodes| names.iter().all(|name| over(&nodes[*name])))
}

/// Members under names that no other release has, as the engine gives them.
fn named(members: &Members, release: u64) -> Members {
    members.iter().map(|(name, address)| (format!("r{release}-{name}"), *address)).collect()
}

/// A new worker on the same sockets, and waiting until the old one has ended.
pub fn upgrade(running: &Running) -> Result<(), String> {
    http::ask(&holder(&running.site), "POST", "/v1/upgrade", Some(&Value::Null))?;
    interrupt::wait_for("the end of the old worker", DRAIN_PATIENCE, || Ok((workers(&running.site)?.len() == 1).then_some(())))
}

/// Requests sent again and held, of those that the workers still know.
pub fn record(running: &Running) -> Result<Value, String> {
    let mut sums = [("requests", 0), ("retried", 0), ("held", 0), ("cut", 0)];
    for worker in workers(&running.site)? {
        let record = http::ask(&worker, "GET", "/v1/record?since=0", None)?;
        for slice in record["slices"].as_array().into_iter().flatten() {
            sums.iter_mut().for_each(|(name, sum)| *sum += slice[*name].as_u64().unwrap_or(0));
        }
    }
    Ok(sums.into_iter().map(|(name, sum)| (name.to_string(), json!(sum))).collect::<Map<_, _>>().into())
}

/// Until what every worker says of the service's nodes is good. It is asked as the engine asks: the answer comes when something has changed.
fn wait(running: &Running, what: &str, good: impl Fn(&Value) -> bool) -> Result<(), String> {
    let mut revisions: BTreeMap<PathBuf, u64> = BTreeMap::new();
    interrupt::wait_for(what, DRAIN_PATIENCE, || {
        let mut all_good = true;
        for worker in workers(&running.site)? {
            let revision = revisions.entry(worker.clone()).or_default();
            let status = http::ask(&worker, "GET", &format!("/v1/status?after={revision}&wait_ms={STATUS_WAIT_MS}"), None)?;
            let is_good = good(&status["nodes"][SERVICE]);
            // Of a worker that is good the same is asked again, should another one not be.
            *revision = if is_good { 0 } else { status["revision"].as_u64().unwrap_or(0) };
            all_good &= is_good;
        }
        Ok(all_good.then_some(()))
    })
}

/// Tells every worker of these members with their weights.
fn route(running: &mut Running, members: &[(&Members, u16)]) -> Result<(), String> {
    running.generation += 1;
    let snapshot = snapshot(running.generation, members, running.site.retry_and_hold);
    for worker in workers(&running.site)? {
        http::ask(&worker, "PUT", "/v1/snapshot", Some(&snapshot))?;
    }
    Ok(())
}

/// TLS beside plain HTTP, and a line for each request, as the peers have it.
fn settings(site: &Site) -> Value {
    let certificate = json!({ "chain": site.certificate, "key": site.certificate });
    json!({
        "version": 1,
        "listeners": [{ "address": site.tls_address, "speaks": "https" }],
        "certificates": [certificate],
        "access_log": site.folder.join("access.log"),
    })
}

/// `gapless proxy`, or the example of the proxy's crate that is the proxy alone.
fn command(program: &Path, state: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    if program.file_name().is_some_and(|name| name == "proxy_alone") {
        command.arg(state).arg(address.to_string());
    } else {
        command.arg("proxy").arg("--state").arg(state).arg("--listen").arg(address.to_string());
    }
    command
}

fn state(site: &Site) -> PathBuf {
    site.folder.join("state")
}

fn holder(site: &Site) -> PathBuf {
    state(site).join("proxy.sock")
}

/// The admin sockets of all workers.
fn workers(site: &Site) -> Result<Vec<PathBuf>, String> {
    let status = http::ask(&holder(site), "GET", "/v1/proxy", None)?;
    let sockets = status["workers"].as_array().into_iter().flatten().filter_map(|worker| worker["socket"].as_str());
    let sockets: Vec<PathBuf> = sockets.map(PathBuf::from).collect();
    if sockets.is_empty() { Err("the proxy has no worker".to_string()) } else { Ok(sockets) }
}

/// One service for every host; nodes are checked as the peers check theirs.
fn snapshot(generation: u64, members: &[(&Members, u16)], retry_and_hold: bool) -> Value {
    let check = json!({ "path": "/healthz", "interval_ms": 1000, "timeout_ms": 1000, "passes": PASSES, "failures": 2 });
    let all = members.iter().flat_map(|(members, weight)| members.iter().map(move |member| (member, *weight)));
    let members: Map<String, Value> = all
        .map(|((name, address), weight)| {
            (name.clone(), json!({ "address": address, "weight": weight, "release": "web-r1", "check": check }))
        })
        .collect();
    let hold_ms = if retry_and_hold { HOLD_MS } else { 0 };
    let route = json!({ "generation": generation, "host": "*", "members": members, "retry": retry_and_hold, "hold_ms": hold_ms });
    json!({ "version": 1, "services": { SERVICE: route } })
}
