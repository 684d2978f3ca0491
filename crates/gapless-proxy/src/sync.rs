//! Locks without poison, and the one counter that everybody waits on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Locks. A thread that panicked inside leaves counts that are at most off by one: better than a proxy that panics everywhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts up with every change that somebody could wait for: see `WorkerStatus::revision`.
#[derive(Debug)]
pub(crate) struct Changes(watch::Sender<u64>);

impl Changes {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(1))
    }

    pub(crate) fn bump(&self) {
        self.0.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn revision(&self) -> u64 {
        *self.0.borrow()
    }

    /// Sees every change from now on: subscribe first, look second, wait third.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
