//! The processes that a demo started, written down on disk, so that they can be ended whatever became of the demo itself.

use gapless_engine::error::{Context, Error};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The list's file name in the demo's folder.
const LIST: &str = "processes.json";

/// How long a process may take to end in order before it is killed: a proxy lets its requests run out, a server its effects.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a process is gone. The processes may be children of a dead demo, so nobody can wait for them.
const LOOK: Duration = Duration::from_millis(10);

/// A process: the id alone could have been given to another one since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is: `server`, `proxy`, `witness`.
    pub role: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine's boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub started: u64,
}

/// The list of a demo's processes.
#[derive(Clone, Debug)]
pub struct Family {
    list: PathBuf,
    members: Vec<Member>,
}

impl Family {
    /// The list in this folder; empty if there is none.
    ///
    /// # Errors
    /// When the list is there and cannot be read.
    pub fn open(folder: &Path) -> Result<Family, Error> {
        let list = folder.join(LIST);
        let members = match std::fs::read(&list) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::new(format!("read {}: {error}", list.display()))),
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Error::new(format!("{} is not understood: {error}", list.display()))
                    .hint("end what an earlier demo left running, then remove the file")
            })?,
        };
        Ok(Family { list, members })
    }

    /// Writes a process down.
    ///
    /// # Errors
    /// When the process is gone already, or the list cannot be written.
    pub fn add(&mut self, role: &str, pid: u32) -> Result<(), Error> {
        let started = started(pid).ok_or_else(|| Error::new(format!("the {role} ended as soon as it was started")))?;
        self.members.retain(|member| member.role != role);
        self.members.push(Member { role: role.to_owned(), pid, started });
        self.save()
    }

    /// Ends every process of the list that still runs, the newest first, and empties the list. Answers with what was ended.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn end(&mut self) -> Result<Vec<String>, Error> {
        let mut ended = Vec::new();
        if self.members.is_empty() {
            return Ok(ended);
        }
        while let Some(member) = self.members.pop() {
            if end(&member) {
                ended.push(format!("{} (process {})", member.role, member.pid));
            }
        }
        self.save()?;
        Ok(ended)
    }

    fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(&self.members).map_err(|error| Error::new(error.to_string()))?;
        let partial = self.list.with_extension("partial");
        std::fs::write(&partial, text).context(|| format!("write {}", partial.display()))?;
        std::fs::rename(&partial, &self.list).context(|| format!("write {}", self.list.display()))
    }
}

/// When a process was started; none when there is no such process, or only its remains that nobody has waited for.
fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything, parentheses too.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok()).flatten()
}

fn alive(member: &Member) -> bool {
    started(member.pid) == Some(member.started)
}

/// Whether there was something to end.
fn end(member: &Member) -> bool {
    if !alive(member) {
        return false;
    }
    for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, PATIENCE)] {
        send(member, signal);
        let deadline = Instant::now() + patience;
        while alive(member) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        if !alive(member) {
            return true;
        }
    }
    true
}

/// Sends a signal to a process that is known to be the one in the list.
pub fn send(member: &Member, signal: Signal) {
    let pid = i32::try_from(member.pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|_| alive(member)) {
        // It may have ended in between, which is what is wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_was_started_is_ended_also_by_a_later_reader() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        Family::open(folder.path()).unwrap().add("server", child.id()).unwrap();
        let mut later = Family::open(folder.path()).unwrap();
        assert_eq!(later.end().unwrap(), [format!("server (process {})", child.id())]);
        assert!(!child.wait().unwrap().success());
        assert!(Family::open(folder.path()).unwrap().end().unwrap().is_empty());
    }

    #[test]
    fn a_process_that_only_has_the_same_id_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let other = Member { role: "server".to_owned(), pid: child.id(), started: 1 };
        assert!(!end(&other));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_cannot_be_added() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Family::open(folder.path()).unwrap().add("server", pid).is_err());
    }
}
