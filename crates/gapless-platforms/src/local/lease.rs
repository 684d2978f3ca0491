//! Leases: who answers for a thing on the host. What nobody answers for any more is an orphan, and the reaper's.
//!
//! | thing | lease | over when |
//! |---|---|---|
//! | a node, a task's node | the instance of its group, in its name | the engine has destroyed it: its record is gone, or has a tombstone |
//! | a build node, a sandbox | the life of the server that made it, in its record | that server has ended, or another one has begun |
//!
//! A server's life is written down in `/run`, which a full disk of the state folder does not hinder and which the machine's next start empties: no life outlives that.

use super::file;
use super::names::Marks;
use super::process::Process;
use gapless_engine::error::{Context, Error};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// One life of the server of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Counted up since the machine's start.
    life: u64,
    /// The server.
    server: Process,
}

impl Lease {
    /// Begins a new life in this process; all earlier ones are over.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn begin(marks: &Marks) -> Result<Self, Error> {
        let life = Self::latest(marks)?.map_or(0, |lease| lease.life).saturating_add(1);
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let server = Process::of(pid).ok_or_else(|| Error::new("the server does not find itself in /proc"))?;
        let lease = Self { life, server };
        file::write(&place(marks), &lease).context(|| "beginning a life of the server".into())?;
        Ok(lease)
    }

    /// The latest life of an installation's server, if there was one since the machine's start.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn latest(marks: &Marks) -> Result<Option<Self>, Error> {
        file::read(&place(marks))
    }

    /// Which life it is, counted from the machine's start.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether no later life has begun.
    ///
    /// # Errors
    /// When the latest life cannot be read.
    pub fn is_latest(&self, marks: &Marks) -> Result<bool, Error> {
        Ok(Self::latest(marks)?.as_ref() == Some(self))
    }

    /// Whether the server of this life still runs, and is not the process that asks.
    ///
    /// # Errors
    /// When the life cannot be read.
    pub fn is_held_by_another(marks: &Marks) -> Result<bool, Error> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Ok(Self::latest(marks)?.is_some_and(|lease| lease.server.pid != own && lease.is_held()))
    }

    /// Whether the server of this life still runs.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.server.is_alive()
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "life {} of the server, process {}", self.life, self.server.pid)
    }
}

fn place(marks: &Marks) -> PathBuf {
    marks.runtime_folder().join("life.json")
}
