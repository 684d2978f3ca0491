//! Caddy.

use super::{Site, tool};
use crate::bench::process::Program;
use rustix::process::Signal;

pub fn start(site: &Site) -> Result<Program, String> {
    let members: Vec<String> = site.setup.members.iter().map(|(_, address)| address.to_string()).collect();
    let configuration = site.write("Caddyfile", &site.values().with("members", members.join(" ")))?;
    let mut command = tool("caddy");
    command.env("HOME", site.folder).arg("run").arg("--adapter").arg("caddyfile").arg("--config").arg(configuration);
    Program::start("caddy", &mut command, &site.log(), Signal::TERM)
}
