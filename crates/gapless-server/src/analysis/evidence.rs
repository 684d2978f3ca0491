//! The evidence of a verdict, in one line that a person understands.

use super::judge::{Finding, Findings, LatencyFinding, RateFinding, Sides};
use super::proportion::Share;
use gapless_core::analysis::AnalysisPolicy;

/// Probabilities below this are not told apart: nobody acts differently on them.
const LEAST_PROBABILITY: f64 = 0.001;

/// What the lines are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    pub(super) sides: &'a Sides,
    pub(super) policy: &'a AnalysisPolicy,
}

impl Evidence<'_> {
    /// Too few answered requests on one side at least.
    pub(super) fn too_few(self) -> String {
        let Sides { new, old, .. } = self.sides;
        let (new_count, old_count) = (new.1.failed.of, old.1.failed.of);
        format!(
            "too few requests to compare: {} answered {} in {}, {} answered {}; at least {} each are needed{}",
            new.0,
            thousands(new_count),
            self.span(),
            old.0,
            thousands(old_count),
            thousands(u64::from(self.policy.minimum_requests.max(1))),
            if self.something_hangs() {
                format!(" ({} and {} got no answer)", thousands(new.1.unanswered.count), thousands(old.1.unanswered.count))
            } else {
                String::new()
            }
        )
    }

    /// Abort: each quantity that is worse.
    pub(super) fn worse(self, found: &Findings) -> String {
        let mut reasons = Vec::new();
        if found.errors.finding == Finding::Worse {
            reasons.push(format!("worse than the allowed {} ({})", self.error_margin(), probability(found.errors.worse)));
        }
        if found.unanswered.finding == Finding::Worse {
            reasons.push(format!(
                "without an answer more often than the allowed {} ({})",
                self.error_margin(),
                probability(found.unanswered.worse)
            ));
        }
        for latency in found.latencies.iter().filter(|latency| latency.finding == Finding::Worse) {
            let (measured, at_least) = (latency.ratio.measured, latency.ratio.at_least);
            let (compared, allowed) = (self.compared(latency), self.allowed());
            reasons.push(format!("{compared}, {measured:.1} times as long, at least {at_least:.2} times, where {allowed:.2} are allowed"));
        }
        format!("{}: {}", self.rates(), reasons.join("; "))
    }

    /// Promote: all quantities.
    pub(super) fn not_worse(self, found: &Findings) -> String {
        let mut reasons = vec![format!("not worse than the allowed {} ({})", self.error_margin(), probability(found.errors.not_worse))];
        if self.something_hangs() {
            let likely = probability(found.unanswered.not_worse);
            reasons.push(format!("not without an answer more often than the allowed {} ({likely})", self.error_margin()));
        }
        let compared: Vec<String> = found.latencies.iter().map(|latency| self.compared(latency)).collect();
        reasons.push(if compared.is_empty() {
            "no latency is recorded, for only GETs with small answers are timed".to_string()
        } else {
            format!("{}: within the allowed {} %", compared.join(", "), self.policy.latency_margin)
        });
        format!("{}: {}", self.rates(), reasons.join("; "))
    }

    /// Hold: each quantity that is open.
    pub(super) fn open(self, found: &Findings) -> String {
        let mut reasons = Vec::new();
        if found.errors.finding == Finding::Open {
            reasons.push(self.open_rate(found.errors, "worse"));
        }
        for latency in found.latencies.iter().filter(|latency| latency.finding == Finding::Open) {
            reasons.push(self.open_latency(latency));
        }
        // Where nothing hangs, it says the same as the errors, if those are open too.
        if found.unanswered.finding == Finding::Open && (self.something_hangs() || reasons.is_empty()) {
            reasons.push(self.open_rate(found.unanswered, "without an answer more often"));
        }
        format!("{}: not decided yet: {}", self.rates(), reasons.join("; "))
    }

    fn open_rate(self, rate: RateFinding, worse: &str) -> String {
        let (not, likely) = if rate.worse < rate.not_worse { ("", rate.worse) } else { ("not ", rate.not_worse) };
        format!("{not}{worse} than the allowed {}, which may be chance ({})", self.error_margin(), probability(likely))
    }

    fn open_latency(self, latency: &LatencyFinding) -> String {
        let (new, old) = (&self.sides.new, &self.sides.old);
        let (compared, at_most) = (self.compared(latency), latency.ratio.at_most);
        if at_most.is_finite() {
            return format!("{compared}, which may be up to {at_most:.2} times as long where {:.2} are allowed", self.allowed());
        }
        let fewer = if new.1.latencies.count() < old.1.latencies.count() { new } else { old };
        format!("the {} of {} cannot be told from {} small GETs", latency.name, fewer.0, thousands(fewer.1.latencies.count()))
    }

    /// `web-r8: 14 of 1,204 requests failed (1.2 %), web-r7 in the same 30 s: 3 of 11,020 (0.03 %)`, and of those without an answer, if there are any, the same.
    fn rates(self) -> String {
        let (new, old) = (&self.sides.new, &self.sides.old);
        let span = self.span();
        let failed = format!(
            "{}: {} requests failed {}, {} in the same {span}: {}",
            new.0,
            counted(new.1.failed),
            percentage(new.1.failed),
            old.0,
            whole(old.1.failed)
        );
        if !self.something_hangs() {
            return failed;
        }
        format!(
            "{failed}; {} got no answer {}, {}: {}",
            counted(new.1.unanswered),
            percentage(new.1.unanswered),
            old.0,
            whole(old.1.unanswered)
        )
    }

    fn something_hangs(self) -> bool {
        self.sides.new.1.unanswered.count + self.sides.old.1.unanswered.count > 0
    }

    /// `p99 412 ms against 201 ms`
    fn compared(self, latency: &LatencyFinding) -> String {
        let of = |latencies: &super::quantile::Histogram| duration(latencies.quantile(latency.part));
        format!("{} {} against {}", latency.name, of(&self.sides.new.1.latencies), of(&self.sides.old.1.latencies))
    }

    fn allowed(self) -> f64 {
        1.0 + f64::from(self.policy.latency_margin) / 100.0
    }

    /// `0.5 points`
    fn error_margin(self) -> String {
        let points = f64::from(self.policy.error_margin) / 100.0;
        format!("{points} {}", if self.policy.error_margin == 100 { "point" } else { "points" })
    }

    fn span(self) -> String {
        span(self.sides.span_ms)
    }
}

/// `14 of 1,204`
fn counted(share: Share) -> String {
    format!("{} of {}", thousands(share.count), thousands(share.of))
}

/// `(1.2 %)`
fn percentage(share: Share) -> String {
    format!("({} %)", percent(share.percent()))
}

/// `14 of 1,204 (1.2 %)`
fn whole(share: Share) -> String {
    format!("{} {}", counted(share), percentage(share))
}

/// `1,204`
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let grouped = digits.char_indices().map(|(at, digit)| {
        let separated = at > 0 && (digits.len() - at).is_multiple_of(3);
        if separated { format!(",{digit}") } else { digit.to_string() }
    });
    grouped.collect()
}

/// `30 s`, `0.9 s` or `2 min 5 s`
pub(super) fn span(span_ms: u64) -> String {
    let seconds = span_ms / 1_000;
    match (seconds / 60, seconds % 60) {
        (0, 0..10) => format!("{} s", span_ms as f64 / 1_000.0),
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// Two significant digits, at most the hundredth of a percent.
fn percent(percent: f64) -> String {
    match percent {
        0.0 => "0".to_string(),
        // Not all of them: it must not look like it.
        99.5..100.0 => format!("{:.2}", percent.min(99.99)),
        10.0.. => format!("{percent:.0}"),
        1.0.. => format!("{percent:.1}"),
        ..0.01 => "below 0.01".to_string(),
        _ => format!("{percent:.2}"),
    }
}

/// `p < 0.001` or `p = 0.012`
fn probability(probability: f64) -> String {
    if probability < LEAST_PROBABILITY {
        return format!("p < {LEAST_PROBABILITY}");
    }
    match probability {
        ..0.01 => format!("p = {probability:.4}"),
        ..0.1 => format!("p = {probability:.3}"),
        _ => format!("p = {probability:.2}"),
    }
}

/// Microseconds for people: two or three digits.
fn duration(microseconds: f64) -> String {
    match microseconds {
        ..999.5 => format!("{microseconds:.0} µs"),
        ..9_950.0 => format!("{:.1} ms", microseconds / 1_000.0),
        ..999_500.0 => format!("{:.0} ms", microseconds / 1_000.0),
        _ => format!("{:.1} s", microseconds / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_204, 11_020, 1_000_000].map(thousands), ["0", "999", "1,204", "11,020", "1,000,000"]);
        assert_eq!([900, 2_000, 30_000, 60_000, 125_300].map(span), ["0.9 s", "2 s", "30 s", "1 min", "2 min 5 s"]);
        let percents = [0.0, 0.004, 0.027_22, 1.163, 14.6, 99.97, 100.0].map(percent);
        assert_eq!(percents, ["0", "below 0.01", "0.03", "1.2", "15", "99.97", "100"]);
        assert_eq!([0.000_4, 0.004_54, 0.012_3, 0.456].map(probability), ["p < 0.001", "p = 0.0045", "p = 0.012", "p = 0.46"]);
        assert_eq!(
            [850.0, 999.8, 1_240.0, 412_000.0, 999_900.0, 1_234_567.0].map(duration),
            ["850 µs", "1.0 ms", "1.2 ms", "412 ms", "1.0 s", "1.2 s"]
        );
    }
}
