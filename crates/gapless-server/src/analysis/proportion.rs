//! Whether one share is larger than another by more than a margin: an exact test.
//!
//! Outcomes are ordered by the score statistic with the estimate restricted to the margin (C. P. Farrington and G. Manning, "Test statistics and sample size formulae for comparative binomial
//! trials with null hypothesis of non-zero risk difference or non-unity relative risk", Statistics in Medicine 9 (1990)). How likely an outcome at least as extreme is, is summed up exactly over both
//! binomial distributions (I. S. F. Chan, "Exact tests of equivalence and efficacy with a non-zero lower bound for comparative studies", Statistics in Medicine 17 (1998)), and is the largest that
//! any true share gives which the data do not refute (R. L. Berger and D. D. Boos, "P values maximized over a confidence set for the nuisance parameter", Journal of the American Statistical
//! Association 89 (1994)). So small counts need no rule of thumb, and large ones no other formula.

use super::binomial::{Binomial, chances};

/// The risk that the true share is not among those looked at; it is added to the result. So small that it decides nothing, so large that not every share is looked at.
const SHARE_RISK: f64 = 1e-6;

/// How many true shares are looked at: the probability changes little between two neighbours.
const SHARES: u32 = 64;

/// Outcomes whose statistics differ by less than this count as equally extreme: it is above the rounding of the statistic.
const SAME_SCORE: f64 = 1e-9;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// How many.
    pub(super) count: u64,
    /// Of how many; at least `count`.
    pub(super) of: u64,
}

impl Share {
    /// Those that are not.
    fn rest(self) -> Share {
        Share { count: self.of.saturating_sub(self.count), of: self.of }
    }

    fn value(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.count as f64 / self.of as f64 }
    }
}

/// How likely chance alone makes `one` look at least so much larger than `other` when its true share is larger by `margin` at most. Small: it is larger by more than that.
pub(super) fn larger_by_more(one: Share, other: Share, margin: f64) -> f64 {
    if one.of == 0 || other.of == 0 || margin >= 1.0 {
        return 1.0;
    }
    if margin <= -1.0 {
        return 0.0;
    }
    let (lower, upper) = chances(other.count, other.of, SHARE_RISK / 2.0);
    let (lower, upper) = (lower.max(-margin), upper.min(1.0 - margin));
    if lower > upper {
        // The other's share is so large that no share is larger by more than the margin, or so small that every one is.
        return if margin > 0.0 { 1.0 } else { SHARE_RISK };
    }
    let shares: Vec<f64> = (0..=SHARES).map(|part| lower + (upper - lower) * f64::from(part) / f64::from(SHARES)).collect();
    let of_other: Vec<Binomial> = shares.iter().map(|share| Binomial::new(other.of, *share)).collect();
    let least = of_other.iter().map(|of| *of.counts().start()).min().unwrap_or(0);
    let most = of_other.iter().map(|of| *of.counts().end()).max().unwrap_or(0);
    let extreme = extreme_from(one, other, margin, least, most);
    let largest = shares.iter().zip(&of_other).map(|(share, of_other)| {
        let of_one = Binomial::new(one.of, share + margin);
        of_other.counts().map(|count| of_other.of(count) * of_one.from(extreme[usize::try_from(count - least).unwrap_or(0)])).sum::<f64>()
    });
    (largest.fold(0.0, f64::max) + SHARE_RISK).min(1.0)
}

/// How likely chance alone makes `one` look at least so good beside `other` when its true share is larger by `margin` or more. Small: it is not (non-inferiority).
pub(super) fn not_larger_by(one: Share, other: Share, margin: f64) -> f64 {
    larger_by_more(one.rest(), other.rest(), -margin)
}

/// For each count of the other from `least` to `most`: from which count of the one on an outcome is at least as extreme as the one that was seen.
fn extreme_from(one: Share, other: Share, margin: f64, least: u64, most: u64) -> Vec<u64> {
    let score = Score { of_one: one.of as f64, of_other: other.of as f64, margin };
    let seen = score.of(one.count, other.count) - SAME_SCORE;
    let mut extreme = Vec::new();
    // A count more of the other is never more extreme: from the largest on, the limit only falls.
    let mut limit = one.of + 1;
    let (mut without, mut with) = (0, one.of + 1);
    while without < with {
        let middle = u64::midpoint(without, with);
        if middle <= one.of && score.of(middle, most) < seen {
            without = middle + 1;
        } else {
            with = middle;
        }
    }
    limit = limit.min(with);
    for count in (least..=most).rev() {
        while limit > 0 && score.of(limit - 1, count) >= seen {
            limit -= 1;
        }
        extreme.push(limit);
    }
    extreme.reverse();
    extreme
}

/// The score statistic of two counts.
struct Score {
    of_one: f64,
    of_other: f64,
    margin: f64,
}

impl Score {
    /// How many standard deviations the difference lies above the margin.
    fn of(&self, one: u64, other: u64) -> f64 {
        let (one, other) = (one as f64 / self.of_one, other as f64 / self.of_other);
        let difference = one - other - self.margin;
        let (restricted_one, restricted_other) = self.restricted(one, other);
        let variance = restricted_one * (1.0 - restricted_one) / self.of_one + restricted_other * (1.0 - restricted_other) / self.of_other;
        // Nothing varies: the outcome is the margin itself, or as far from it as can be.
        if variance <= 0.0 {
            if difference.abs() < SAME_SCORE { 0.0 } else { difference.signum() * f64::MAX }
        } else {
            difference / variance.sqrt()
        }
    }

    /// The most likely true shares that differ by the margin exactly: the closed form of Farrington and Manning (1990), appendix.
    fn restricted(&self, one: f64, other: f64) -> (f64, f64) {
        let (margin, ratio) = (self.margin, self.of_other / self.of_one);
        let a = 1.0 + ratio;
        let b = -(1.0 + ratio + one + ratio * other + margin * (ratio + 2.0));
        let c = margin * margin + margin * (2.0 * one + ratio + 1.0) + one + ratio * other;
        let d = -one * margin * (1.0 + margin);
        let v = (b / (3.0 * a)).powi(3) - b * c / (6.0 * a * a) + d / (2.0 * a);
        let u = ((b / (3.0 * a)).powi(2) - c / (3.0 * a)).max(0.0).sqrt().copysign(v);
        let angle = if u == 0.0 { 1.0 } else { (v / u.powi(3)).clamp(-1.0, 1.0) };
        let w = (std::f64::consts::PI + angle.acos()) / 3.0;
        let restricted = (2.0 * u * w.cos() - b / (3.0 * a)).clamp(margin.max(0.0), (1.0 + margin).min(1.0));
        (restricted, (restricted - margin).clamp(0.0, 1.0))
    }
}

impl Share {
    /// In hundred parts.
    pub(super) fn percent(self) -> f64 {
        100.0 * self.value()
    }
}

#[cfg(test)]
mod tests;
