//! A program that the harness runs: with all its children in a process group of its own, so that they are found again whoever their parent is by now.

use crate::bench::interrupt;
use rustix::process::{Pid, Signal, WaitOptions};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end by itself before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Children whose parent ended become the harness's own: it can wait for them, and none gets away.
///
/// # Errors
/// When the system refuses.
pub fn adopt_orphans() -> Result<(), String> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| format!("adopting orphans: {error}"))
}

/// A program with its children. When this is dropped, they end.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stop: Signal,
}

impl Program {
    /// Starts `command`; what it prints is added to the file `log`. The signal `stop` asks it to end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path, stop: Signal) -> Result<Program, String> {
        let open = || File::options().create(true).append(true).open(log).map_err(|error| format!("opening {}: {error}", log.display()));
        let child = command
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("starting {name} ({:?}): {error}", command.get_program()))?;
        Ok(Program { name: name.to_string(), child, stop })
    }

    /// The process that was started first; its group has the same number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Every process of it that runs.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        group(self.pid())
    }

    /// Whether this process is one of it and runs. Cheaper than [`Self::processes`].
    #[must_use]
    pub fn has(&self, pid: i32) -> bool {
        group_of(pid) == Some(self.pid())
    }

    /// Whether the first process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        send(self.pid(), signal).map_err(|error| format!("signalling {}: {error}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Once its end was taken, its number may be another's.
        if self.is_running() {
            let _ = self.signal(self.stop);
        }
        let until = Instant::now() + END_PATIENCE;
        while !self.processes().is_empty() && Instant::now() < until {
            reap(&self.processes());
            let _ = self.child.try_wait();
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in self.processes() {
            let _ = send(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        let until = Instant::now() + END_PATIENCE;
        while !self.processes().is_empty() && Instant::now() < until {
            reap(&self.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs a command to its end and returns what it printed. Ctrl-C ends it.
///
/// # Errors
/// When it cannot be started, fails, takes longer than `patience`, or somebody asked to end.
pub fn said_by(command: &mut Command, patience: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("starting {name}: {error}"))?;
    let ended = interrupt::wait_for(&name, patience, || child.try_wait().map_err(|error| error.to_string()));
    if ended.is_err() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(|error| format!("waiting for {name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = ended?;
    if status.success() { Ok(said) } else { Err(format!("{name} failed ({status}): {said}{}", String::from_utf8_lossy(&output.stderr))) }
}

fn send(pid: i32, signal: Signal) -> Result<(), String> {
    let pid = Pid::from_raw(pid).ok_or("no process id")?;
    rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
}

/// Takes the end of adopted processes; the first one's end belongs to its [`Child`].
fn reap(processes: &[i32]) {
    for pid in processes.iter().skip(1).filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// The processes of a group that have not ended, its leader first. One that ended and was not waited for still counts when it is not the leader.
fn group(leader: i32) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|pid| group_of(*pid) == Some(leader))
        .collect();
    found.sort_by_key(|pid| (*pid != leader, *pid));
    found
}

/// The group of a process, from the fields of `/proc/PID/stat` behind the name, which may hold blanks (proc(5)).
fn group_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_whitespace().nth(2)?.parse().ok()
}
