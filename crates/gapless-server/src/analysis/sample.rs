//! What the record holds of one release in a span of time.

use super::proportion::Share;
use super::quantile::Histogram;
use gapless_wire::record::Slice;

/// Where the answers that the application failed stand among a slice's statuses: 5xx.
const SERVER_ERRORS: usize = 4;

/// What a release answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Of the requests that its nodes had, how many failed: answered with 5xx by the application, broken off in the answer, or without an answer that the proxy could pass on. A try that came to
    /// nothing counts as a request, also when another node answered in the end; and so does one whose client went away before the answer began: both releases have the same clients, so that what
    /// they do for reasons of their own is on both sides.
    pub(super) failed: Share,
    /// How long its small GETs took.
    pub(super) latencies: Histogram,
}

impl Sample {
    /// The sample of a release, from the slices of a service.
    pub(super) fn of<'a>(release: &str, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut sample = Self::default();
        for slice in slices.filter(|slice| slice.release == release) {
            let failed = slice.statuses[SERVER_ERRORS] + slice.failed.values().sum::<u64>();
            // An answer of 5xx that broke off as well is one failed request.
            sample.failed.count += failed.min(slice.requests) + slice.failed_tries + slice.unanswered;
            sample.failed.of += slice.requests + slice.failed_tries + slice.unanswered;
            for (latency, count) in &slice.latencies {
                sample.latencies.add(*latency, *count);
            }
        }
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
            Slice { unanswered: 7, ..slice("web-r8", [0, 10, 0, 0, 0], &[], 0) },
            slice("web-r7", [0, 10, 0, 0, 0], &[], 0),
            slice("", [0, 0, 0, 0, 10], &[("no-ready-node", 10)], 0),
        ];
        let sample = Sample::of("web-r8", slices.iter());
        assert_eq!((sample.failed, sample.latencies.count()), (Share { count: 2 + 1 + 3 + 10 + 7, of: 33 + 17 }, 20));
        assert_eq!(Sample::of("web-r7", slices.iter()).failed, Share { count: 0, of: 10 }, "what no release answered is nobody's");
        assert_eq!(Sample::of("web-r9", slices.iter()), Sample::default());
    }
}
