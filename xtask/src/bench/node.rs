//! The service behind the proxies while groups of nodes are switched: real Apache processes on addresses of their own.

use crate::bench::peer::{self, Members, tool};
use crate::bench::place::{Place, free_addresses};
use crate::bench::process::{Program, said_by};
use crate::bench::template::{self, Values};
use crate::bench::{http, interrupt};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long an Apache may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What mod_ratelimit lets through for the slow answer, in KiB a second.
const SLOW_KIB_PER_SECOND: usize = 128;

/// How long the slow answer takes, in seconds.
const SLOW_SECONDS: usize = 1;

/// Bytes of the large answer: the numbers from 1 on, one a line, as the witness checks them.
pub const LARGE_BYTES: usize = 1 << 20;

/// Two nodes that run or rest, always on the same addresses.
pub struct Group {
    /// The nodes.
    pub members: Members,
    running: Vec<Program>,
}

impl Group {
    /// A group that rests.
    ///
    /// # Errors
    /// When there are no addresses for it.
    pub fn new(name: &str) -> Result<Group, String> {
        let addresses: [SocketAddr; 2] = free_addresses()?;
        let members = addresses.iter().enumerate().map(|(number, address)| (format!("{name}{number}"), *address)).collect();
        Ok(Group { members, running: Vec::new() })
    }

    /// Starts the processes. They may not answer yet.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(&mut self, root: &Path, place: &Place) -> Result<(), String> {
        for (name, address) in &self.members {
            self.running.push(start(root, place, name, *address)?);
        }
        Ok(())
    }

    /// Waits until every node answers.
    ///
    /// # Errors
    /// When one does not in time.
    pub fn wait(&self) -> Result<(), String> {
        for (name, address) in &self.members {
            let look = || Ok(http::get(*address, "/healthz").ok().filter(|answer| answer.status == 200));
            interrupt::wait_for(&format!("the node {name}"), START_PATIENCE, look)?;
        }
        Ok(())
    }

    /// Ends the processes at once, whatever they do.
    pub fn stop(&mut self) {
        for program in &self.running {
            let _ = program.signal(Signal::TERM);
        }
        self.running.clear();
    }
}

fn start(root: &Path, place: &Place, name: &str, address: SocketAddr) -> Result<Program, String> {
    let folder = place.folder(&format!("node-{name}"))?;
    let values = Values::default()
        .with("folder", folder.display())
        .with("files", place.path("site").display())
        .with("address", address)
        .with("name", name)
        .with("slow_seconds", SLOW_SECONDS)
        .with("slow_kib_per_second", SLOW_KIB_PER_SECOND);
    let configuration = template::write(root, "node.conf", &peer::installed(values), &folder)?;
    let mut command = tool(peer::APACHE);
    command.arg("-DFOREGROUND").arg("-f").arg(configuration);
    Program::start(name, &mut command, &folder.join("output.log"), Signal::TERM)
}

/// Writes the files that the nodes serve.
///
/// # Errors
/// When one cannot be written.
pub fn site(place: &Place) -> Result<(), String> {
    let folder = place.folder("site")?;
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).map_err(|error| format!("writing {name}: {error}"));
    write("healthz", b"ok\n")?;
    write("upload", b"received\n")?;
    write("slow", &vec![b's'; SLOW_SECONDS * SLOW_KIB_PER_SECOND * 1024])?;
    let mut sequence = String::new();
    for number in 1.. {
        sequence += &format!("{number}\n");
        if sequence.len() >= LARGE_BYTES {
            break;
        }
    }
    write("large", &sequence.as_bytes()[..LARGE_BYTES])?;
    // The witness's self-digest: the first line is the digest of what follows it.
    let rest = "A small answer of a hundred bytes, as a health check or a counter has them.\n";
    write("rest", rest.as_bytes())?;
    let said = said_by(tool("sha256sum").arg(folder.join("rest")), START_PATIENCE)?;
    let digest = said.split_whitespace().next().unwrap_or_default();
    write("check.txt", format!("{digest}\n{rest}").as_bytes())
}
