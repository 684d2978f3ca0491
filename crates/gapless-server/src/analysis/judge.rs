//! From two samples of the same time to a verdict.
//!
//! Each quantity (the error rate; the rate of requests without an answer; p50, p95 and p99 of the latency) is tested twice: whether the new release is worse by more than its margin, and
//! whether it is not (non-inferiority). One that is worse aborts; all of them shown not to be worse promote; anything else holds.
//!
//! The verdict is right however often it is asked for. The risk of a false abort is divided (Bonferroni) among the quantities, each its part, and evenly among the steps of a rollout. Promotion needs every quantity at once,
//! which needs no such division (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24 (1982)). In a step the risk is spent over time (K. K. G. Lan and D. L. DeMets,
//! "Discrete sequential boundaries for clinical trials", Biometrika 70 (1983)): 1 / ((d + 1) (d + 2)) of it, which add up to 1, after the smaller sample has doubled d times. Looks while it doubles
//! once are many views of nearly the same: what they add up to is bounded by [`LOOKS_ABORT`] and [`LOOKS_PROMOTE`].

use super::evidence::Evidence;
use super::proportion::{Share, larger_by_more, not_larger_by};
use super::quantile::{Ratio, ratio};
use super::sample::Sample;
use gapless_core::analysis::{AnalysisPolicy, Judgement, Verdict};

/// The risk that a rollout of a release that is not worse than the margins allow is aborted: one in a hundred.
pub(super) const FALSE_ABORT: f64 = 0.01;

/// The risk that a step of a release that is worse than the margins allow is promoted: one in twenty, and it has to pass each further step, with more traffic, as well.
pub(super) const FALSE_PROMOTE: f64 = 0.05;

/// The steps of a canary among which the risk of a false abort is divided: 1, 5, 25, 50 and 100 percent. With more of them it grows in proportion.
const STEPS: f64 = 5.0;

/// The quantiles of the latency that are compared, with what people call them.
pub(super) const QUANTILES: [(&str, f64); 3] = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)];

/// The part of the risk of a false abort that the error rate may take: it is what a bad release most often shows first.
const ERRORS_PART: f64 = 1.0 / 4.0;

/// The part of the rate of requests without an answer: a release that hangs leaves many, so it is found with little risk.
const UNANSWERED_PART: f64 = 1.0 / 8.0;

/// The part of each quantile: what is left, evenly.
const QUANTILE_PART: f64 = (1.0 - ERRORS_PART - UNANSWERED_PART) / QUANTILES.len() as f64;

/// By how much more often chance passes a limit at any of however many looks while a sample doubles, than at one of them: 1 + (ln 2 / 2) z squared for a limit of z standard deviations (D. Aldous,
/// "Probability Approximations via the Poisson Clumping Heuristic", 1989, on the Ornstein-Uhlenbeck process that the deviation follows on the logarithmic scale of the sample). That is 6.4 to 7
/// for the first limits of an abort (z = 4.0 to 4.2), and 8 for z = 4.5.
const LOOKS_ABORT: f64 = 8.0;

/// The same for the milder limits of promotion: 3.2 for the first one (z = 2.5), and 4 for z = 2.9.
const LOOKS_PROMOTE: f64 = 4.0;

/// Both sides of a comparison.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    /// The new release's name and what it answered.
    pub(super) new: (String, Sample),
    /// The simultaneous old one's.
    pub(super) old: (String, Sample),
    /// How long both were recorded, in milliseconds.
    pub(super) span_ms: u64,
}

/// The risks that one look may take with one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Risks {
    pub(super) abort: f64,
    pub(super) promote: f64,
}

impl Risks {
    /// At a look where the smaller side has so many requests, for a quantity with this part of the risk of a false abort.
    pub(super) fn at(requests: u64, policy: &AnalysisPolicy, abort_part: f64) -> Self {
        let doublings = f64::from((requests / u64::from(policy.minimum_requests.max(1))).max(1).ilog2());
        let part = 1.0 / ((doublings + 1.0) * (doublings + 2.0));
        Self { abort: FALSE_ABORT / STEPS * abort_part * part / LOOKS_ABORT, promote: FALSE_PROMOTE * part / LOOKS_PROMOTE }
    }
}

/// What is found of one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// Worse by more than the margin.
    Worse,
    /// Not worse by more than the margin.
    NotWorse,
    /// Either may be.
    Open,
}

/// What is found of a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RateFinding {
    pub(super) finding: Finding,
    /// How likely chance alone lets it look so much worse than the margin.
    pub(super) worse: f64,
    /// How likely chance alone lets it look so much better than the margin.
    pub(super) not_worse: f64,
}

/// What is found of one quantile of the latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LatencyFinding {
    pub(super) name: &'static str,
    pub(super) part: f64,
    pub(super) finding: Finding,
    pub(super) ratio: Ratio,
}

/// What is found of every quantity.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Findings {
    /// Of the requests that failed.
    pub(super) errors: RateFinding,
    /// Of those that got no answer.
    pub(super) unanswered: RateFinding,
    pub(super) latencies: Vec<LatencyFinding>,
}

impl Findings {
    fn all(&self) -> impl Iterator<Item = Finding> + '_ {
        self.latencies.iter().map(|latency| latency.finding).chain([self.errors.finding, self.unanswered.finding])
    }
}

/// The verdict on both sides, with its evidence. Nothing is promoted on silence: both sides must have answered enough, and a release that leaves requests without an answer is found by that.
pub(super) fn judge(sides: &Sides, policy: &AnalysisPolicy) -> Judgement {
    let evidence = Evidence { sides, policy };
    let (new, old) = (&sides.new.1, &sides.old.1);
    let least = u64::from(policy.minimum_requests.max(1));
    let (answered, asked) = (new.failed.of.min(old.failed.of), new.unanswered.of.min(old.unanswered.of));
    let unanswered = unanswered(new, old, policy, Risks::at(asked, policy, UNANSWERED_PART));
    let is_silent = asked >= least && unanswered.finding == Finding::Worse;
    if answered < least && !is_silent {
        return Judgement { verdict: Verdict::Hold, evidence: evidence.too_few() };
    }
    let errors = rate(new.failed, old.failed, policy, Risks::at(answered, policy, ERRORS_PART));
    let found = Findings { errors, unanswered, latencies: latencies(new, old, policy, Risks::at(answered, policy, QUANTILE_PART)) };
    if found.all().any(|finding| finding == Finding::Worse) {
        return Judgement { verdict: Verdict::Abort, evidence: evidence.worse(&found) };
    }
    if found.all().all(|finding| finding == Finding::NotWorse) {
        return Judgement { verdict: Verdict::Promote, evidence: evidence.not_worse(&found) };
    }
    Judgement { verdict: Verdict::Hold, evidence: evidence.open(&found) }
}

/// A worker of an earlier version counts none: then the other quantities decide alone.
fn unanswered(new: &Sample, old: &Sample, policy: &AnalysisPolicy, risks: Risks) -> RateFinding {
    let found = rate(new.unanswered, old.unanswered, policy, risks);
    let is_counted = new.unanswered.of > 0 || old.unanswered.of > 0;
    if is_counted { found } else { RateFinding { finding: Finding::NotWorse, ..found } }
}

fn rate(new: Share, old: Share, policy: &AnalysisPolicy, risks: Risks) -> RateFinding {
    let margin = f64::from(policy.error_margin) / 10_000.0;
    let (worse, not_worse) = (larger_by_more(new, old, margin), not_larger_by(new, old, margin));
    let finding = if worse <= risks.abort {
        Finding::Worse
    } else if not_worse <= risks.promote {
        Finding::NotWorse
    } else {
        Finding::Open
    };
    RateFinding { finding, worse, not_worse }
}

/// Where neither side has a small GET, nothing is compared: the rates decide alone.
fn latencies(new: &Sample, old: &Sample, policy: &AnalysisPolicy, risks: Risks) -> Vec<LatencyFinding> {
    if new.latencies.count() == 0 && old.latencies.count() == 0 {
        return Vec::new();
    }
    let allowed = 1.0 + f64::from(policy.latency_margin) / 100.0;
    let of = |(name, part): (&'static str, f64)| {
        let ratio = ratio(&new.latencies, &old.latencies, part, risks.abort, risks.promote);
        let finding = match ratio {
            Ratio { at_least, .. } if at_least > allowed => Finding::Worse,
            Ratio { at_most, .. } if at_most < allowed => Finding::NotWorse,
            _ => Finding::Open,
        };
        LatencyFinding { name, part, finding, ratio }
    };
    QUANTILES.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests;
