//! How many times as long one release takes as another, quantile by quantile, without assuming how latencies are distributed.
//!
//! The interval of one quantile is that of order statistics: between two ranks whose binomial probabilities are summed up exactly (H. A. David and H. N. Nagaraja, "Order Statistics", third edition,
//! 2003, section 7.1). The interval of the ratio of two quantiles joins both intervals on the logarithmic scale by the square-and-add rule (R. G. Newcombe, "Interval estimation for the difference
//! between independent proportions: comparison of eleven methods", Statistics in Medicine 17 (1998), method 10; G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a
//! general approach", Statistics in Medicine 27 (2008)).

use super::binomial::Binomial;
use std::collections::BTreeMap;

/// Latencies as the record keeps them: in microseconds, of two significant digits, rounded up; and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    counts: BTreeMap<u64, u64>,
    count: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, latency: u64, count: u64) {
        *self.counts.entry(latency).or_default() += count;
        self.count += count;
    }

    /// How many latencies there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The latency of this rank, which counts from 0 at the beginning of the shortest to the count at the end of the longest, in microseconds. What was rounded to one value is taken to lie evenly
    /// between it and the next smaller one: both releases are rounded alike, so that equal ones stay equal.
    fn at(&self, rank: f64) -> f64 {
        let mut before = 0.0;
        for (latency, count) in &self.counts {
            let count = *count as f64;
            if rank <= before + count {
                let (from, to) = (next_smaller(*latency) as f64, *latency as f64);
                return (from + (to - from) * ((rank - before) / count).max(0.0)).max(1.0);
            }
            before += count;
        }
        self.counts.keys().next_back().map_or(1.0, |latency| (*latency as f64).max(1.0))
    }

    /// The latency that this part of all does not exceed, in microseconds.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        self.at(self.count as f64 * part)
    }

    /// Between which latencies the true quantile lies: below the first, as above the second, with a probability of at most `risk`. `None` where there are too few to say.
    fn limits(&self, part: f64, risk: f64) -> (Option<f64>, Option<f64>) {
        let (lower, upper) = ranks(self.count, part, risk);
        // An order statistic stands in the middle of its place.
        (lower.map(|rank| self.at(rank as f64 - 0.5)), upper.map(|rank| self.at(rank as f64 - 0.5)))
    }
}

/// The ranks, from 1, of the order statistics that the true quantile lies between.
fn ranks(count: u64, part: f64, risk: f64) -> (Option<u64>, Option<u64>) {
    // So many of the count lie below the true quantile.
    let below = Binomial::new(count, part);
    // The order statistic of a rank lies above the quantile when fewer than rank lie below.
    let lower = below.counts().take_while(|fewer| below.up_to(*fewer) <= risk).last().map(|fewer| fewer + 1);
    let lower = lower.or_else(|| below.counts().start().checked_sub(1).map(|fewer| fewer + 1)).filter(|rank| *rank <= count);
    // It lies below the quantile when at least rank do.
    let upper = below.counts().find(|rank| below.from(*rank) <= risk).or_else(|| Some(below.counts().end() + 1));
    (lower, upper.filter(|rank| (1..=count).contains(rank)))
}

/// The next smaller value of two significant digits.
fn next_smaller(latency: u64) -> u64 {
    let mut unit = 1;
    while latency.saturating_sub(1) / unit >= 100 {
        unit *= 10;
    }
    latency.saturating_sub(unit)
}

/// How many times as long one release takes as the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    /// As measured.
    pub(super) measured: f64,
    /// The true one lies below it with a probability of at most the risk; 0: too few latencies to say.
    pub(super) at_least: f64,
    /// The true one lies above it with a probability of at most the risk; infinite: too few latencies to say.
    pub(super) at_most: f64,
}

/// The ratio of the same quantile of both. `low_risk` is the risk of `at_least`, `high_risk` that of `at_most`.
pub(super) fn ratio(one: &Histogram, other: &Histogram, part: f64, low_risk: f64, high_risk: f64) -> Ratio {
    if one.count == 0 || other.count == 0 {
        return Ratio { measured: 1.0, at_least: 0.0, at_most: f64::INFINITY };
    }
    let (of_one, of_other) = (one.quantile(part).ln(), other.quantile(part).ln());
    let measured = of_one - of_other;
    let reach = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => (one.ln() - of_one).hypot(other.ln() - of_other),
        _ => f64::INFINITY,
    };
    let low = reach(one.limits(part, low_risk).0, other.limits(part, low_risk).1);
    let high = reach(one.limits(part, high_risk).1, other.limits(part, high_risk).0);
    Ratio { measured: measured.exp(), at_least: (measured - low).exp(), at_most: (measured + high).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn histogram(counts: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        counts.iter().for_each(|(latency, count)| histogram.add(*latency, *count));
        histogram
    }

    fn close(one: f64, other: f64) {
        assert!((one - other).abs() <= 1e-9 * other.abs().max(1.0), "{one} is not {other}");
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Conover, "Practical Nonparametric Statistics", by the binomial table with p = 1/2: of 16, ranks 4 and 13 leave 0.0106 on each side, ranks 5 and 12 leave 0.0384.
        assert_eq!(ranks(16, 0.5, 0.025), (Some(4), Some(13)));
        assert_eq!(ranks(16, 0.5, 0.0385), (Some(5), Some(12)));
        // The largest of n lies below the p99 with a probability of 0.99 to the n: 0.01 needs 459, as tolerance limits do (S. S. Wilks, 1941).
        assert_eq!(ranks(458, 0.99, 0.01).1, None);
        assert_eq!(ranks(459, 0.99, 0.01).1, Some(459));
        assert_eq!(ranks(5, 0.5, 0.01), (None, None), "1/32 is the least that five can say");
        assert_eq!(ranks(0, 0.5, 0.01), (None, None));
    }

    #[test]
    fn ranks_agree_with_enumeration() {
        for (count, part, risk) in [(12_u64, 0.5, 0.05), (20, 0.95, 0.2), (15, 0.3, 0.01)] {
            // Each of the count lies below the quantile or not: all outcomes, one by one.
            let mut below = vec![0.0; usize::try_from(count).unwrap() + 1];
            for outcome in 0_u32..1 << count {
                let ones = outcome.count_ones();
                below[ones as usize] += f64::powi(part, ones as i32) * f64::powi(1.0 - part, (count - u64::from(ones)) as i32);
            }
            let above = |rank: u64| below[..rank as usize].iter().sum::<f64>();
            let under = |rank: u64| below[rank as usize..].iter().sum::<f64>();
            let lower = (1..=count).rfind(|rank| above(*rank) <= risk);
            let upper = (1..=count).find(|rank| under(*rank) <= risk);
            assert_eq!(ranks(count, part, risk), (lower, upper), "{count} {part} {risk}");
        }
    }

    #[test]
    fn what_was_rounded_lies_evenly_where_it_came_from() {
        let smaller: Vec<u64> = [0, 1, 99, 100, 110, 990, 1_000, 1_100, 25_000].into_iter().map(next_smaller).collect();
        assert_eq!(smaller, [0, 0, 98, 99, 100, 980, 990, 1_000, 24_000]);
        let histogram = histogram(&[(1_000, 50), (2_000, 50)]);
        close(histogram.quantile(0.25), 995.0);
        close(histogram.quantile(0.5), 1_000.0);
        close(histogram.quantile(0.75), 1_950.0);
        close(histogram.quantile(1.0), 2_000.0);
    }

    #[test]
    fn one_value_alone_is_as_long_as_itself() {
        let (one, other) = (histogram(&[(5_000, 2_000)]), histogram(&[(5_000, 40_000)]));
        for part in [0.5, 0.95, 0.99] {
            let ratio = ratio(&one, &other, part, 1e-4, 1e-2);
            assert!((0.99..1.01).contains(&ratio.measured) && ratio.at_least > 0.98 && ratio.at_most < 1.02, "{part}: {ratio:?}");
        }
        let doubled = ratio(&histogram(&[(10_000, 2_000)]), &other, 0.5, 1e-4, 1e-2);
        assert!((1.9..2.1).contains(&doubled.at_least) && (1.9..2.1).contains(&doubled.at_most), "{doubled:?}");
    }

    #[test]
    fn too_few_say_nothing() {
        let (few, many) = (histogram(&[(900, 20), (1_500, 3)]), histogram(&[(900, 2_000), (1_500, 300)]));
        let p99 = ratio(&few, &many, 0.99, 1e-3, 1e-2);
        assert_eq!(p99.at_most, f64::INFINITY, "the longest of 23 may lie below the p99");
        for (one, other) in [(&few, &Histogram::default()), (&Histogram::default(), &many), (&Histogram::default(), &Histogram::default())]
        {
            assert_eq!(ratio(one, other, 0.5, 1e-3, 1e-2), Ratio { measured: 1.0, at_least: 0.0, at_most: f64::INFINITY });
        }
        let zero = histogram(&[(0, 1_000)]);
        assert!(ratio(&zero, &zero, 0.5, 1e-3, 1e-2).measured.is_finite(), "nothing took no time");
    }
}
