//! Whether the record has everything of a span of time. On a part of it nothing is decided.

use crate::receipt::{ProxyRecord, Recorded, covered_from};
use gapless_wire::record::SLICE_MS;
use std::ops::Range;

/// Whole slices, from the first one that begins in a span to the last one that ends in it, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from_ms: u64,
    /// The first instant that no longer belongs to it.
    pub(super) until_ms: u64,
}

impl Span {
    /// The whole slices between two instants: none, if no slice lies between them.
    pub(super) fn between(since_ms: u64, until_ms: u64) -> Self {
        let from_ms = since_ms.div_ceil(SLICE_MS).saturating_mul(SLICE_MS);
        Self { from_ms, until_ms: (until_ms - until_ms % SLICE_MS).max(from_ms) }
    }

    pub(super) fn length_ms(self) -> u64 {
        self.until_ms - self.from_ms
    }

    /// The part of it whose requests should have an answer at its end: all but the last quarter. So whatever takes less than a quarter of it is none without an answer, however close to the end it began.
    pub(super) fn early(self) -> Range<u64> {
        self.from_ms..self.until_ms - self.length_ms() / 4
    }
}

/// What is missing of a span; `None`: nothing.
pub(super) fn hole(span: Span, proxies: &[ProxyRecord]) -> Option<String> {
    if proxies.is_empty() {
        return Some("there is no proxy whose record could be compared".to_string());
    }
    proxies.iter().find_map(|proxy| hole_of_proxy(span, proxy))
}

fn hole_of_proxy(span: Span, proxy: &ProxyRecord) -> Option<String> {
    let name = &proxy.proxy;
    if let Some(hole) = proxy.workers.iter().find_map(|worker| hole_of_worker(span, worker)) {
        return Some(format!("{hole} (proxy {name})"));
    }
    if !proxy.workers.iter().any(|worker| worker.lives) {
        return Some(format!("no worker of the proxy {name} answers"));
    }
    if !proxy.workers.iter().any(|worker| covered_from(&worker.record) <= span.from_ms) {
        return Some(format!("no record of the proxy {name} reaches back to the beginning of the comparison"));
    }
    None
}

fn hole_of_worker(span: Span, worker: &Recorded) -> Option<String> {
    let record = &worker.record;
    let (pid, covered_from) = (record.worker, covered_from(record));
    if record.until_ms >= span.until_ms {
        let missing = covered_from > record.began_ms.max(span.from_ms) && record.began_ms < span.until_ms;
        return missing.then(|| format!("what the worker {pid} counted at the beginning of the comparison is no longer kept"));
    }
    if worker.lives {
        return Some(format!("the worker {pid} has not told everything of that time yet"));
    }
    // It counted on until it ended, and that was before it was seen to be gone.
    let ended_before = worker.gone_by_ms.is_some_and(|gone| gone <= span.from_ms);
    (!ended_before).then(|| format!("the worker {pid} ended, and what it counted last is lost"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::record::Record;

    const SPAN: Span = Span { from_ms: 10_000, until_ms: 20_000 };

    fn worker(began_ms: u64, until_ms: u64) -> Recorded {
        Recorded { record: Record { worker: 7, began_ms, until_ms, ..Record::default() }, lives: true, gone_by_ms: None }
    }

    fn gone(began_ms: u64, until_ms: u64, gone_by_ms: Option<u64>) -> Recorded {
        Recorded { lives: false, gone_by_ms, ..worker(began_ms, until_ms) }
    }

    #[track_caller]
    fn assert_hole(workers: Vec<Recorded>, expected: Option<&str>) {
        let found = hole(SPAN, &[ProxyRecord { proxy: "a".into(), workers }]);
        match expected {
            None => assert_eq!(found, None),
            Some(expected) => assert!(found.as_ref().is_some_and(|found| found.contains(expected)), "{found:?} does not say `{expected}`"),
        }
    }

    #[test]
    fn a_span_is_of_whole_slices() {
        assert_eq!(Span::between(9_901, 20_099), SPAN);
        assert_eq!(Span::between(10_000, 20_000), SPAN);
        assert_eq!(Span::between(10_001, 10_099).length_ms(), 0);
        assert_eq!(Span::between(20_000, 10_000).length_ms(), 0);
        assert_eq!(Span::between(u64::MAX, u64::MAX).length_ms(), 0);
    }

    #[test]
    fn whole_records_have_no_hole() {
        assert_hole(vec![worker(0, 20_000)], None);
        assert_hole(vec![worker(0, 20_000), worker(15_000, 20_100)], None);
        assert_hole(vec![worker(0, 20_000), gone(0, 5_000, Some(9_000))], None);
        assert_hole(vec![worker(0, 30_000), gone(0, 25_000, None)], None);
    }

    #[test]
    fn what_is_not_there_yet_is_a_hole() {
        assert_hole(vec![worker(0, 19_900)], Some("has not told everything"));
        assert_hole(vec![worker(0, 20_000), worker(15_000, 19_000)], Some("has not told everything"));
    }

    #[test]
    fn what_was_lost_with_a_worker_is_a_hole() {
        assert_hole(vec![worker(15_100, 20_000), gone(0, 15_000, Some(15_300))], Some("ended, and what it counted last is lost"));
        // It was read last before the span began, and nobody knows how long it went on.
        assert_hole(vec![worker(9_000, 20_000), gone(0, 9_900, Some(10_100))], Some("ended"));
        assert_hole(vec![worker(9_000, 20_000), gone(0, 5_000, None)], Some("ended"));
    }

    #[test]
    fn what_was_never_read_or_is_no_longer_kept_is_a_hole() {
        assert_hole(Vec::new(), Some("no worker of the proxy a answers"));
        assert_hole(vec![gone(0, 30_000, None)], Some("no worker of the proxy a answers"));
        assert_hole(vec![worker(10_100, 20_000)], Some("reaches back"));
        let dropped = |from: u64| Recorded { record: Record { complete_from_ms: from, ..worker(0, 20_000).record }, ..worker(0, 20_000) };
        assert_hole(vec![dropped(12_000), worker(0, 20_000)], Some("no longer kept"));
        assert_hole(vec![dropped(10_000)], None);
        assert!(hole(SPAN, &[]).is_some());
        let other = ProxyRecord { proxy: "b".into(), workers: Vec::new() };
        let whole = ProxyRecord { proxy: "a".into(), workers: vec![worker(0, 20_000)] };
        assert!(hole(SPAN, &[whole, other]).is_some_and(|hole| hole.contains("proxy b")), "what one proxy saw says nothing of the other");
    }
}
