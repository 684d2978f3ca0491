//! Helpers: programs that the server runs to get something done (runc, ip, nft). They must not outlive a server that was killed, or two of them would work on the
//! same thing after the next start. So each enters a control group of its own kind before it begins, and the next start ends what it finds there.

use super::cgroup::{Cgroups, make_folder, processes};
use super::names::Marks;
use super::process::{Process, descriptor_if, kill, wait};
use gapless_engine::error::{Context, Error};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a helper may take: each does work of milliseconds, and one that hangs must not hold an effect for ever.
const HELPER_DEADLINE: Duration = Duration::from_secs(60);

/// How long the processes of a group may take to be gone after they were killed.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The helpers' control group of an installation. Without control groups of version 2 there is none, and helpers run as ordinary children.
#[derive(Clone, Debug)]
pub struct Helpers {
    folder: Option<PathBuf>,
}

impl Helpers {
    /// The helpers of an installation; the group is made.
    ///
    /// # Errors
    /// When the group cannot be made.
    pub fn new(marks: &Marks, cgroups: &Cgroups) -> Result<Self, Error> {
        let folder = cgroups.unified.as_ref().map(|root| root.join("gapless").join(marks.installation()).join("helpers"));
        if let Some(folder) = &folder {
            make_folder(folder).context(|| format!("making the control group {}", folder.display()))?;
        }
        Ok(Self { folder })
    }

    /// Helpers without a group: for a program that only looks and is no server.
    #[must_use]
    pub fn without_group() -> Self {
        Self { folder: None }
    }

    /// Makes a command enter the group just before its program begins. For any program that the server runs, also in other crates.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn enter(&self, command: &mut Command) -> Result<(), Error> {
        self.folder.as_ref().map_or(Ok(()), |folder| enter_group(command, folder))
    }

    /// Ends all helpers that are left, and waits until they are gone. To be called at a start, before anything else is done.
    ///
    /// # Errors
    /// When one cannot be ended.
    pub fn end_all(&self) -> Result<usize, Error> {
        let Some(folder) = &self.folder else { return Ok(0) };
        end_processes(std::slice::from_ref(folder))
    }

    /// Runs a helper to its end and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// When it cannot be started, fails, or takes longer than [`HELPER_DEADLINE`]; with what it wrote to its error output.
    pub fn run(&self, command: &mut Command, input: &str) -> Result<String, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        self.run_inner(command, input).context(|| format!("running `{name}`"))
    }

    fn run_inner(&self, command: &mut Command, input: &str) -> Result<String, Error> {
        let output = tempfile_like()?;
        let errors = tempfile_like()?;
        command.stdout(output.try_clone().context(|| "its output".into())?);
        command.stderr(errors.try_clone().context(|| "its error output".into())?);
        let ended = self.run_with_output(command, input)?;
        if ended { text_of(output) } else { Err(Error::new(text_of(errors)?.trim().to_string())) }
    }

    /// Runs a helper whose outputs were set; whether it succeeded. What ends the server's terminal does not end it.
    ///
    /// # Errors
    /// When it cannot be started, takes longer than [`HELPER_DEADLINE`], or was killed: then it says nothing of what it was to do.
    pub fn run_with_output(&self, command: &mut Command, input: &str) -> Result<bool, Error> {
        self.enter(command)?;
        command.process_group(0);
        command.stdin(if input.is_empty() { Stdio::null() } else { file_with(input)?.into() });
        let mut child = command.spawn().context(|| "starting it".into())?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let in_time = Process::of(pid).and_then(|process| process.descriptor()).is_none_or(|descriptor| wait(&descriptor, HELPER_DEADLINE));
        if !in_time {
            let _ = child.kill();
        }
        let status = child.wait().context(|| "waiting for it".into())?;
        match (in_time, status.signal()) {
            (false, _) => Err(Error::new(format!("it did not end within {HELPER_DEADLINE:?}"))),
            (true, Some(signal)) => Err(Error::new(format!("it was killed by signal {signal}"))),
            (true, None) => Ok(status.success()),
        }
    }
}

/// Makes a command enter this control group (of version 2) just before its program begins.
///
/// # Errors
/// When there is no such group.
pub fn enter_group(command: &mut Command, folder: &Path) -> Result<(), Error> {
    let path = folder.join("cgroup.procs");
    let procs = OpenOptions::new().write(true).open(&path).context(|| format!("opening {}", path.display()))?;
    let hook = move || rustix::io::write(procs.as_fd(), b"0").map(drop).map_err(std::io::Error::from);
    // SAFETY: between fork and exec only one write to an open descriptor happens: no lock, no allocation.
    unsafe { command.pre_exec(hook) };
    Ok(())
}

/// An unnamed file in memory: what a helper writes never fills a pipe that nobody reads.
fn tempfile_like() -> Result<fs::File, Error> {
    let descriptor = rustix::fs::memfd_create("gapless-helper", rustix::fs::MemfdFlags::CLOEXEC);
    descriptor.map(fs::File::from).map_err(std::io::Error::from).context(|| "making a file in memory".into())
}

/// What a helper reads lies ready: nobody waits for a helper that does not read.
fn file_with(text: &str) -> Result<fs::File, Error> {
    let mut file = tempfile_like()?;
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).context(|| "writing its input".into())?;
    Ok(file)
}

fn text_of(mut file: fs::File) -> Result<String, Error> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context(|| "reading its output".into())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Kills the processes of these groups and waits until none is left. Gives how many there were.
///
/// # Errors
/// When some are still there after [`KILL_DEADLINE`].
pub fn end_processes(folders: &[PathBuf]) -> Result<usize, Error> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let end = Instant::now() + KILL_DEADLINE;
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let left: Vec<i32> = folders.iter().flat_map(|folder| processes(folder)).filter(|pid| *pid != own).collect();
        let left: Vec<Process> = left.into_iter().filter_map(Process::of).filter(Process::is_alive).collect();
        if left.is_empty() {
            return Ok(seen.len());
        }
        if Instant::now() > end {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(Error::new(format!("processes {} cannot be ended", pids.join(", ")))
                .hint("look at them with ps: one in state D waits for a disk or the network"));
        }
        let is_member = |pid| folders.iter().any(|folder| processes(folder).contains(&pid));
        for process in left {
            seen.insert(process.pid);
            if let Some(descriptor) = descriptor_if(process.pid, is_member) {
                kill(&descriptor);
                wait(&descriptor, Duration::from_millis(500));
                process.end();
            }
        }
    }
}
