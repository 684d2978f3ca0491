//! What the checks of one node amount to. Pure.

use gapless_wire::route::Check;

/// Up to this count each further check of a run is told to those who wait for a change: gates ask for small numbers, and a status that changes with
/// every check of every healthy node for ever would wake them for nothing.
const TOLD_COUNT: u32 = 16;

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A status from 200 to 299, and a whole answer.
    Passed,
    /// Anything else.
    Failed {
        /// For people: `status 500`.
        reason: String,
        /// How far it came.
        reach: Reach,
    },
}

/// How far a failed check came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No connection: nobody listens.
    Refused,
    /// No answer, and nothing that says that one will come: closed too early, or no connection in time.
    Broken,
    /// A connection, but no whole answer in time: perhaps it only has too much to do.
    Late,
    /// A status line came.
    Answered,
}

/// What the checks say about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// Not checked yet by this worker: used only while nobody is known to pass. So a worker that replaces a dead one serves at once.
    #[default]
    Unknown = 0,
    /// Used.
    Passing = 1,
    /// Not used.
    Failing = 2,
    /// Its checks are answered too late: used only while nobody else is there. When a whole machine is busy, all nodes are late, and none is broken.
    Late = 3,
}

/// The run of equal checks, and what it amounts to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    pub(crate) passes: u32,
    pub(crate) failures: u32,
    pub(crate) failures_after_answer: u32,
    pub(crate) failure: Option<String>,
    pub(crate) verdict: Verdict,
    passed_once: bool,
    answered_once: bool,
}

impl Health {
    /// Takes a check's outcome in; true when somebody who waits should hear of it.
    pub(crate) fn note(&mut self, outcome: Outcome, check: &Check) -> bool {
        match outcome {
            Outcome::Passed => self.note_pass(check),
            Outcome::Failed { reason, reach } => self.note_failure(reason, reach, check),
        }
    }

    /// A request found nobody listening: as good as a failed check; true when that is news.
    pub(crate) fn note_refused(&mut self, reason: &str) -> bool {
        if self.verdict == Verdict::Failing {
            return false;
        }
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(reason.to_string());
        self.verdict = Verdict::Failing;
        true
    }

    /// It never passed a check: probably it boots.
    pub(crate) fn never_passed(&self) -> bool {
        !self.passed_once
    }

    /// It passed, and not yet as often in a row as its gate asks for.
    pub(crate) fn is_short_of_passes(&self, check: &Check) -> bool {
        self.passes > 0 && self.passes < check.passes
    }

    fn note_pass(&mut self, check: &Check) -> bool {
        let before = self.verdict;
        self.passes = self.passes.saturating_add(1);
        self.failures = 0;
        self.failures_after_answer = 0;
        self.failure = None;
        self.answered_once = true;
        if self.verdict != Verdict::Passing && (!self.passed_once || self.passes >= check.passes) {
            self.verdict = Verdict::Passing;
        }
        self.passed_once = true;
        self.passes <= TOLD_COUNT || self.verdict != before
    }

    fn note_failure(&mut self, reason: String, reach: Reach, check: &Check) -> bool {
        let before = self.verdict;
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        self.answered_once |= reach == Reach::Answered;
        if self.answered_once {
            self.failures_after_answer = self.failures_after_answer.saturating_add(1);
        }
        // Nobody listens there: waiting for more such checks would only send more requests into it.
        if reach == Reach::Refused || self.failures >= check.failures {
            self.verdict = if reach == Reach::Late { Verdict::Late } else { Verdict::Failing };
        }
        let news = self.failures <= TOLD_COUNT || self.verdict != before || self.failure.as_deref() != Some(&reason);
        self.failure = Some(reason);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check { path: "/".into(), interval_ms: 100, timeout_ms: 100, passes: 3, failures: 2 }
    }

    fn failed(reach: Reach) -> Outcome {
        Outcome::Failed { reason: "status 500".into(), reach }
    }

    #[test]
    fn a_new_node_is_used_after_its_first_pass_and_one_that_failed_after_the_passes_asked_for() {
        let mut health = Health::default();
        assert_eq!(health.verdict, Verdict::Unknown);
        health.note(failed(Reach::Refused), &check());
        assert_eq!(health.verdict, Verdict::Failing);
        health.note(Outcome::Passed, &check());
        assert_eq!(health.verdict, Verdict::Passing);
        health.note(failed(Reach::Answered), &check());
        assert_eq!(health.verdict, Verdict::Passing, "one failure of two is not enough");
        health.note(failed(Reach::Answered), &check());
        assert_eq!(health.verdict, Verdict::Failing);
        health.note(Outcome::Passed, &check());
        health.note(Outcome::Passed, &check());
        assert_eq!(health.verdict, Verdict::Failing);
        health.note(Outcome::Passed, &check());
        assert_eq!(health.verdict, Verdict::Passing);
    }

    #[test]
    fn silence_before_the_first_answer_is_told_apart() {
        let mut health = Health::default();
        health.note(failed(Reach::Refused), &check());
        health.note(failed(Reach::Late), &check());
        assert_eq!((health.failures, health.failures_after_answer), (2, 0));
        health.note(failed(Reach::Answered), &check());
        health.note(failed(Reach::Refused), &check());
        assert_eq!((health.failures, health.failures_after_answer), (4, 2));
        health.note(Outcome::Passed, &check());
        assert_eq!((health.passes, health.failures, health.failures_after_answer), (1, 0, 0));
        assert_eq!(health.failure, None);
    }

    #[test]
    fn the_trial_begins_with_the_first_pass_and_ends_with_the_last_or_with_a_failure() {
        let mut health = Health::default();
        let mut short = |outcome| {
            health.note(outcome, &check());
            health.is_short_of_passes(&check())
        };
        let seen = [failed(Reach::Answered), Outcome::Passed, failed(Reach::Late), Outcome::Passed, Outcome::Passed, Outcome::Passed];
        assert_eq!(seen.map(&mut short), [false, true, false, true, true, false]);
    }

    #[test]
    fn late_answers_are_not_failures_of_the_same_kind() {
        let mut health = Health::default();
        health.note(Outcome::Passed, &check());
        health.note(failed(Reach::Late), &check());
        assert_eq!(health.verdict, Verdict::Passing);
        health.note(failed(Reach::Late), &check());
        assert_eq!(health.verdict, Verdict::Late);
        health.note(failed(Reach::Broken), &check());
        assert_eq!(health.verdict, Verdict::Failing);
    }

    #[test]
    fn a_long_run_of_passes_is_no_news_and_a_change_is() {
        let mut health = Health::default();
        let told = (0..100).filter(|_| health.note(Outcome::Passed, &check())).count();
        assert_eq!(told, TOLD_COUNT as usize);
        assert!(health.note_refused("connection refused"));
        assert!(!health.note_refused("connection refused"), "the second request that is refused is no news");
    }
}
