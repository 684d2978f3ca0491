//! `gapless probe URL`: the witness pointed at anyone's deployment, gently.

use crate::endpoint::parse_url;
use crate::error::LoadError;
use crate::plan::{Check, ClassPlan, Plan, SHARE_TOTAL, Target};
use crate::report::Recording;
use crate::run::{Control, run};
use crate::sample::{Quantiles, Window};

/// Requests a second when nothing is said.
pub const PROBE_RATE_PER_SECOND: u32 = 50;
/// Seconds when nothing is said.
pub const PROBE_SECONDS: u64 = 30;
/// Highest rate of a probe: enough to see a gap of 5 ms, not enough to be a load on any service.
pub const MAX_PROBE_RATE_PER_SECOND: u32 = 200;
/// Longest probe, in seconds: an hour.
pub const MAX_PROBE_SECONDS: u64 = 3600;
/// The classes of a probe: half of the requests on kept connections, half on their own.
pub const PROBE_CLASSES: [&str; 2] = ["probe", "probe-one-shot"];

/// What a probe saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Totals and samples.
    pub recording: Recording,
    /// Longest time between two successes, in milliseconds.
    pub longest_gap_ms: f64,
    /// Latencies of all successes.
    pub quantiles: Quantiles,
}

impl Probe {
    /// Reads a probe's figures out of its recording.
    pub fn of_recording(recording: Recording) -> Self {
        let longest_gap_ms = recording.samples.longest_gap_ms(&PROBE_CLASSES, Window::ALL);
        let quantiles = recording.samples.quantiles(&PROBE_CLASSES, Window::ALL);
        Self { recording, longest_gap_ms, quantiles }
    }
}

/// The plan of a probe: GETs of one URL, redirects not followed; any status from 200 to 399 is a success.
pub fn probe_plan(url: &str, seconds: u64, rate_per_second: u32) -> Result<Plan, LoadError> {
    let (endpoint, path) = parse_url(url)?;
    check_bound("rate", u64::from(rate_per_second), u64::from(MAX_PROBE_RATE_PER_SECOND), "requests per second")?;
    check_bound("duration", seconds, MAX_PROBE_SECONDS, "seconds")?;
    let scheme = if endpoint.secure { "https" } else { "http" };
    let class = |name, share| ClassPlan::get(name, share, &path, Check::Answered);
    let half = SHARE_TOTAL / 2;
    let classes = vec![class(PROBE_CLASSES[0], half), class(PROBE_CLASSES[1], SHARE_TOTAL - half).one_shot()];
    let mut plan = Plan::new(Target::url(format!("{scheme}://{}", endpoint.host_header)), classes);
    plan.rate_per_second = rate_per_second;
    plan.duration_ms = Some(seconds * 1000);
    Ok(plan)
}

/// Probes `url` for so many seconds at `rate_per_second`.
pub async fn probe(url: &str, seconds: u64, rate_per_second: u32) -> Result<Probe, LoadError> {
    let plan = probe_plan(url, seconds, rate_per_second)?;
    run(plan, &Control::new()).await.map(Probe::of_recording)
}

fn check_bound(what: &str, value: u64, limit: u64, unit: &str) -> Result<(), LoadError> {
    if (1..=limit).contains(&value) {
        return Ok(());
    }
    Err(LoadError::new(
        format!("a {what} of {value} {unit} is not between 1 and {limit} for a probe"),
        "a probe looks, it does not load: stay inside these bounds",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_one_url_in_two_ways() {
        let plan = probe_plan("https://example.org:8443/health?deep=1", 30, 50).unwrap();
        plan.endpoint().unwrap();
        assert_eq!(plan.target.url, "https://example.org:8443");
        assert!(plan.classes.iter().all(|class| class.path == "/health?deep=1" && class.share == 500));
    }

    #[test]
    fn a_probe_is_gentle() {
        assert!(probe_plan("http://a/", 30, MAX_PROBE_RATE_PER_SECOND + 1).is_err());
        assert!(probe_plan("http://a/", 30, 0).is_err());
        assert!(probe_plan("http://a/", MAX_PROBE_SECONDS + 1, 1).is_err());
        assert!(probe_plan("gopher://a/", 30, 50).is_err());
    }
}
