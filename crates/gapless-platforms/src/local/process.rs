//! Processes that are not our children, or are only by inheritance: known by pid and start, watched through a pidfd.

use gapless_engine::declaration::StopSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::param::clock_ticks_per_second;
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, pidfd_open, pidfd_send_signal, setrlimit,
    waitid,
};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What tells a process from every other one that has or had its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number on the host.
    pub pid: i32,
    /// When it began, in clock ticks since the machine's start (proc(5), field 22 of `stat`).
    pub start_ticks: u64,
    /// Which start of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl End {
    /// As one number: a signal counts as 128 and its number, as shells do.
    pub fn code(self) -> i32 {
        match self {
            End::Exited(code) => code,
            End::Killed(signal) => 128 + signal,
        }
    }
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_ticks: stat(pid)?.1, boot: boot() })
    }

    /// Whether it runs. A process that ended and was not waited for does not; one whose first thread alone has ended does, and `stat` tells the two not apart.
    pub fn is_alive(&self) -> bool {
        let state = stat(self.pid).filter(|(_, start)| *start == self.start_ticks && self.boot == boot()).map(|(state, _)| state);
        match state {
            None | Some('X') => false,
            Some('Z') => self.descriptor().is_some_and(|descriptor| !wait(&descriptor, Duration::ZERO)),
            Some(_) => true,
        }
    }

    /// A descriptor of it, as long as it runs or was not waited for.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        let descriptor = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let same = self.boot == boot() && stat(self.pid)?.1 == self.start_ticks;
        same.then_some(descriptor)
    }

    /// Waits for its end without holding a thread: the kernel makes a pidfd readable when its process has ended (pidfd_open(2)).
    pub async fn ended(&self) {
        let Some(descriptor) = self.descriptor() else { return };
        // SAFETY: the descriptor is owned here and stays open until the registration is dropped with it.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        if let Ok(registered) = registered {
            let _ = registered.readable().await;
        }
    }

    /// How it ended, if it did so as a child of this process and nobody asked before.
    pub fn end(&self) -> Option<End> {
        // Another child may have its number by now: its end is not ours to take.
        let same = self.boot == boot() && stat(self.pid)?.1 == self.start_ticks;
        let pid = Pid::from_raw(self.pid).filter(|_| same)?;
        let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        status.exit_status().map(End::Exited).or_else(|| status.terminating_signal().map(End::Killed))
    }

    /// Ends the whole group that this process leads, at once. It must be a child that was not waited for, or be known to be where only its own kind is, so that nobody else
    /// has its number.
    pub fn kill_group(&self) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.descriptor().is_some()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        let began = Duration::from_millis(self.start_ticks.saturating_mul(1000) / clock_ticks_per_second().max(1));
        uptime().saturating_sub(began)
    }

    /// Asks it to end; `false` when nobody is there who could hear it. An init process that has no handler for the signal never sees it
    /// (pid_namespaces(7)): then its children are asked.
    pub fn ask_to_end(&self, descriptor: &OwnedFd, signal: StopSignal) -> bool {
        let signal = kernel_signal(signal);
        if catches(self.pid, signal) {
            return pidfd_send_signal(descriptor, signal).is_ok();
        }
        let is_child = |pid| parent(pid) == Some(self.pid);
        let children = children(self.pid).into_iter().filter_map(|child| descriptor_if(child, is_child));
        children.filter(|child| pidfd_send_signal(child, signal).is_ok()).count() > 0
    }
}

/// A descriptor of the process that has this number, if it is one that is meant. That is asked once more after the descriptor was opened: between a listing and the
/// opening, the number may have become another process's.
pub fn descriptor_if(pid: i32, is_meant: impl Fn(i32) -> bool) -> Option<OwnedFd> {
    let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    is_meant(pid).then_some(descriptor)
}

fn kernel_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Int => Signal::INT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
        StopSignal::Winch => Signal::WINCH,
    }
}

/// How long the machine has run, sleep included, as the starts of processes are counted (proc(5), `uptime`).
fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Ends the process at once. The init of a pid namespace takes all its processes with it.
pub fn kill(descriptor: &OwnedFd) {
    let _ = pidfd_send_signal(descriptor, Signal::KILL);
}

/// Waits for the process to end; `false` when it still runs after `at_most`.
pub fn wait(descriptor: &OwnedFd, at_most: Duration) -> bool {
    let end = std::time::Instant::now() + at_most;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// State and start of a process: proc(5), fields 3 and 22.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = stat_after_the_name(pid)?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// What follows the name (field 2) in a process's `stat`. The name may hold spaces and brackets, hence from the last bracket on; and any bytes, as when it was cut off within a
/// letter.
fn stat_after_the_name(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_ends = bytes.iter().rposition(|byte| *byte == b')')?;
    String::from_utf8(bytes[name_ends + 1..].to_vec()).ok()
}

/// Every node that runs takes a descriptor here, and each that is just made or ended some more; the system's soft limit is meant for programs that use select.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Which start of the machine this is.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// Whether a process has a handler for a signal (`SigCgt` in its `status`).
fn catches(pid: i32, signal: Signal) -> bool {
    let Ok(status) = fs::read(format!("/proc/{pid}/status")) else { return false };
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// The children of this process that ended and that nobody has waited for.
pub fn unclaimed() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let ended = children(own).into_iter().filter(|child| stat(*child).is_some_and(|(state, _)| state == 'Z'));
    ended.filter_map(Process::of).collect()
}

/// The pid namespace that a process is in, also of one that ended and was not waited for.
pub fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Waits for what ended in a pid namespace as a child of this process, its first process apart: that one cannot end before (pid_namespaces(7)), and its end is told to whoever
/// asks for it.
pub fn reap_in(namespace: &Path, first: &Process) {
    let inside = |child: &Process| child.pid != first.pid && pid_namespace(child.pid).as_deref() == Some(namespace);
    for child in unclaimed().iter().filter(|child| inside(child)) {
        let _nobody_asks = child.end();
    }
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|candidate| parent(*candidate) == Some(pid)).collect()
}

fn parent(pid: i32) -> Option<i32> {
    stat_after_the_name(pid)?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_alive_until_it_ended_and_tells_its_code_once() {
        let mut child = Command::new("sh").args(["-c", "read x; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        let descriptor = process.descriptor().unwrap();
        assert!(process.is_alive());
        assert!(!wait(&descriptor, Duration::from_millis(5)));
        assert!(process.age() < Duration::from_secs(60), "{:?}", process.age());
        let test = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(test.age() >= process.age(), "a child is older than its parent");
        drop(child.stdin.take());
        assert!(wait(&descriptor, Duration::from_secs(10)));
        assert!(!process.is_alive());
        assert_eq!(process.end(), Some(End::Exited(7)));
        assert_eq!(process.end(), None);
        assert!(child.wait().is_err(), "its end was taken");
    }

    #[test]
    fn a_process_is_known_whatever_its_name_is() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        // As when a name is cut off within a letter.
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"gr\xc3"));
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).expect("it is found");
        assert!(fs::read(format!("/proc/{}/stat", process.pid)).unwrap().windows(5).any(|bytes| bytes == b"(gr\xc3)"));
        assert!(process.is_alive());
        assert_eq!(parent(process.pid), i32::try_from(std::process::id()).ok());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_alive_as_long_as_one_of_its_threads_is() {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("program.c"), folder.path().join("program"));
        let text = "#include <pthread.h>\n#include <stdio.h>\nvoid *stay(void *none) { getchar(); return none; }\n\
                    int main(void) { pthread_t other; pthread_create(&other, 0, stay, 0); pthread_exit(0); }\n";
        fs::write(&source, text).unwrap();
        assert!(Command::new("gcc").arg("-pthread").arg("-o").args([&program, &source]).status().expect("gcc starts").success());
        let mut child = Command::new(&program).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).expect("it is found");
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while stat(process.pid).is_some_and(|(state, _)| state != 'Z') {
            assert!(std::time::Instant::now() < until, "its first thread does not end");
            std::thread::yield_now();
        }
        assert!(process.is_alive());
        child.kill().unwrap();
        assert!(wait(&process.descriptor().unwrap(), Duration::from_secs(60)));
        assert!(!process.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn only_a_process_that_is_still_meant_is_opened() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, own) = (i32::try_from(child.id()).unwrap(), i32::try_from(std::process::id()).unwrap());
        assert!(children(own).contains(&pid));
        assert!(descriptor_if(pid, |pid| parent(pid) == Some(own)).is_some());
        assert!(descriptor_if(pid, |pid| parent(pid) == Some(1)).is_none(), "a process of somebody else would get the signal");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(descriptor_if(pid, |pid| parent(pid) == Some(own)).is_none());
    }

    #[test]
    fn another_start_of_the_machine_is_another_process() {
        let mut process = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(process.is_alive());
        process.boot = "earlier".to_string();
        assert!(!process.is_alive());
        assert!(process.descriptor().is_none());
    }
}
