//! From the proxies' records to the quantities of a receipt.

use gapless_wire::receipt::{Measured, Quantiles};
use gapless_wire::record::{Record, SLICE_MS, Slice};
use std::collections::BTreeMap;

/// How long before a rollout small GETs are compared with, in milliseconds.
const BEFORE_MS: u64 = 60_000;

/// What one worker recorded, and whether more may come of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// As far as it was read.
    pub record: Record,
    /// The worker still answers. What one that ended counted after the last reading is not known.
    pub lives: bool,
}

/// The instants that divide a rollout, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The rollout's start.
    pub from_ms: u64,
    /// Every proxy acknowledged the new route; `None`: that was never so.
    pub shifted_ms: Option<u64>,
    /// The rollout's end.
    pub until_ms: u64,
}

/// What was measured for a service in a window, and why it is not whole, if it is not. Without any record: `None`.
#[must_use]
pub fn measure(service: &str, window: Window, recorded: &[Recorded]) -> (Option<Measured>, Vec<String>) {
    let missing = missing(window, recorded);
    let overlapping = recorded.iter().filter(|one| one.record.until_ms >= window.from_ms);
    if overlapping.count() == 0 {
        return (None, missing);
    }
    let slices: Vec<&Slice> = recorded.iter().flat_map(|one| &one.record.slices).filter(|slice| slice.service == service).collect();
    let between = |from: u64, until: u64| {
        let (from, until) = (floor(from), floor(until));
        slices.iter().copied().filter(move |slice| (from..=until).contains(&slice.at_ms)).collect::<Vec<_>>()
    };
    let inside = between(window.from_ms, window.until_ms);
    let mut measured = totals(&inside);
    measured.from_ms = window.from_ms;
    measured.until_ms = window.until_ms;
    measured.longest_gap_ms = longest_gap(&inside);
    measured.before = quantiles(&between(window.from_ms.saturating_sub(BEFORE_MS), window.from_ms.saturating_sub(SLICE_MS)));
    let shifted = window.shifted_ms.unwrap_or(window.until_ms);
    measured.during = quantiles(&between(window.from_ms, shifted));
    measured.after =
        if window.shifted_ms.is_some() { quantiles(&between(shifted + SLICE_MS, window.until_ms)) } else { Quantiles::default() };
    measured.listen_drops = recorded.iter().map(|one| one.record.listen_drops).sum();
    (Some(measured), missing)
}

fn floor(at_ms: u64) -> u64 {
    at_ms - at_ms % SLICE_MS
}

/// Stretches of the window that no record covers.
fn missing(window: Window, recorded: &[Recorded]) -> Vec<String> {
    let mut missing = Vec::new();
    if recorded.is_empty() {
        missing.push("no proxy's record was to be had".to_string());
        return missing;
    }
    if recorded.iter().all(|one| one.record.began_ms > window.from_ms) {
        missing.push("no record reaches back to the rollout's start".to_string());
    }
    for one in recorded.iter().filter(|one| !one.lives) {
        let (worker, until) = (one.record.worker, one.record.until_ms);
        if (window.from_ms..window.until_ms).contains(&until) {
            missing.push(format!("the proxy's worker {worker} ended; what it counted after {until} is lost"));
        }
    }
    if recorded.iter().all(|one| one.record.until_ms < window.until_ms) {
        missing.push("no record reaches to the rollout's end".to_string());
    }
    missing
}

fn totals(slices: &[&Slice]) -> Measured {
    let mut sum = Measured::default();
    for slice in slices {
        sum.requests += slice.requests;
        sum.retried += slice.retried;
        sum.held += slice.held;
        sum.cut += slice.cut;
        for (cause, count) in &slice.failed {
            sum.failed += count;
            *sum.failed_by_cause.entry(cause.clone()).or_default() += count;
        }
        *sum.by_release.entry(slice.release.clone()).or_default() += slice.requests;
        for (class, count) in slice.statuses.iter().enumerate().filter(|(_, count)| **count > 0) {
            *sum.by_status.entry(format!("{}xx", class + 1)).or_default() += count;
        }
    }
    sum
}

/// The longest time between successive successful small GETs. Where several releases or workers answered in the same slice, the gap inside one of them may have been filled
/// by another: the result is then an upper bound.
fn longest_gap(slices: &[&Slice]) -> Option<u64> {
    let mut stretches: Vec<(u64, u64, u64)> =
        slices.iter().filter_map(|slice| slice.small_ended.map(|(first, last)| (first, last, slice.small_gap_ms))).collect();
    stretches.sort_unstable();
    let (first, last, gap) = *stretches.first()?;
    if stretches.len() == 1 && first == last {
        return None;
    }
    let (mut end, mut longest) = (last, gap);
    for (first, last, gap) in stretches.into_iter().skip(1) {
        longest = longest.max(gap).max(first.saturating_sub(end));
        end = end.max(last);
    }
    Some(longest)
}

fn quantiles(slices: &[&Slice]) -> Quantiles {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for (latency, count) in slices.iter().flat_map(|slice| &slice.latencies) {
        *counts.entry(*latency).or_default() += count;
    }
    let count: u64 = counts.values().sum();
    let at = |parts: u64| {
        let rank = (count * parts).div_ceil(1000).max(1);
        let mut seen = 0;
        counts
            .iter()
            .find(|(_, count)| {
                seen += **count;
                seen >= rank
            })
            .map_or(0, |(latency, _)| *latency)
    };
    Quantiles { count, p50_us: at(500), p99_us: at(990), p999_us: at(999), max_us: counts.keys().next_back().copied().unwrap_or(0) }
}
