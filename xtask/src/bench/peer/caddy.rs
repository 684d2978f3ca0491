//! Caddy, configured anew over its API (documentation, "API", `POST /load`).

use super::{Members, Running, Site, tool};
use crate::bench::http::{self, Request};
use crate::bench::interrupt;
use crate::bench::process::Program;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// No request of the witness takes half as long.
const LONGEST_REQUEST: Duration = Duration::from_secs(3);

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

/// Loaded, and waited as long as the longest request may take: of requests that began under an older configuration Caddy's API tells nothing.
pub fn switch(running: &Running, to: &Members) -> Result<(), String> {
    load(running, to)?;
    interrupt::sleep(LONGEST_REQUEST)
}

fn socket(running: &Running) -> PathBuf {
    running.site.folder.join("admin.sock")
}
