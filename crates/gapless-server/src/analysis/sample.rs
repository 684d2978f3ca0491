//! What the record holds of one release in a span of time.

use super::proportion::Share;
use super::quantile::Histogram;
use gapless_wire::record::Slice;

/// Where the answers that the application failed stand among a slice's statuses: 5xx.
const SERVER_ERRORS: usize = 4;

/// What a release answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Of the requests that its nodes answered, or were to answer, how many failed: answered with 5xx by the application, broken off in the answer, or without an answer that the proxy could
    /// pass on. A try that came to nothing counts as a request, also when another node answered in the end.
    pub(super) failed: Share,
    /// Of these and those whose client went away before the answer began, how many the latter were. Both releases have the same clients, so that what they do for reasons of their own is on both
    /// sides. Only requests that began in the span count: at a step's beginning, those that wait from before it had other shares of the traffic.
    pub(super) left: Share,
    /// How long its small GETs took.
    pub(super) latencies: Histogram,
}

impl Sample {
    /// The sample of a release, from the slices of a service since `from_ms`.
    pub(super) fn of<'a>(release: &str, from_ms: u64, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut sample = Self::default();
        for slice in slices.filter(|slice| slice.release == release) {
            let failed = slice.statuses[SERVER_ERRORS] + slice.failed.values().sum::<u64>();
            // An answer of 5xx that broke off as well is one failed request.
            sample.failed.count += failed.min(slice.requests) + slice.failed_tries;
            sample.failed.of += slice.requests + slice.failed_tries;
            let began_in_span = slice.unanswered.iter().filter(|(waited_ms, _)| slice.at_ms >= from_ms.saturating_add(*waited_ms));
            sample.left.count += began_in_span.map(|(_, count)| count).sum::<u64>();
            for (latency, count) in &slice.latencies {
                sample.latencies.add(*latency, *count);
            }
        }
        sample.left.of = sample.failed.of + sample.left.count;
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn errors_are_the_applications_and_what_its_nodes_did_not_answer() {
        let slice = |release: &str, statuses, failed: &[(&str, u64)], failed_tries| Slice {
            release: release.into(),
            requests: 10,
            statuses,
            failed: failed.iter().map(|(cause, count)| ((*cause).to_string(), *count)).collect::<BTreeMap<_, _>>(),
            failed_tries,
            latencies: vec![(1_000, 5)],
            ..Slice::default()
        };
        let slices = [
            slice("web-r8", [0, 6, 1, 1, 2], &[], 0),
            slice("web-r8", [0, 10, 0, 0, 0], &[("truncated", 1)], 3),
            slice("web-r8", [0, 0, 0, 0, 10], &[("truncated", 4)], 0),
            slice("web-r7", [0, 10, 0, 0, 0], &[], 0),
            slice("", [0, 0, 0, 0, 10], &[("no-ready-node", 10)], 0),
        ];
        let sample = Sample::of("web-r8", 0, slices.iter());
        assert_eq!((sample.failed, sample.latencies.count()), (Share { count: 2 + 1 + 3 + 10, of: 33 }, 15));
        assert_eq!(sample.left, Share { count: 0, of: 33 });
        assert_eq!(Sample::of("web-r7", 0, slices.iter()).failed, Share { count: 0, of: 10 }, "what no release answered is nobody's");
        assert_eq!(Sample::of("web-r9", 0, slices.iter()), Sample::default());
    }

    #[test]
    fn who_left_counts_apart_and_only_if_the_request_began_in_the_span() {
        let slice = |at_ms, unanswered: &[(u64, u64)]| Slice {
            at_ms,
            release: "web-r8".into(),
            requests: 10,
            unanswered: unanswered.to_vec(),
            ..Slice::default()
        };
        let slices = [slice(5_000, &[(0, 1), (100, 2)]), slice(5_300, &[(300, 4), (310, 8)]), slice(9_000, &[(4_000, 16), (4_100, 32)])];
        let sample = Sample::of("web-r8", 5_000, slices.iter());
        assert_eq!((sample.failed, sample.left), (Share { count: 0, of: 30 }, Share { count: 1 + 4 + 16, of: 30 + 1 + 4 + 16 }));
    }
}
