//! HAProxy: master and worker, as Debian's unit runs it, with nodes switched over the runtime API (management guide, "set server").

use super::{DRAIN_PATIENCE, Members, Running, Site, tool};
use crate::bench::interrupt;
use crate::bench::process::Program;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Standard output is a file here: no HAProxy waits for it. A datagram socket took an eighth more.
const LOG_TARGET: &str = "log stdout format raw local0 info";
const LOG_USE: &str = "log global\n    option httplog";
const NO_LOG: &str = "# no access log";

pub fn start(site: &Site) -> Result<Program, String> {
    let (target, used) = if site.logged { (LOG_TARGET, LOG_USE) } else { (NO_LOG, NO_LOG) };
    let configuration = site.write("haproxy.cfg", &site.values(&site.all()).with("log_target", target).with("log_use", used))?;
    Program::start("haproxy", tool("haproxy").arg("-W").arg("-f").arg(configuration), &site.log(), Signal::TERM)
}

pub fn rest_standby(running: &Running) -> Result<(), String> {
    set_state(running, &running.site.standby, "maint")
}

/// The new nodes are checked in the state `drain` before they are `ready`; the old ones are drained until nothing is sent to them, and then rest.
pub fn switch(running: &Running, from: &Members, to: &Members) -> Result<(), String> {
    set_state(running, to, "drain")?;
    let healthy = |row: &Row| row["status"].starts_with("DRAIN") && row["check_status"].ends_with("L7OK");
    wait(running, to, "checks of the new nodes", healthy)?;
    set_state(running, to, "ready")?;
    set_state(running, from, "drain")?;
    wait(running, from, "the last requests of the old nodes", |row| row["scur"] == "0" && row["used_conn_cur"] == "0")?;
    set_state(running, from, "maint")
}

/// In and out at once.
pub fn switch_naively(running: &Running, from: &Members, to: &Members) -> Result<(), String> {
    set_state(running, to, "ready")?;
    set_state(running, from, "maint")
}

fn set_state(running: &Running, members: &Members, state: &str) -> Result<(), String> {
    for (name, _) in members {
        let said = command(running, &format!("set server nodes/{name} state {state}"))?;
        if !said.trim().is_empty() {
            return Err(format!("haproxy does not make {name} {state}: {said}"));
        }
    }
    Ok(())
}

/// A line of `show stat`, by the names of its columns.
type Row = BTreeMap<String, String>;

fn wait(running: &Running, members: &Members, what: &str, good: impl Fn(&Row) -> bool) -> Result<(), String> {
    interrupt::wait_for(what, DRAIN_PATIENCE, || {
        let rows = rows(&command(running, "show stat nodes 4 -1")?);
        Ok(members.iter().all(|(name, _)| rows.iter().any(|row| row.get("svname") == Some(name) && good(row))).then_some(()))
    })
}

fn rows(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let row = |line: &str| names.iter().map(|name| name.to_string()).zip(line.split(',').map(str::to_string)).collect::<Row>();
    lines.filter(|line| !line.is_empty()).map(row).collect()
}

fn command(running: &Running, words: &str) -> Result<String, String> {
    let socket = running.site.folder.join("admin.sock");
    let talk = || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(format!("{words}\n").as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    talk().map_err(|error: std::io::Error| format!("haproxy: {words}: {error}"))
}
