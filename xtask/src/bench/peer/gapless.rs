//! Ours: driven through its admin sockets, as the engine does it.

use super::{START_PATIENCE, Site};
use crate::bench::process::Program;
use crate::bench::{http, interrupt};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one service that is served.
const SERVICE: &str = "bench/web";

pub fn start(site: &Site) -> Result<(Program, bool), String> {
    let state = site.folder.join("state");
    let program = Program::start("gapless", &mut command(site.setup.program, &state, site.address), &site.log(), Signal::TERM)?;
    let worker = interrupt::wait_for("the proxy's worker", START_PATIENCE, || Ok(newest_worker(&state).ok()))?;
    http::ask(&worker, "PUT", "/v1/snapshot", Some(&snapshot(1, &site.setup.members)))?;
    let tls = match tls_settings(site) {
        None => false,
        Some(settings) => http::ask(&worker, "PUT", "/v1/settings", Some(&settings)).is_ok(),
    };
    Ok((program, tls))
}

/// What makes the proxy listen with TLS and HTTP/2 on the site's TLS address with its certificate. None: it cannot yet, and those scenarios say so.
fn tls_settings(_site: &Site) -> Option<Value> {
    None
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

fn newest_worker(state: &Path) -> Result<PathBuf, String> {
    let status = http::ask(&state.join("proxy.sock"), "GET", "/v1/proxy", None)?;
    let workers = status["workers"].as_array().and_then(|workers| workers.last());
    workers.and_then(|worker| worker["socket"].as_str()).map(PathBuf::from).ok_or_else(|| "the proxy has no worker".to_string())
}

/// All members with the same weight; checked as the peers check theirs.
fn snapshot(generation: u64, members: &[(String, SocketAddr)]) -> Value {
    let check = json!({ "path": "/healthz", "interval_ms": 1000, "timeout_ms": 1000, "passes": 2, "failures": 2 });
    let members: Map<String, Value> = members
        .iter()
        .map(|(name, address)| (name.clone(), json!({ "address": address, "weight": 1, "release": "web-r1", "check": check })))
        .collect();
    let route = json!({ "generation": generation, "host": "*", "members": members, "retry": true, "hold_ms": 0 });
    json!({ "version": 1, "services": { SERVICE: route } })
}
