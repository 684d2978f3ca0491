//! Which class is sent when: shares are met exactly in every thousand successive requests.

use std::time::Duration;

use crate::plan::{ClassPlan, SHARE_TOTAL};

/// How far a seeded exchange moves a request in the order. Far enough that the classes do not march in
/// step, near enough that uploads and slow answers stay evenly spread.
const SHUFFLE_REACH: usize = 8;

/// The endless, seeded order of requests: a cycle of a thousand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    cycle: Vec<u16>,
    rate_per_second: u32,
}

impl Schedule {
    /// The schedule of `classes`, whose shares add up to 1000, at `rate_per_second`.
    pub fn new(classes: &[ClassPlan], rate_per_second: u32, seed: u64) -> Self {
        let shares: Vec<i64> = classes.iter().map(|class| i64::from(class.share)).collect();
        let mut cycle = evenly_spread(&shares);
        shuffle_nearby(&mut cycle, seed);
        Self { cycle, rate_per_second }
    }

    /// Index of the class of the request with this number, counted from 0.
    pub fn class(&self, number: u64) -> usize {
        let length = self.cycle.len() as u64;
        usize::from(self.cycle[(number % length) as usize])
    }

    /// When the request with this number starts, from the start of the run.
    pub fn offset(&self, number: u64) -> Duration {
        let rate = u64::from(self.rate_per_second);
        let nanoseconds = (number % rate) * 1_000_000_000 / rate;
        Duration::from_secs(number / rate) + Duration::from_nanos(nanoseconds)
    }

    /// How many requests start within `duration_ms` milliseconds.
    pub fn count_within(&self, duration_ms: u64) -> u64 {
        (duration_ms.saturating_mul(u64::from(self.rate_per_second))).div_ceil(1000)
    }
}

/// Smooth weighted round robin: each class as evenly spaced as its share allows.
fn evenly_spread(shares: &[i64]) -> Vec<u16> {
    let total: i64 = shares.iter().sum();
    let mut credits = vec![0_i64; shares.len()];
    let mut cycle = Vec::with_capacity(SHARE_TOTAL as usize);
    for _ in 0..SHARE_TOTAL {
        let mut best = 0;
        for (index, share) in shares.iter().enumerate() {
            credits[index] += share;
            if credits[index] > credits[best] {
                best = index;
            }
        }
        credits[best] -= total;
        cycle.push(best as u16);
    }
    cycle
}

fn shuffle_nearby(cycle: &mut [u16], seed: u64) {
    let mut random = Random::new(seed);
    let length = cycle.len();
    for index in 0..length {
        let step = (random.next() % SHUFFLE_REACH as u64) as usize;
        cycle.swap(index, (index + step) % length);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for orders and for content that only has to differ.
pub struct Random(u64);

impl Random {
    /// A generator whose numbers follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Target};

    fn standard(seed: u64) -> (Vec<ClassPlan>, Schedule) {
        let plan = Plan::standard(Target::url("http://a"));
        let schedule = Schedule::new(&plan.classes, plan.rate_per_second, seed);
        (plan.classes, schedule)
    }

    #[test]
    fn shares_are_exact_in_every_thousand_wherever_it_begins() {
        for seed in 0..5 {
            let (classes, schedule) = standard(seed);
            for start in [0, 1, 499, 1000, 12_345] {
                let mut counts = vec![0_u32; classes.len()];
                (start..start + 1000).for_each(|number| counts[schedule.class(number)] += 1);
                let shares: Vec<u32> = classes.iter().map(|class| class.share).collect();
                assert_eq!(counts, shares, "seed {seed} start {start}");
            }
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(standard(7).1, standard(7).1);
        assert_ne!(standard(7).1, standard(8).1);
    }

    #[test]
    fn uploads_are_never_far_apart() {
        let (_, schedule) = standard(3);
        let uploads: Vec<u64> = (0..2000).filter(|number| schedule.class(*number) == 2).collect();
        let widest = uploads.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < 125, "an upload lasts 250 requests; widest distance {widest}");
    }

    #[test]
    fn instants_do_not_drift() {
        let (_, schedule) = standard(0);
        assert_eq!(schedule.offset(0), Duration::ZERO);
        assert_eq!(schedule.offset(1), Duration::from_millis(2));
        assert_eq!(schedule.offset(500 * 3600), Duration::from_secs(3600));
        assert_eq!(schedule.count_within(2000), 1000);
        assert_eq!(schedule.count_within(1), 1);
    }
}
