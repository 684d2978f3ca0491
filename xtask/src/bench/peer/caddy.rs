//! Caddy, configured anew over its API (documentation, "API", `POST /load`).

use super::{DRAIN_PATIENCE, Members, Running, Site, tool};
use crate::bench::http::{self, Request};
use crate::bench::interrupt;
use crate::bench::process::Program;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;

pub fn start(site: &Site) -> Result<Program, String> {
    let configuration = write(site, &site.members)?;
    let mut command = tool("caddy");
    command.env("HOME", &site.folder).arg("run").arg("--adapter").arg("caddyfile").arg("--config").arg(configuration);
    Program::start("caddy", &mut command, &site.log(), Signal::TERM)
}

fn write(site: &Site, members: &Members) -> Result<PathBuf, String> {
    let addresses: Vec<String> = members.iter().map(|(_, address)| address.to_string()).collect();
    site.write("Caddyfile", &site.values(&[]).with("members", addresses.join(" ")))
}

/// A configuration with these members is loaded, also when it is the one that is there.
pub fn load(running: &Running, members: &Members) -> Result<(), String> {
    let path = write(&running.site, members)?;
    let body = fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    let headers = "content-type: text/caddyfile\r\ncache-control: must-revalidate\r\n";
    http::to_socket(&socket(running), Request { method: "POST", path: "/load", headers, body: &body }).map(|_| ())
}

/// Loaded, and waited until the old nodes have no more requests by Caddy's own count.
pub fn switch(running: &Running, from: &Members, to: &Members) -> Result<(), String> {
    load(running, to)?;
    interrupt::wait_for("the last requests of the old nodes", DRAIN_PATIENCE, || {
        let told = http::ask(&socket(running), "GET", "/reverse_proxy/upstreams", None)?;
        let busy = told.as_array().into_iter().flatten().any(|upstream| {
            let address = upstream["address"].as_str().unwrap_or_default();
            upstream["num_requests"] != 0 && from.iter().any(|(_, old)| old.to_string() == address)
        });
        Ok((!busy).then_some(()))
    })
}

fn socket(running: &Running) -> PathBuf {
    running.site.folder.join("admin.sock")
}
