//! HAProxy: master and worker, as Debian's unit runs it.

use super::{Site, tool};
use crate::bench::process::Program;
use rustix::process::Signal;

/// Standard output is a file here: no HAProxy waits for it.
const LOG_TARGET: &str = "log stdout format raw local0 info";
const LOG_USE: &str = "log global\n    option httplog";
const NO_LOG: &str = "# no access log";

pub fn start(site: &Site, logged: bool) -> Result<Program, String> {
    let (target, used) = if logged { (LOG_TARGET, LOG_USE) } else { (NO_LOG, NO_LOG) };
    let configuration = site.write("haproxy.cfg", &site.values().with("log_target", target).with("log_use", used))?;
    Program::start("haproxy", tool("haproxy").arg("-W").arg("-f").arg(configuration), &site.log(), Signal::TERM)
}
