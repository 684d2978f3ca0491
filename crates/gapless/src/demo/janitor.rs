//! Cleans up after a demo, whatever became of it.
//!
//! A janitor is a process of its own. It waits for the demo at the other end of a pipe: when that end closes, because the demo is over, was interrupted, panicked or was killed, it
//! ends the demo's processes and removes its nodes, networks and mounts. Only the word [`KEEP`] sends it home without work. So cleaning up is done in
//! one place, and there is no end of a demo without it.

use super::family::Family;
use super::folders::Folders;
use super::leftover;
use gapless_engine::error::{Context, Error};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// What the demo tells the janitor when everything shall go on running.
const KEEP: &str = "keep";

/// A janitor that waits.
pub struct Janitor {
    child: Child,
    input: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the janitor of the demo in these folders. It is out of reach of the terminal's Ctrl-C.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, folders: &Folders) -> Result<Janitor, Error> {
        let mut command = Command::new(program);
        command.arg("demo").arg("--janitor").arg("--state").arg(&folders.root).arg("--cache").arg(&folders.cache);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().context(|| "start the process that cleans up after the demo".to_owned())?;
        let input = child.stdin.take();
        Ok(Janitor { child, input })
    }

    /// Sends it home: what runs goes on running.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn keep(mut self) -> Result<(), Error> {
        if let Some(input) = &mut self.input {
            input.write_all(KEEP.as_bytes()).context(|| "tell the janitor to keep everything".to_owned())?;
        }
        self.end().map(|_| ())
    }

    /// Lets it clean up, and waits. Answers with what it did, line by line.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn clean(mut self) -> Result<Vec<String>, Error> {
        self.end()
    }

    fn end(&mut self) -> Result<Vec<String>, Error> {
        drop(self.input.take());
        let mut told = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut told).context(|| "hear from the janitor".to_owned())?;
        }
        let status = self.child.wait().context(|| "wait for the janitor".to_owned())?;
        if !status.success() {
            return Err(Error::new(format!("not everything could be cleaned up: {}", told.trim()))
                .hint("run `gapless demo --end`, which tries again"));
        }
        Ok(told.lines().map(str::to_owned).collect())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if self.input.is_some() {
            // An end that nobody planned has no other way to tell.
            if let Err(error) = self.end() {
                eprintln!("{error}");
            }
        }
    }
}

/// The janitor's process.
///
/// # Errors
/// When something could not be removed.
pub fn main(folders: &Folders) -> Result<(), Error> {
    let mut told = String::new();
    // However the other end was closed, it is closed.
    let _ = std::io::stdin().lock().read_to_string(&mut told);
    if told == KEEP {
        return Ok(());
    }
    for line in clean(folders)? {
        // The demo that would have read it may be dead.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    Ok(())
}

/// Ends the processes of the demo in these folders and removes everything that it made on this machine. Its files stay. Answers with what was done.
///
/// # Errors
/// When something could not be removed.
pub fn clean(folders: &Folders) -> Result<Vec<String>, Error> {
    let mut done = Family::open(&folders.root)?.end()?;
    for state in [folders.server(), folders.naive()] {
        done.extend(leftover::remove(&state)?);
    }
    Ok(done)
}
