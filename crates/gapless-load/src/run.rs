//! Runs a plan inside the calling process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::dispatcher::Dispatcher;
use crate::error::LoadError;
use crate::exchange::{Exchanger, Finished, Slot};
use crate::failure::{Cause, Failure};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Recording;
use crate::schedule::Schedule;

/// How often a snapshot is made.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// Most requests in flight: the standard rate against a hung server until its deadline, four times.
const MAX_IN_FLIGHT: usize = 20_000;

/// Watches and stops a run; its copies are the same control.
#[derive(Clone, Debug)]
pub struct Control {
    stop: Arc<watch::Sender<bool>>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// The control of a run to come.
    pub fn new() -> Self {
        Self { stop: Arc::new(watch::Sender::new(false)), progress: Arc::new(watch::Sender::new(Progress::default())) }
    }

    /// Starts no further request; those in flight are awaited until their deadline.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The snapshots of the run, one every 250 ms; only the newest is kept.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    async fn stopped(&self) {
        // It can only fail once all senders are gone, and one of them is in `self`.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// Runs `plan` until its duration is over or `control` stops it, and every request that was started has ended.
/// Fails only if the plan cannot be run: what happens to requests is in the recording.
pub async fn run(plan: Plan, control: &Control) -> Result<Recording, LoadError> {
    let exchanger = Arc::new(Exchanger::new(&plan)?);
    let schedule = Schedule::new(&plan.classes, plan.rate_per_second, plan.seed);
    let limit = plan.duration_ms.map(|duration_ms| schedule.count_within(duration_ms));
    let start = Instant::now();
    let (dispatcher, slots) = Dispatcher::start(schedule, start.into_std(), limit)?;
    let names = plan.classes.iter().map(|class| class.name.clone()).collect();
    let mut run = Run { exchanger, control, ledger: Ledger::new(names, start), requests: JoinSet::new() };
    run.start_requests(slots).await;
    drop(dispatcher);
    run.await_requests().await;
    control.progress.send_replace(run.ledger.progress());
    Ok(run.ledger.into_recording())
}

struct Run<'a> {
    exchanger: Arc<Exchanger>,
    control: &'a Control,
    ledger: Ledger,
    requests: JoinSet<Finished>,
}

impl Run<'_> {
    /// Starts each request that the dispatcher hands out, until there are no more or the run is stopped.
    async fn start_requests(&mut self, mut slots: UnboundedReceiver<Slot>) {
        let control = self.control.clone();
        let stopped = control.stopped();
        tokio::pin!(stopped);
        let mut ticks = ticks();
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                slot = slots.recv() => match slot {
                    Some(slot) => self.start(slot),
                    None => return,
                },
                Some(ended) = self.requests.join_next() => self.finish(ended),
                _ = ticks.tick() => self.publish(),
            }
        }
    }

    async fn await_requests(&mut self) {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                ended = self.requests.join_next() => match ended {
                    Some(ended) => self.finish(ended),
                    None => return,
                },
                _ = ticks.tick() => self.publish(),
            }
        }
    }

    fn start(&mut self, slot: Slot) {
        self.ledger.start_request(slot.class);
        if self.requests.len() < MAX_IN_FLIGHT {
            self.requests.spawn(Arc::clone(&self.exchanger).perform(slot));
        } else {
            let failure = Failure::new(Cause::WitnessLimit, format!("{MAX_IN_FLIGHT} requests are in flight"));
            self.ledger.finish_request(Finished::never_sent(slot, failure));
        }
    }

    /// A panic inside a request is the witness's own fault and must not pass for a count.
    fn finish(&mut self, ended: Result<Finished, JoinError>) {
        match ended {
            Ok(finished) => self.ledger.finish_request(finished),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => unreachable!("requests are never cancelled: {error}"),
        }
    }

    fn publish(&mut self) {
        self.control.progress.send_replace(self.ledger.progress());
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(PROGRESS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
