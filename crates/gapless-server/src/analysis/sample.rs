//! What the record holds of one release in a span of time.

use super::proportion::Share;
use super::quantile::Histogram;
use gapless_wire::record::Slice;
use std::ops::Range;

/// Where the answers that the application failed stand among a slice's statuses: 5xx.
const SERVER_ERRORS: usize = 4;

/// What a release answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Of the requests that its nodes answered, or were to answer, how many failed: answered with 5xx by the application, broken off in the answer, or without an answer that the proxy could
    /// pass on. A try that came to nothing counts as a request, also when another node answered in the end.
    pub(super) failed: Share,
    /// Of the requests for which one of its nodes was asked first, early enough in the span, how many had no answer at its end: the client had left, the try had come to nothing, or it was still waited
    /// for. Both releases have the same clients and the same time, so that what is long by nature is so on both sides.
    pub(super) unanswered: Share,
    /// How long its small GETs took.
    pub(super) latencies: Histogram,
}

impl Sample {
    /// The sample of a release, from the slices of a service in a span. `early`: the part of it whose requests should have an answer at its end.
    pub(super) fn of<'a>(release: &str, early: &Range<u64>, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut sample = Self::default();
        let (mut asked, mut answered) = (0, 0);
        for slice in slices.filter(|slice| slice.release == release) {
            let failed = slice.statuses[SERVER_ERRORS] + slice.failed.values().sum::<u64>();
            // An answer of 5xx that broke off as well is one failed request.
            sample.failed.count += failed.min(slice.requests) + slice.failed_tries;
            sample.failed.of += slice.requests + slice.failed_tries;
            asked += if early.contains(&slice.at_ms) { slice.asked } else { 0 };
            answered += slice.answered.iter().filter(|(asked_at_ms, _)| early.contains(asked_at_ms)).map(|(_, count)| count).sum::<u64>();
            for (latency, count) in &slice.latencies {
                sample.latencies.add(*latency, *count);
            }
        }
        sample.unanswered = Share { count: asked.saturating_sub(answered), of: asked };
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
        let sample = Sample::of("web-r8", &(0..1), slices.iter());
        assert_eq!((sample.failed, sample.latencies.count()), (Share { count: 2 + 1 + 3 + 10, of: 33 }, 15));
        assert_eq!(sample.unanswered, Share::default(), "an older worker says nothing of it");
        assert_eq!(Sample::of("web-r7", &(0..1), slices.iter()).failed, Share { count: 0, of: 10 }, "what no release answered is nobody's");
        assert_eq!(Sample::of("web-r9", &(0..1), slices.iter()), Sample::default());
    }

    #[test]
    fn what_was_asked_early_in_the_span_should_have_an_answer_at_its_end() {
        let slice = |at_ms, asked, answered: &[(u64, u64)]| Slice {
            at_ms,
            release: "web-r8".into(),
            asked,
            answered: answered.to_vec(),
            ..Slice::default()
        };
        let slices = [
            // What was asked before the span, and what was asked late in it, is of no concern, whenever it was answered.
            slice(5_000, 20, &[(4_900, 7), (5_000, 17)]),
            slice(5_100, 20, &[(5_000, 2), (5_100, 20)]),
            slice(5_200, 20, &[(5_200, 20)]),
            slice(5_300, 20, &[(5_300, 1), (3_000, 5)]),
        ];
        assert_eq!(Sample::of("web-r8", &(5_000..5_300), slices.iter()).unanswered, Share { count: 1, of: 60 });
        assert_eq!(Sample::of("web-r8", &(5_000..5_400), slices.iter()).unanswered, Share { count: 20, of: 80 });
    }
}
