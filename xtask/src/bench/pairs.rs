//! Measuring in alternation: every proxy once in each pair, the next pair in the opposite order, so that what the machine does meanwhile meets all of them alike.

use crate::bench::interrupt;
use crate::bench::load::{Counted, float};
use crate::bench::peer::{self, Kind, Running, Setup};
use crate::bench::scenario::Scenario;
use crate::bench::usage::Usage;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Before anything is counted every proxy gets the same traffic for so long: connections are open and memory is there.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long what the load left behind may take: connections that close, a log that is flushed.
const SETTLE: Duration = Duration::from_millis(200);

/// How often and how long it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How many pairs.
    pub pairs: usize,
    /// How long each proxy is measured in a pair, in whole seconds.
    pub time: Duration,
}

/// One proxy in one pair.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What the load's tool says.
    pub counted: Counted,
    /// What the proxy took.
    pub usage: Usage,
}

impl Run {
    /// Processor time for each answer, in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> f64 {
        float(self.usage.run_ns) / 1000.0 / float(self.counted.requests.max(1))
    }
}

/// What came of a scenario: the runs of each proxy in the order of the pairs; none where it cannot do that yet.
pub type Measured = BTreeMap<Kind, Vec<Run>>;

/// Measures a scenario with these proxies.
///
/// # Errors
/// When something cannot be started, or the load's tool fails.
pub fn measure(scenario: &Scenario, kinds: &[Kind], rounds: Rounds, setup: &Setup) -> Result<Measured, String> {
    let mut measured: Measured = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    let mut proxies = Vec::new();
    for kind in kinds {
        proxies.push(peer::start(*kind, setup)?);
    }
    proxies.retain(|proxy| base(scenario, proxy).is_some());
    for proxy in &proxies {
        run(scenario, proxy, WARM_UP, setup)?;
    }
    for pair in 0..rounds.pairs {
        for proxy in &proxies {
            let run = run(scenario, proxy, rounds.time, setup)?;
            eprintln!(
                "{} pair {}: {:<17}{:>8.1} µs/request{:>9.0} requests/s",
                scenario.name,
                pair + 1,
                proxy.kind.name(),
                run.cpu_us(),
                run.counted.per_second
            );
            measured.entry(proxy.kind).or_default().push(run);
        }
        proxies.reverse();
    }
    Ok(measured)
}

fn base(scenario: &Scenario, proxy: &Running) -> Option<String> {
    if scenario.tls { proxy.tls_address().map(|address| format!("https://{address}")) } else { Some(format!("http://{}", proxy.address())) }
}

fn run(scenario: &Scenario, proxy: &Running, time: Duration, setup: &Setup) -> Result<Run, String> {
    let base = base(scenario, proxy).ok_or("it has no such listener")?;
    let before = Usage::of(&proxy.program.processes());
    let counted = scenario.load.run(&base, time, setup.root, &setup.place.path(""))?;
    interrupt::sleep(SETTLE)?;
    let usage = Usage::of(&proxy.program.processes()).since(before);
    if counted.requests == 0 {
        return Err(format!("{}: {} answered nothing", scenario.name, proxy.kind.name()));
    }
    Ok(Run { counted, usage })
}

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of these values; none of no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?),
            _ => *values.get(middle)?,
        };
        Some(Spread { median, least: *values.first()?, greatest: *values.last()? })
    }

    /// As it stands in the results.
    #[must_use]
    pub fn json(self) -> Value {
        json!({ "median": rounded(self.median), "min": rounded(self.least), "max": rounded(self.greatest) })
    }
}

/// Our processor time for each request as a part of a peer's, pair by pair.
#[must_use]
pub fn ratios(measured: &Measured, peer: Kind) -> Vec<f64> {
    let runs = |kind| measured.get(&kind).into_iter().flatten().map(Run::cpu_us);
    runs(Kind::Gapless).zip(runs(peer)).map(|(ours, theirs)| ours / theirs).collect()
}

/// What came of a scenario, for the results.
#[must_use]
pub fn json_of(measured: &Measured) -> Value {
    let mut proxies = Map::new();
    let mut compared = Map::new();
    for (kind, runs) in measured {
        proxies.insert(kind.name().to_string(), if runs.is_empty() { json!("not yet") } else { json_of_runs(runs) });
        if let Some(spread) = Spread::of(ratios(measured, *kind)).filter(|_| *kind != Kind::Gapless) {
            let mut value = spread.json();
            value["pairs"] = ratios(measured, *kind).into_iter().map(rounded).collect();
            compared.insert(kind.name().to_string(), value);
        }
    }
    json!({ "proxies": proxies, "cpu_ratio_of_gapless_to": compared })
}

fn json_of_runs(runs: &[Run]) -> Value {
    let spread = |value: fn(&Run) -> f64| Spread::of(runs.iter().map(value)).map(Spread::json);
    json!({
        "cpu_us_per_request": spread(Run::cpu_us),
        "cpu_us_per_request_by_ticks": spread(|run| float(run.usage.ticks_ns) / 1000.0 / float(run.counted.requests.max(1))),
        "requests_per_second": spread(|run| run.counted.per_second),
        "p50_us": spread(|run| float(run.counted.p50_us)),
        "p99_us": spread(|run| float(run.counted.p99_us)),
        "p999_us": spread(|run| float(run.counted.p999_us)),
        "memory_kib": spread(|run| float(run.usage.memory_kib)),
        "requests": runs.iter().map(|run| run.counted.requests).sum::<u64>(),
        "failed": runs.iter().map(|run| run.counted.failed).sum::<u64>(),
    })
}

/// Three digits behind the point are more than is measured.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_has_its_spread() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, greatest: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }
}
