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
    /// When it was gone for sure, in milliseconds since the Unix epoch; `None`: it lives, or that is not known.
    pub gone_by_ms: Option<u64>,
}

/// What the workers of one proxy recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyRecord {
    /// The admin socket of its holder.
    pub proxy: String,
    /// Every worker that was ever read, the present and the past ones; none: the proxy was never read.
    pub workers: Vec<Recorded>,
}

/// From when on a record has every slice.
pub(crate) fn covered_from(record: &Record) -> u64 {
    record.began_ms.max(record.complete_from_ms)
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
pub fn measure(service: &str, window: Window, proxies: &[ProxyRecord]) -> (Option<Measured>, Vec<String>) {
    let missing = missing(window, proxies);
    let recorded: Vec<&Record> = proxies.iter().flat_map(|proxy| &proxy.workers).map(|one| &one.record).collect();
    if !recorded.iter().any(|record| record.until_ms >= window.from_ms) {
        return (None, missing);
    }
    let slices: Vec<&Slice> = recorded.iter().flat_map(|record| &record.slices).filter(|slice| concerns(slice, service)).collect();
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
    measured.listen_drops = recorded.iter().map(|record| record.listen_drops).sum();
    (Some(measured), missing)
}

/// A slice without a service holds what a worker without routes had to refuse: any service may have lost it, so every receipt counts it.
fn concerns(slice: &Slice, service: &str) -> bool {
    slice.service == service || slice.service.is_empty()
}

fn floor(at_ms: u64) -> u64 {
    at_ms - at_ms % SLICE_MS
}

/// What the records do not cover of the window, proxy by proxy: what one of them saw says nothing of the others.
fn missing(window: Window, proxies: &[ProxyRecord]) -> Vec<String> {
    if proxies.iter().all(|proxy| proxy.workers.is_empty()) {
        return vec!["no proxy's record was to be had".to_string()];
    }
    proxies.iter().flat_map(|proxy| missing_of(window, proxy)).collect()
}

fn missing_of(window: Window, proxy: &ProxyRecord) -> Vec<String> {
    let name = &proxy.proxy;
    let workers: Vec<&Recorded> = proxy.workers.iter().filter(|one| one.record.until_ms >= window.from_ms).collect();
    if workers.is_empty() {
        return vec![format!("no record of the proxy {name} was to be had")];
    }
    let mut missing = Vec::new();
    if workers.iter().all(|one| covered_from(&one.record) > window.from_ms) {
        missing.push(format!("no record of the proxy {name} reaches back to the rollout's start"));
    }
    missing.extend(workers.iter().flat_map(|one| missing_of_worker(window, one)));
    if workers.iter().all(|one| one.record.until_ms < window.until_ms) {
        missing.push(format!("no record of the proxy {name} reaches to the rollout's end"));
    }
    missing
}

fn missing_of_worker(window: Window, one: &Recorded) -> Vec<String> {
    let Record { worker, began_ms, until_ms, listen_drops_unknown, .. } = one.record;
    let from = covered_from(&one.record);
    let mut missing = Vec::new();
    if from > began_ms.max(window.from_ms) {
        missing.push(format!("what the proxy's worker {worker} counted before {from} is no longer kept"));
    }
    if until_ms < window.until_ms && one.lives {
        missing.push(format!("the proxy's worker {worker} was read up to {until_ms} only"));
    }
    if until_ms < window.until_ms && !one.lives {
        missing.push(format!("the proxy's worker {worker} ended; what it counted after {until_ms} is lost"));
    }
    if listen_drops_unknown {
        missing.push(format!("the proxy's worker {worker} could not read the kernel's count of dropped connections"));
    }
    missing
}

fn totals(slices: &[&Slice]) -> Measured {
    let mut sum = Measured::default();
    for slice in slices {
        sum.requests += slice.requests;
        sum.retried += slice.retried;
        sum.unanswered += slice.unanswered;
        sum.held += slice.held;
        sum.cut += slice.cut;
        for (cause, count) in &slice.failed {
            sum.failed += count;
            *sum.failed_by_cause.entry(cause.clone()).or_default() += count;
        }
        if slice.requests > 0 {
            *sum.by_release.entry(slice.release.clone()).or_default() += slice.requests;
        }
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
