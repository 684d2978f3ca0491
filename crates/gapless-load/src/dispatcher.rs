//! The clock of the open loop: hands out each request at its scheduled instant, whatever became of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::LoadError;
use crate::exchange::Slot;
use crate::schedule::Schedule;

/// A thread of its own: the runtime's timer counts whole milliseconds, which is longer than a small answer takes.
pub struct Dispatcher {
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
}

impl Dispatcher {
    /// Starts handing out the requests of `schedule` from `start` on, `limit` of them if there is a limit.
    pub fn start(schedule: Schedule, start: Instant, limit: Option<u64>) -> Result<(Self, UnboundedReceiver<Slot>), LoadError> {
        let (sender, receiver) = unbounded_channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        let thread = thread::Builder::new()
            .name("load-dispatcher".to_owned())
            .spawn(move || dispatch(&schedule, start, limit, &seen, &sender))
            .map_err(|error| LoadError::new("cannot start the dispatcher's thread", "look at the limit of processes").caused_by(error))?;
        Ok((Self { thread: Some(thread), stopped }, receiver))
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say: it ends by the flag.
            let _ = thread.join();
        }
    }
}

fn dispatch(schedule: &Schedule, start: Instant, limit: Option<u64>, stopped: &AtomicBool, sender: &UnboundedSender<Slot>) {
    for number in 0..limit.unwrap_or(u64::MAX) {
        let scheduled = start + schedule.offset(number);
        while let Some(wait) = scheduled.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            if stopped.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(wait);
        }
        let slot = Slot { number, class: schedule.class(number), scheduled: scheduled.into() };
        if stopped.load(Ordering::Acquire) || sender.send(slot).is_err() {
            return;
        }
    }
}
