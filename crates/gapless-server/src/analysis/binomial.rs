//! The binomial distribution, exactly: its probabilities summed up, no approximation.

/// Probabilities below this part of the largest one are taken for 0: what is left out stays far below the rounding of a sum.
const NEGLIGIBLE: f64 = 1e-20;

/// How often an interval is halved in search of a probability: beyond the precision of its numbers.
const HALVINGS: usize = 64;

/// How many of `trials` independent trials succeed, each with the same chance: the probabilities of all counts that can be.
#[derive(Clone, Debug)]
pub(super) struct Binomial {
    /// The smallest count whose probability is not negligible.
    first: u64,
    /// The probability of `first + index`.
    of: Vec<f64>,
    /// The probability of at most `first + index`.
    up_to: Vec<f64>,
    /// The probability of at least `first + index`: summed from its own end, so that small ones are exact too.
    from: Vec<f64>,
}

impl Binomial {
    /// The distribution of `trials` trials with this chance, which is taken to lie between 0 and 1.
    pub(super) fn new(trials: u64, chance: f64) -> Self {
        let chance = chance.clamp(0.0, 1.0);
        let most_likely = ((trials as f64 + 1.0) * chance).floor().min(trials as f64) as u64;
        // Relative to the most likely count, by the ratio of neighbours: P(k + 1) / P(k) = (n - k) / (k + 1) * p / (1 - p).
        let odds = chance / (1.0 - chance);
        let mut below = Vec::new();
        let (mut count, mut part) = (most_likely, 1.0);
        while count > 0 && part > NEGLIGIBLE && odds > 0.0 && odds.is_finite() {
            part *= count as f64 / (trials - count + 1) as f64 / odds;
            count -= 1;
            below.push(part);
        }
        let first = count;
        below.reverse();
        let mut of = below;
        of.push(1.0);
        let (mut count, mut part) = (most_likely, 1.0);
        while count < trials && part > NEGLIGIBLE && odds > 0.0 && odds.is_finite() {
            part *= (trials - count) as f64 / (count + 1) as f64 * odds;
            count += 1;
            of.push(part);
        }
        let sum: f64 = of.iter().sum();
        for part in &mut of {
            *part /= sum;
        }
        let up_to = of.iter().scan(0.0, running_sum).collect();
        let mut from: Vec<f64> = of.iter().rev().scan(0.0, running_sum).collect();
        from.reverse();
        Self { first, of, up_to, from }
    }

    /// The probability of exactly this count.
    pub(super) fn of(&self, count: u64) -> f64 {
        self.index(count).and_then(|index| self.of.get(index)).copied().unwrap_or(0.0)
    }

    /// The probability of this count or less.
    pub(super) fn up_to(&self, count: u64) -> f64 {
        self.index(count).map_or(0.0, |index| self.up_to.get(index).copied().unwrap_or(1.0)).min(1.0)
    }

    /// The probability of this count or more.
    pub(super) fn from(&self, count: u64) -> f64 {
        self.index(count).map_or(1.0, |index| self.from.get(index).copied().unwrap_or(0.0)).min(1.0)
    }

    /// The counts whose probability is not negligible.
    pub(super) fn counts(&self) -> std::ops::RangeInclusive<u64> {
        self.first..=self.first + (self.of.len() as u64).saturating_sub(1)
    }

    fn index(&self, count: u64) -> Option<usize> {
        count.checked_sub(self.first).map(|index| usize::try_from(index).unwrap_or(usize::MAX))
    }
}

fn running_sum(sum: &mut f64, part: &f64) -> Option<f64> {
    *sum += part;
    Some(*sum)
}

/// The chances that are not refuted by `successes` of `trials`: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
/// binomial", Biometrika 26 (1934). The true chance lies below them with a probability of at most `risk`, and above them as well.
pub(super) fn chances(successes: u64, trials: u64, risk: f64) -> (f64, f64) {
    let lower = if successes == 0 { 0.0 } else { crossing(|chance| Binomial::new(trials, chance).from(successes) >= risk) };
    let upper = if successes >= trials { 1.0 } else { crossing(|chance| Binomial::new(trials, chance).up_to(successes) < risk) };
    (lower, upper)
}

/// Where between 0 and 1 a condition begins to hold that then holds on.
fn crossing(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut without, mut with) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(without, with);
        if holds(middle) {
            with = middle;
        } else {
            without = middle;
        }
    }
    with
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(one: f64, other: f64, within: f64) {
        assert!((one - other).abs() <= within, "{one} is not {other}");
    }

    #[test]
    fn probabilities_are_those_of_enumeration() {
        // Every outcome of 10 trials, one by one.
        for chance in [0.0, 0.03, 0.5, 0.9, 1.0] {
            let mut of = [0.0; 11];
            for outcome in 0_u32..1 << 10 {
                let successes = outcome.count_ones();
                of[successes as usize] += f64::powi(chance, successes as i32) * f64::powi(1.0 - chance, 10 - successes as i32);
            }
            let distribution = Binomial::new(10, chance);
            for count in 0..=10_u64 {
                let index = count as usize;
                close(distribution.of(count), of[index], 1e-14);
                close(distribution.up_to(count), of[..=index].iter().sum(), 1e-14);
                close(distribution.from(count), of[index..].iter().sum(), 1e-14);
            }
            assert_eq!((distribution.of(11), distribution.up_to(11), distribution.from(11)), (0.0, 1.0, 0.0));
        }
    }

    #[test]
    fn small_tails_are_exact_too() {
        // 10 successes of 10 with chance 1/2, and 30 of 30 with chance 0.3: closed forms.
        close(Binomial::new(10, 0.5).from(10), f64::powi(0.5, 10), 1e-16);
        let tail = Binomial::new(30, 0.3).from(30);
        close(tail / f64::powi(0.3, 30), 1.0, 1e-9);
    }

    #[test]
    fn many_trials_agree_with_the_normal_and_the_poisson_distribution() {
        // P(Z <= 1) = 0.8413447; with continuity correction the difference is below 1e-5 for a variance of 2.5 million.
        let (trials, chance) = (10_000_000_u64, 0.5);
        let deviation = (trials as f64 * 0.25).sqrt();
        let count = (trials as f64 * chance + deviation - 0.5).round() as u64;
        close(Binomial::new(trials, chance).up_to(count), 0.841_344_7, 1e-3);
        // Poisson with mean 2: P(0) = 0.1353353, P(at most 4) = 0.9473470.
        let rare = Binomial::new(10_000_000, 2e-7);
        close(rare.of(0), 0.135_335_3, 1e-6);
        close(rare.up_to(4), 0.947_347_0, 1e-6);
    }

    #[test]
    fn no_trial_has_one_outcome() {
        for chance in [0.0, 0.4, 1.0] {
            let none = Binomial::new(0, chance);
            assert_eq!((none.of(0), none.up_to(0), none.from(0), none.from(1)), (1.0, 1.0, 1.0, 0.0));
        }
        assert_eq!(chances(0, 0, 0.025), (0.0, 1.0));
    }

    #[test]
    fn limits_are_those_of_the_tables() {
        // Clopper and Pearson at 95 %: closed forms at the ends (1 - 0.025^(1/10) = 0.3084971), and Newcombe (1998a), table I: 81 of 263 is (0.2527, 0.3676), 15 of 148 is (0.0578, 0.1617), 1 of 29 is (0.0009, 0.1776).
        let (lower, upper) = chances(0, 10, 0.025);
        close(lower, 0.0, 0.0);
        close(upper, 0.308_497_1, 1e-7);
        let (lower, upper) = chances(10, 10, 0.025);
        close(lower, 1.0 - 0.308_497_1, 1e-7);
        close(upper, 1.0, 0.0);
        for (successes, trials, expected) in [(81, 263, (0.2527, 0.3676)), (15, 148, (0.0578, 0.1617)), (1, 29, (0.0009, 0.1776))] {
            let (lower, upper) = chances(successes, trials, 0.025);
            close(lower, expected.0, 5e-5);
            close(upper, expected.1, 5e-5);
        }
    }
}
