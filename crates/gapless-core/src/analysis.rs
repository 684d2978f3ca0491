//! The analysis of a canary: what is compared, and what came of it. The arithmetic is done outside; the core gets a verdict with its evidence.

use alloc::string::String;

/// When the new group's answers are as good as the simultaneous ones of the old group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnalysisPolicy {
    /// Requests that each side must have answered before there is a verdict. At least 1.
    pub minimum_requests: u32,
    /// By how much the new group's error rate may be above the old one's, in basis points (hundredths of a percent).
    pub error_margin: u32,
    /// By how much the new group's latency quantiles may be above the old one's, in percent.
    pub latency_margin: u32,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Not worse than the margins allow, shown by enough requests.
    Promote,
    /// Not decided: too few requests, or a difference that may be chance.
    Hold,
    /// Worse than the margins allow, and not by chance.
    Abort,
}

/// A verdict with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// What the comparison says.
    pub verdict: Verdict,
    /// The numbers behind it, for people: one line.
    pub evidence: String,
}
