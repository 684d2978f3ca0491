//! The exact test against enumeration, against published values, and where it could break.

use super::*;

fn share(count: u64, of: u64) -> Share {
    Share { count, of }
}

fn close(one: f64, other: f64, within: f64) {
    assert!((one - other).abs() <= within, "{one} is not {other}");
}

/// The probability of a count, by factorials.
fn probability(count: u64, of: u64, chance: f64) -> f64 {
    let ways = (1..=count).fold(1.0, |ways, at| ways * (of - count + at) as f64 / at as f64);
    ways * chance.powi(count as i32) * (1.0 - chance).powi((of - count) as i32)
}

/// The most likely share of the other when the one's is larger by the margin, by halving on the derivative of the likelihood.
fn most_likely(one: Share, other: Share, margin: f64) -> f64 {
    let term = |count: f64, chance: f64| if count == 0.0 { 0.0 } else { count / chance };
    let slope = |chance: f64| {
        term(one.count as f64, chance + margin) - term((one.of - one.count) as f64, 1.0 - chance - margin)
            + term(other.count as f64, chance)
            - term((other.of - other.count) as f64, 1.0 - chance)
    };
    let (mut low, mut high) = (f64::max(0.0, -margin), f64::min(1.0, 1.0 - margin));
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if slope(middle) > 0.0 { low = middle } else { high = middle }
    }
    low
}

fn score(one: Share, other: Share, margin: f64) -> f64 {
    let chance = most_likely(one, other, margin);
    let variance = (chance + margin) * (1.0 - chance - margin) / one.of as f64 + chance * (1.0 - chance) / other.of as f64;
    let difference = one.count as f64 / one.of as f64 - other.count as f64 / other.of as f64 - margin;
    if difference.abs() < 1e-12 { 0.0 } else { difference / variance.max(0.0).sqrt() }
}

/// The same test by looking at every outcome and at very many true shares.
fn enumerated(one: Share, other: Share, margin: f64) -> f64 {
    let seen = score(one, other, margin) - 1e-7;
    let outcomes: Vec<(u64, u64)> = (0..=one.of).flat_map(|a| (0..=other.of).map(move |b| (a, b))).collect();
    let extreme: Vec<(u64, u64)> =
        outcomes.into_iter().filter(|(a, b)| score(share(*a, one.of), share(*b, other.of), margin) >= seen).collect();
    let (low, high) = (f64::max(0.0, -margin), f64::min(1.0, 1.0 - margin));
    let chances = (0..=4_000).map(|part| low + (high - low) * f64::from(part) / 4_000.0);
    let likely = |chance: f64| {
        let ones: Vec<f64> = (0..=one.of).map(|a| probability(a, one.of, chance + margin)).collect();
        let others: Vec<f64> = (0..=other.of).map(|b| probability(b, other.of, chance)).collect();
        extreme.iter().map(|(a, b)| ones[*a as usize] * others[*b as usize]).sum::<f64>()
    };
    chances.map(likely).fold(0.0, f64::max)
}

#[test]
fn small_counts_agree_with_enumeration() {
    let cases = [
        (share(7, 12), share(1, 12), 0.0),
        (share(5, 10), share(2, 15), 0.05),
        (share(3, 8), share(3, 20), 0.1),
        (share(0, 10), share(0, 20), 0.05),
        (share(9, 9), share(0, 14), 0.3),
        (share(2, 10), share(1, 10), -0.2),
        (share(10, 10), share(19, 20), -0.3),
    ];
    for (one, other, margin) in cases {
        let (exact, expected) = (larger_by_more(one, other, margin), enumerated(one, other, margin));
        // Looking only at true shares that the data do not refute, and at fewer of them, loses little; what is added for it is one in a million.
        assert!(exact <= expected + 2e-6 && exact >= 0.985 * expected, "{one:?} {other:?} {margin}: {exact} is not {expected}");
    }
}

#[test]
fn the_restricted_estimate_is_the_most_likely_one() {
    for (one, other, margin) in [
        (share(7, 12), share(1, 12), 0.05),
        (share(14, 1_204), share(3, 11_020), 0.005),
        (share(1_190, 1_204), share(11_000, 11_020), -0.005),
        (share(0, 500), share(0, 9_500), 0.005),
        (share(500, 500), share(9_500, 9_500), -0.2),
    ] {
        let score = Score { of_one: one.of as f64, of_other: other.of as f64, margin };
        let (of_one, of_other) = score.restricted(one.value(), other.value());
        close(of_other, most_likely(one, other, margin), 1e-7);
        close(of_one, of_other + margin, 1e-7);
    }
}

#[test]
fn published_values_are_met() {
    // Chan (1998): the trial on childhood nephroblastoma, 83 of 88 against 69 of 76 with a margin of 0.1.
    close(not_larger_by(share(5, 88), share(7, 76), 0.1), 0.0017, 0.0001);
    // Barnard's test as SciPy documents it: 7 of 15 vaccinated against 12 of 15 not vaccinated.
    close(larger_by_more(share(12, 15), share(7, 15), 0.0), 0.034_08, 0.000_05);
    // Summed up with SciPy over every outcome and 400 true shares. The normal distribution would say 0.0012 of the first.
    close(larger_by_more(share(14, 1_204), share(3, 11_020), 0.005), 0.004_538, 0.000_01);
    close(larger_by_more(share(9, 600), share(30, 6_000), 0.005), 0.125_87, 0.000_1);
}

#[test]
fn both_directions_never_hold_at_once() {
    for (one, other) in [(share(14, 1_204), share(3, 11_020)), (share(2, 5_010), share(20, 45_020)), (share(0, 300), share(0, 300))] {
        for margin in [0.0, 0.005, 0.05] {
            let (worse, not_worse) = (larger_by_more(one, other, margin), not_larger_by(one, other, margin));
            assert!((0.0..=1.0).contains(&worse) && (0.0..=1.0).contains(&not_worse));
            assert!(worse + not_worse > 0.999, "{one:?} {other:?} {margin}: {worse} and {not_worse}");
        }
    }
}

#[test]
fn large_counts_agree_with_the_normal_distribution() {
    // 1.5 % of a million against 1.0 % of a million with a margin of 0.4968 points: z = 0.0002 / 0.0001572 is about 1.28, one in ten.
    let (one, other) = (share(15_000, 1_000_000), share(10_000, 1_000_000));
    let deviation = (0.015_f64 * 0.985 / 1e6 + 0.01 * 0.99 / 1e6).sqrt();
    close(larger_by_more(one, other, 0.005 - 1.281_55 * deviation), 0.1, 0.002);
    close(not_larger_by(one, other, 0.005 + 1.281_55 * deviation), 0.1, 0.002);
    // And what 15 minutes of heavy traffic give, all of it failing on one side.
    assert!(larger_by_more(share(5_000_000, 10_000_000), share(4_000_000, 10_000_000), 0.01) < 1e-5);
    assert!(larger_by_more(share(1_000_000, 1_000_000), share(0, 9_000_000), 0.005) < 1e-5);
}

#[test]
fn nothing_all_and_impossible_margins_have_their_answer() {
    assert_eq!(larger_by_more(share(0, 0), share(5, 10), 0.01), 1.0);
    assert_eq!(larger_by_more(share(5, 10), share(0, 0), 0.01), 1.0);
    assert_eq!(not_larger_by(share(0, 0), share(0, 0), 0.01), 1.0);
    // Nothing can be larger by more than all.
    assert_eq!(larger_by_more(share(10, 10), share(0, 10), 1.0), 1.0);
    assert_eq!(not_larger_by(share(10, 10), share(0, 10), 1.0), 0.0);
    // Equal and without a margin: nothing is shown, however many there are.
    for all in [0, 1_000] {
        assert!(larger_by_more(share(all, 1_000), share(all, 1_000), 0.0) > 0.3);
        assert!(not_larger_by(share(all, 1_000), share(all, 1_000), 0.0) > 0.3);
    }
    assert!(larger_by_more(share(1_000, 1_000), share(1_000, 1_000), 0.005) > 0.9, "both fail wholly: not the new release's doing");
    assert!(not_larger_by(share(1_000, 1_000), share(1_000, 1_000), 0.005) < 0.02);
    assert_eq!(larger_by_more(share(0, 1_000), share(1_000, 1_000), 0.005), 1.0, "nothing is larger than all by more");
    assert!(not_larger_by(share(0, 1_000), share(1_000, 1_000), 0.005) < 1e-5);
    assert!(larger_by_more(share(0, 1_000), share(0, 1_000), -0.5) < 1e-5, "nothing is larger by more than less than nothing");
}
