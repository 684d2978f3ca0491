//! A holder goes on as a newer program, in the same process: the sockets, the lock and the workers are never let go of, and whoever supervises this process sees no end of it.

use crate::error::ProxyError;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the next program finds what was handed on.
const VARIABLE: &str = "GAPLESS_PROXY_HANDED_ON";

/// Everything that a holder has, as descriptors that stay open.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedOn {
    pub(crate) lock: RawFd,
    /// For each address the sockets of all cores.
    pub(crate) listeners: Vec<(SocketAddr, Vec<RawFd>)>,
    /// Those of the command line, with the ports that they got.
    pub(crate) of_command_line: Vec<SocketAddr>,
    pub(crate) workers: Vec<HandedOnWorker>,
    pub(crate) replaced: u32,
    pub(crate) handed_on: u32,
}

/// A worker that goes on under the next holder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedOnWorker {
    pub(crate) pid: u32,
    pub(crate) orders: RawFd,
    pub(crate) output: RawFd,
    pub(crate) leaving: bool,
    pub(crate) last_order: u64,
}

impl HandedOn {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let of_workers = self.workers.iter().flat_map(|worker| [worker.orders, worker.output]);
        self.listeners.iter().flat_map(|(_, descriptors)| descriptors.iter().copied()).chain(of_workers).chain([self.lock])
    }
}

/// What the program before this one handed on, if it did. May be called once in a process, at its start.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn taken() -> Result<Option<HandedOn>, ProxyError> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    // SAFETY: the process has one thread yet, and nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(VARIABLE) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| ProxyError::new(format!("what the holder before handed on cannot be read: {error}")))
}

/// Owns a descriptor that was handed on. May be called once for each.
///
/// # Errors
/// When it is not open.
pub(crate) fn adopt(descriptor: RawFd) -> Result<OwnedFd, ProxyError> {
    close_at_exec(descriptor, true).map_err(|error| ProxyError::new(format!("the descriptor {descriptor} was not handed on: {error}")))?;
    // SAFETY: it is open, as was just seen, and the program before named it for this purpose alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Goes on as this program, with the same arguments. Returns only when it cannot.
pub(crate) fn go_on_as(program: &Path, handed_on: &HandedOn) -> ProxyError {
    let text = match serde_json::to_string(handed_on) {
        Ok(text) => text,
        Err(error) => return ProxyError::new(format!("what is to be handed on cannot be written: {error}")),
    };
    let opened = handed_on.descriptors().try_for_each(|descriptor| close_at_exec(descriptor, false));
    let error = match opened {
        Ok(()) => Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, text).exec(),
        Err(error) => error.into(),
    };
    for descriptor in handed_on.descriptors() {
        // They are open, and this changes nothing else.
        let _ = close_at_exec(descriptor, true);
    }
    ProxyError::path("go on as", program, &error)
}

fn close_at_exec(descriptor: RawFd, closes: bool) -> rustix::io::Result<()> {
    // SAFETY: it is only asked for its flags, whatever it is; one that is not open answers with an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl_setfd(borrowed, if closes { FdFlags::CLOEXEC } else { FdFlags::empty() })
}
