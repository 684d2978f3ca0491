//! The verdicts: their lines, where they could break, and by simulation how often they are wrong and how often they find what is bad.

use super::super::binomial::Binomial;
use super::super::quantile::Histogram;
use super::*;
use std::collections::BTreeMap;

const POLICY: AnalysisPolicy = AnalysisPolicy { minimum_requests: 500, error_margin: 50, latency_margin: 20 };

fn share(count: u64, of: u64) -> Share {
    Share { count, of }
}

fn sample(failed: Share, latencies: &[(u64, u64)]) -> Sample {
    let mut histogram = Histogram::default();
    latencies.iter().for_each(|(latency, count)| histogram.add(*latency, *count));
    Sample { failed, unanswered: share(0, failed.of), latencies: histogram }
}

/// The same with requests that got no answer.
fn with_unanswered(sample: Sample, count: u64) -> Sample {
    Sample { unanswered: share(count, sample.failed.of + count), ..sample }
}

fn sides(new: Sample, old: Sample) -> Sides {
    Sides { new: ("web-r8".into(), new), old: ("web-r7".into(), old), span_ms: 30_000 }
}

fn verdict(new: Sample, old: Sample) -> Verdict {
    judge(&sides(new, old), &POLICY).verdict
}

#[track_caller]
fn assert_judgement(new: Sample, old: Sample, verdict: Verdict, evidence: &str) {
    let judgement = judge(&sides(new, old), &POLICY);
    assert_eq!((judgement.verdict, judgement.evidence.as_str()), (verdict, evidence));
}

#[test]
fn an_error_rate_that_is_worse_aborts_and_says_so() {
    assert_judgement(
        sample(share(44, 1_204), &[]),
        sample(share(3, 11_020), &[]),
        Verdict::Abort,
        "web-r8: 44 of 1,204 requests failed (3.7 %), web-r7 in the same 30 s: 3 of 11,020 (0.03 %): worse than the allowed 0.5 points (p < 0.001)",
    );
}

/// Most take 11 or 12 ms, one in ten so long as `slow`, one in twenty-five so long as `slowest`.
fn spread(of: u64, slow: u64, slowest: u64) -> Vec<(u64, u64)> {
    vec![(11_000, of * 43 / 100), (12_000, of * 43 / 100), (slow, of / 10), (slowest, of / 25)]
}

#[test]
fn latencies_that_are_worse_abort_each_with_its_numbers() {
    assert_judgement(
        sample(share(0, 5_000), &spread(5_000, 81_000, 410_000)),
        sample(share(2, 20_000), &spread(20_000, 40_000, 200_000)),
        Verdict::Abort,
        "web-r8: 0 of 5,000 requests failed (0 %), web-r7 in the same 30 s: 2 of 20,000 (0.01 %): p95 81 ms against 40 ms, 2.0 times as long, at least 2.02 times, where 1.20 are allowed; p99 408 ms against 198 ms, 2.1 times as long, at least 2.05 times, where 1.20 are allowed",
    );
}

#[test]
fn what_is_not_worse_promotes_with_all_its_numbers() {
    let (new, old) = (spread(10_000, 40_000, 90_000), spread(40_000, 39_000, 91_000));
    assert_judgement(
        sample(share(2, 10_000), &new),
        sample(share(12, 40_000), &old),
        Verdict::Promote,
        "web-r8: 2 of 10,000 requests failed (0.02 %), web-r7 in the same 30 s: 12 of 40,000 (0.03 %): not worse than the allowed 0.5 points (p < 0.001); p50 11 ms against 11 ms, p95 40 ms against 39 ms, p99 90 ms against 91 ms: within the allowed 20 %",
    );
    assert_judgement(
        sample(share(2, 10_000), &[]),
        sample(share(12, 40_000), &[]),
        Verdict::Promote,
        "web-r8: 2 of 10,000 requests failed (0.02 %), web-r7 in the same 30 s: 12 of 40,000 (0.03 %): not worse than the allowed 0.5 points (p < 0.001); no latency is recorded, for only GETs with small answers are timed",
    );
}

#[test]
fn what_is_open_holds_and_says_what_is_open() {
    assert_judgement(
        sample(share(14, 1_204), &[]),
        sample(share(3, 11_020), &[]),
        Verdict::Hold,
        "web-r8: 14 of 1,204 requests failed (1.2 %), web-r7 in the same 30 s: 3 of 11,020 (0.03 %): not decided yet: worse than the allowed 0.5 points, which may be chance (p = 0.0045)",
    );
    assert_judgement(
        sample(share(9, 600), &[(12_000, 20)]),
        sample(share(30, 6_000), &[(12_000, 6_000)]),
        Verdict::Hold,
        "web-r8: 9 of 600 requests failed (1.5 %), web-r7 in the same 30 s: 30 of 6,000 (0.50 %): not decided yet: worse than the allowed 0.5 points, which may be chance (p = 0.13); the p95 of web-r8 cannot be told from 20 small GETs; the p99 of web-r8 cannot be told from 20 small GETs",
    );
    // One in a hundred is slow: which side of it the p99 lies on, nobody can tell.
    assert_judgement(
        sample(share(0, 5_000), &[(12_000, 4_950), (90_000, 50)]),
        sample(share(0, 20_000), &[(12_000, 19_800), (90_000, 200)]),
        Verdict::Hold,
        "web-r8: 0 of 5,000 requests failed (0 %), web-r7 in the same 30 s: 0 of 20,000 (0 %): not decided yet: p99 12 ms against 12 ms, which may be up to 7.45 times as long where 1.20 are allowed",
    );
}

#[test]
fn too_few_requests_on_either_side_hold_however_bad_they_are() {
    assert_judgement(
        sample(share(0, 0), &[]),
        sample(share(3, 11_020), &[]),
        Verdict::Hold,
        "too few requests to compare: web-r8 answered 0 in 30 s, web-r7 answered 11,020; at least 500 each are needed",
    );
    for (new, old) in [(499, 10_000), (10_000, 499), (0, 0)] {
        assert_eq!(verdict(sample(share(new, new), &[]), sample(share(0, old), &[])), Verdict::Hold);
    }
    assert_eq!(verdict(sample(share(500, 500), &[]), sample(share(0, 500), &[])), Verdict::Abort, "from the minimum on");
}

#[test]
fn requests_without_an_answer_are_a_quantity_of_their_own() {
    assert_judgement(
        with_unanswered(sample(share(0, 1_000), &[]), 200),
        with_unanswered(sample(share(0, 11_000), &[]), 3),
        Verdict::Abort,
        "web-r8: 0 of 1,000 requests failed (0 %), web-r7 in the same 30 s: 0 of 11,000 (0 %); 200 of 1,200 got no answer (17 %), web-r7: 3 of 11,003 (0.03 %): without an answer more often than the allowed 0.5 points (p < 0.001)",
    );
    assert_judgement(
        with_unanswered(sample(share(2, 10_000), &[]), 1),
        with_unanswered(sample(share(12, 40_000), &[]), 5),
        Verdict::Promote,
        "web-r8: 2 of 10,000 requests failed (0.02 %), web-r7 in the same 30 s: 12 of 40,000 (0.03 %); 1 of 10,001 got no answer (below 0.01 %), web-r7: 5 of 40,005 (0.01 %): not worse than the allowed 0.5 points (p < 0.001); not without an answer more often than the allowed 0.5 points (p < 0.001); no latency is recorded, for only GETs with small answers are timed",
    );
    let of_earlier = |sample: Sample| Sample { unanswered: share(0, 0), ..sample };
    let (new, old) = (of_earlier(sample(share(2, 10_000), &[])), of_earlier(sample(share(12, 40_000), &[])));
    assert_eq!(verdict(new, old), Verdict::Promote, "a proxy of an earlier version counts none");
    let long_polls = |failed: u64, of: u64, left: u64| with_unanswered(sample(share(failed, of), &[]), left);
    assert_eq!(
        verdict(long_polls(45, 900, 0), long_polls(0, 8_100, 1_000)),
        Verdict::Abort,
        "what the old release leaves without an answer excuses no error of the new one"
    );
    assert_eq!(verdict(long_polls(0, 10_000, 40), long_polls(0, 10_000, 0)), Verdict::Hold, "not promoted while it may be worse");
}

#[test]
fn nothing_is_promoted_on_silence_and_a_release_that_answers_nothing_is_found() {
    let silent = |left: u64| with_unanswered(sample(share(0, 0), &[]), left);
    let judgement = judge(&sides(silent(5_000), silent(20_000)), &POLICY);
    let told = "too few requests to compare: web-r8 answered 0 in 30 s, web-r7 answered 0; at least 500 each are needed (5,000 and 20,000 got no answer)";
    assert_eq!((judgement.verdict, judgement.evidence.as_str()), (Verdict::Hold, told));
    assert_eq!(verdict(silent(5_000), sample(share(0, 20_000), &[])), Verdict::Abort);
    assert_eq!(verdict(silent(499), sample(share(0, 20_000), &[])), Verdict::Hold, "too few were asked");
}

#[test]
fn degenerate_samples_have_their_verdict() {
    let one = |of: u64| vec![(5_000, of)];
    // One bucket on both sides; all fail on both sides, alike.
    assert_eq!(verdict(sample(share(0, 5_000), &one(5_000)), sample(share(0, 20_000), &one(20_000))), Verdict::Promote);
    assert_eq!(verdict(sample(share(5_000, 5_000), &one(5_000)), sample(share(20_000, 20_000), &one(20_000))), Verdict::Promote);
    // All fail on one side.
    assert_eq!(verdict(sample(share(5_000, 5_000), &one(5_000)), sample(share(0, 20_000), &one(20_000))), Verdict::Abort);
    assert_eq!(verdict(sample(share(0, 5_000), &one(5_000)), sample(share(20_000, 20_000), &one(20_000))), Verdict::Promote, "it mends it");
    // Small GETs on one side only: what is not compared is not shown.
    assert_eq!(verdict(sample(share(0, 5_000), &[]), sample(share(0, 20_000), &one(20_000))), Verdict::Hold);
    assert_eq!(verdict(sample(share(0, 5_000), &one(5_000)), sample(share(0, 20_000), &[])), Verdict::Hold);
    // Policies at their ends.
    let any = |policy| judge(&sides(sample(share(900, 1_000), &one(1_000)), sample(share(0, 1_000), &one(1_000))), &policy).verdict;
    assert_eq!(any(AnalysisPolicy { minimum_requests: 0, error_margin: 10_000, latency_margin: 20 }), Verdict::Promote);
    assert_eq!(any(AnalysisPolicy { minimum_requests: u32::MAX, error_margin: 0, latency_margin: 0 }), Verdict::Hold);
    assert_eq!(any(AnalysisPolicy { minimum_requests: 1, error_margin: u32::MAX, latency_margin: u32::MAX }), Verdict::Promote);
    let equal = || sample(share(10, 50_000), &one(50_000));
    let none = AnalysisPolicy { minimum_requests: 1, error_margin: 0, latency_margin: 0 };
    assert_eq!(judge(&sides(equal(), equal()), &none).verdict, Verdict::Hold, "without a margin equality is never shown");
}

#[test]
fn the_risks_of_all_looks_add_up_to_what_is_stated() {
    let policy = AnalysisPolicy { minimum_requests: 100, ..POLICY };
    let all = |part: f64| {
        let looks = (0..57).map(|doublings| Risks::at(100 << doublings, &policy, part));
        looks.fold((0.0, 0.0), |(abort, promote), risks| (abort + risks.abort, promote + risks.promote))
    };
    let quantities = QUANTILES.map(|_| QUANTILE_PART).into_iter().chain([ERRORS_PART, UNANSWERED_PART]);
    let abort: f64 = quantities.map(|part| all(part).0).sum();
    let promote = all(1.0).1;
    assert!(abort * LOOKS_ABORT * STEPS <= FALSE_ABORT && promote * LOOKS_PROMOTE <= FALSE_PROMOTE, "{abort} {promote}");
    assert_eq!(Risks::at(100, &policy, 1.0), Risks::at(199, &policy, 1.0));
    assert!(Risks::at(200, &policy, 1.0).abort < Risks::at(199, &policy, 1.0).abort);
}

/// Draws the requests of a release. SplitMix64 (Steele, Lea and Flood, 2014).
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Box and Muller (1958).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// How a release behaves.
#[derive(Clone, Copy)]
struct Behaviour {
    error_rate: f64,
    /// How many times as long as usual everything takes.
    slower: f64,
    /// How many times as long the slowest twentieth takes.
    tail: f64,
}

const USUAL: Behaviour = Behaviour { error_rate: 0.01, slower: 1.0, tail: 1.0 };

impl Behaviour {
    /// Requests with a median of 20 ms and a long tail (log-normal, sigma 0.5), as the record keeps them.
    fn add(self, sample: &mut Sample, requests: u64, draws: &mut Draws) {
        for _ in 0..requests {
            sample.failed.of += 1;
            // All but the last quarter of a span should have an answer at its end.
            sample.unanswered.of = sample.failed.of * 3 / 4;
            sample.failed.count += u64::from(draws.uniform() < self.error_rate);
            let deviation = draws.normal();
            let tail = if deviation > 1.644_853_6 { self.tail } else { 1.0 };
            sample.latencies.add(two_digits((20_000.0 * (0.5 * deviation).exp() * self.slower * tail) as u64), 1);
        }
    }
}

fn two_digits(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value.div_ceil(unit) * unit
}

/// A step of a canary: the old release is usual, and has three requests for each one of the new one.
#[derive(Clone, Copy)]
struct Simulation {
    new: Behaviour,
    /// Of the new release, at each look: it goes on until there is a verdict.
    looks: &'static [u64],
    policy: AnalysisPolicy,
}

/// What came of many simulations.
#[derive(Debug, Default)]
struct Outcomes {
    simulations: u64,
    aborted: u64,
    promoted: u64,
}

impl Simulation {
    fn verdict(self, seed: u64) -> Verdict {
        let mut draws = Draws(seed.wrapping_mul(0xD134_2543_DE82_EF95));
        let (mut new, mut old) = (Sample::default(), Sample::default());
        let mut until = 0;
        for look in self.looks {
            self.new.add(&mut new, look - until, &mut draws);
            USUAL.add(&mut old, 3 * (look - until), &mut draws);
            until = *look;
            let judged = judge(&sides(new.clone(), old.clone()), &self.policy).verdict;
            if judged != Verdict::Hold {
                return judged;
            }
        }
        Verdict::Hold
    }

    /// `GAPLESS_SIMULATIONS` multiplies their number: the figures in the documentation are from 50 times as many.
    fn run(self, what: &str, simulations: u64) -> Outcomes {
        let times = std::env::var("GAPLESS_SIMULATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
        let mut outcomes = Outcomes { simulations: simulations * times, ..Outcomes::default() };
        for seed in 1..=outcomes.simulations {
            match self.verdict(seed) {
                Verdict::Abort => outcomes.aborted += 1,
                Verdict::Promote => outcomes.promoted += 1,
                Verdict::Hold => {}
            }
        }
        println!("{what}: {outcomes:?}");
        outcomes
    }
}

/// Whether so many of so many can come from this risk: less likely than one in 100,000, they do not.
#[track_caller]
fn assert_risk(what: &str, count: u64, of: u64, risk: f64) {
    let likely = Binomial::new(of, risk).from(count);
    assert!(likely > 1e-5, "{what}: {count} of {of}, where the risk is {risk}");
}

const ONE_LOOK: &[u64] = &[1_000];
/// Looks again and again, over three doublings.
const LOOKS_AGAIN: &[u64] = &[500, 600, 700, 800, 900, 1_000, 1_200, 1_400, 1_600, 1_800, 2_000, 2_400, 2_800, 3_200, 3_600, 4_000];

/// Worse than usual by the margins exactly: as bad as is allowed, and as good as is not.
const AT_THE_MARGIN: Behaviour = Behaviour { error_rate: 0.015, slower: 1.2, tail: 1.0 };

/// A calibration shows what the small risks of the verdicts cannot: that each test errs as often as it may, and not much less often.
#[test]
fn the_tests_err_as_often_as_they_may() {
    const SIMULATIONS: u64 = 2_000;
    let mut errs: BTreeMap<String, u64> = BTreeMap::new();
    for requests in [300, 1_500] {
        for seed in 1..=SIMULATIONS {
            let mut draws = Draws(seed.wrapping_mul(0x9FB2_1C65_1E98_DF25));
            let (mut new, mut old) = (Sample::default(), Sample::default());
            AT_THE_MARGIN.add(&mut new, requests, &mut draws);
            USUAL.add(&mut old, 3 * requests, &mut draws);
            for (what, risk, wrong) in wrong_at_the_margin(&new, &old) {
                *errs.entry(format!("{risk} {what} with {requests}")).or_default() += u64::from(wrong);
            }
        }
    }
    for (what, count) in &errs {
        println!("{what}: {count} of {SIMULATIONS}");
        let risk: f64 = what.split(' ').next().and_then(|risk| risk.parse().ok()).expect("the risk stands first");
        assert_risk(what, *count, SIMULATIONS, risk);
        // At the smaller risk there are too few to say so.
        assert!(risk < 0.05 || *count as f64 >= 0.2 * risk * SIMULATIONS as f64, "{what}: {count} is far less often");
    }
    assert_eq!(errs.len(), 2 * 2 * 2 * 4);
}

/// Each test in both directions at two risks, and whether it rejects, of a release that lies at all margins: whatever it says is wrong.
fn wrong_at_the_margin(new: &Sample, old: &Sample) -> Vec<(String, f64, bool)> {
    let (worse, not_worse) = (larger_by_more(new.failed, old.failed, 0.005), not_larger_by(new.failed, old.failed, 0.005));
    let at = |risk: f64| {
        let quantiles = QUANTILES.into_iter().flat_map(move |(name, part)| {
            let ratio = ratio(&new.latencies, &old.latencies, part, risk, risk);
            [(format!("{name} worse"), risk, ratio.at_least > 1.2), (format!("{name} not worse"), risk, ratio.at_most < 1.2)]
        });
        quantiles.chain([("errors worse".to_string(), risk, worse <= risk), ("errors not worse".to_string(), risk, not_worse <= risk)])
    };
    at(0.05).chain(at(0.01)).collect()
}

#[test]
fn equal_releases_are_aborted_no_more_often_than_stated() {
    let none = AnalysisPolicy { error_margin: 0, latency_margin: 0, ..POLICY };
    // Without margins every difference counts: the hardest case for a release that is as good.
    for (what, policy) in [("equal", POLICY), ("equal, no margins", none)] {
        let outcomes = Simulation { new: USUAL, looks: LOOKS_AGAIN, policy }.run(what, 60);
        assert_risk(what, outcomes.aborted, outcomes.simulations, FALSE_ABORT / STEPS);
    }
}

#[test]
fn a_release_at_its_margins_is_neither_aborted_nor_promoted_more_often_than_stated() {
    let outcomes = Simulation { new: AT_THE_MARGIN, looks: LOOKS_AGAIN, policy: POLICY }.run("at the margins", 60);
    assert_risk("aborted", outcomes.aborted, outcomes.simulations, FALSE_ABORT / STEPS);
    assert_risk("promoted", outcomes.promoted, outcomes.simulations, FALSE_PROMOTE);
    // Each alone, with the other quantities far from their margins: promotion then rests on the one test.
    for (what, behaviour) in [
        ("errors at the margin", Behaviour { error_rate: 0.015, slower: 0.5, tail: 1.0 }),
        ("latencies at the margin", Behaviour { error_rate: 0.0, slower: 1.2, tail: 1.0 }),
        ("p99 at the margin", Behaviour { error_rate: 0.0, slower: 0.6, tail: 2.0 }),
    ] {
        let outcomes = Simulation { new: behaviour, looks: LOOKS_AGAIN, policy: POLICY }.run(what, 40);
        assert_risk(what, outcomes.promoted, outcomes.simulations, FALSE_PROMOTE);
    }
}

#[test]
fn clear_regressions_are_found_at_the_first_thousand_requests() {
    let one_look = |what: &str, new| Simulation { new, looks: ONE_LOOK, policy: POLICY }.run(what, 100);
    let errors = one_look("errors 1 % to 5 %", Behaviour { error_rate: 0.05, ..USUAL });
    let slower = one_look("all twice as long", Behaviour { slower: 2.0, ..USUAL });
    let tail = one_look("p99 twice as long", Behaviour { tail: 2.0, ..USUAL });
    assert_eq!(errors.promoted + slower.promoted + tail.promoted, 0);
    for (found, of, least) in
        [(errors.aborted, errors.simulations, 0.9), (slower.aborted, slower.simulations, 0.99), (tail.aborted, tail.simulations, 0.5)]
    {
        assert!(found as f64 >= least * of as f64, "{found} of {of}");
    }
}

#[test]
fn good_releases_are_promoted_once_there_are_enough_requests() {
    let promoted =
        |requests: &'static [u64]| Simulation { new: USUAL, looks: requests, policy: POLICY }.run(&format!("equal, {requests:?}"), 40);
    let (few, many) = (promoted(&[1_000]), promoted(&[20_000]));
    assert!(few.promoted < few.simulations / 2 && many.promoted as f64 >= 0.9 * many.simulations as f64, "{few:?} {many:?}");
}
