//! The witness: an open-loop load generator that checks every answer and never sends a request twice.
//!
//! It proves what a rollout did to the people who use a service, so it shares no HTTP code with the
//! proxy it watches: the HTTP/1.1 client in here is its own, small and strict (RFC 9112). Whatever
//! a plain client without retries would have suffered, it counts.
//!
//! The way of a request: [`Plan`] says what is sent, the schedule says when, one exchange carries
//! it, a check judges the body, and a [`Sample`] remembers it. [`run`] does this inside the calling
//! process, [`Witness`] in a process of its own, and [`probe`] does it to anyone's URL.

mod body;
mod check;
mod connection;
mod digest;
mod dispatcher;
mod endpoint;
mod error;
mod exchange;
mod failure;
mod head;
mod ledger;
mod plan;
mod pool;
mod probe;
mod process;
mod progress;
mod report;
mod run;
mod sample;
mod schedule;
mod tls;
mod upload;

pub use error::LoadError;
pub use failure::Cause;
pub use plan::{
    Body, Check, ClassPlan, ConnectionUse, DEFAULT_DEADLINE_MS, DEFAULT_RATE_PER_SECOND, LARGE_BYTES, MAX_RATE_PER_SECOND, Method, Plan,
    SMALL_CLASSES, Target, UPLOAD_BYTES, UPLOAD_SPREAD_MS,
};
pub use probe::{
    MAX_PROBE_RATE_PER_SECOND, MAX_PROBE_SECONDS, PROBE_CLASSES, PROBE_RATE_PER_SECOND, PROBE_SECONDS, Probe, probe, probe_plan,
};
pub use process::{Witness, main};
pub use progress::{Interval, Progress};
pub use report::{ClassReport, FailureExample, Recording, ReleaseReport, Report};
pub use run::{Control, run};
pub use sample::{Name, Quantiles, Sample, SampleLog, SplitBucket, Window};
pub use schedule::Schedule;
