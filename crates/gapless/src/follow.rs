//! Follows a rollout or a build to its end. Going away changes nothing: the server goes on.

use crate::show;
use crate::trouble::Trouble;
use gapless_wire::api::path;
use gapless_wire::artifact::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::client::{Lines, UnixClient};
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::rollout::{Counts, Declared, Fact, Outcome, Reason, RolloutLine, Step};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// How often the spinner moves.
const SPIN: Duration = Duration::from_millis(100);

/// Where progress is shown: a line that changes on a terminal, plain lines otherwise.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(SPIN);
            bar
        });
        Self { bar }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// What is going on right now; only a terminal shows it.
    fn now(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Follows a build. `Ok(None)`: the person went away.
pub async fn build(mut lines: Lines) -> Result<Option<Vec<Artifact>>, Trouble> {
    let progress = Progress::new();
    let mut artifacts = Vec::new();
    loop {
        let line = tokio::select! {
            line = lines.next::<BuildLine>() => line?,
            _ = tokio::signal::ctrl_c() => {
                drop(progress);
                eprintln!("detached: the build goes on; `gapless artifacts` shows what comes of it");
                return Ok(None);
            }
        };
        match line {
            Some(BuildLine::Published { artifact, took_ms, .. }) => {
                progress.line(&format!("published {} version {} after {}", artifact.name, artifact.version, show::span(took_ms)));
                artifacts.push(artifact);
            }
            Some(BuildLine::AlreadyBuilt { artifact }) => artifacts.push(artifact),
            Some(BuildLine::Failed { problem, .. }) => return Err(problem.into()),
            Some(BuildLine::Done) => return Ok(Some(artifacts)),
            Some(line) => show_build_line(&progress, &line),
            None => return Err(Trouble::new("the server told no end of the build", "did it stop? `gapless status`")),
        }
    }
}

fn show_build_line(progress: &Progress, line: &BuildLine) {
    match line {
        BuildLine::Begun { build, artifact, commit, .. } => {
            progress.line(&format!("build {build} of {artifact} at commit {}", show::short(commit)));
        }
        BuildLine::PhaseBegan { phase, .. } => progress.now(phase.clone()),
        BuildLine::PhaseEnded { phase, cached: true, .. } => progress.line(&format!("  {phase}: unchanged")),
        BuildLine::PhaseEnded { phase, .. } => progress.line(&format!("  {phase}: done")),
        BuildLine::Output { phase, text } => progress.now(format!("{phase}: {text}")),
        BuildLine::Puppet { run, changed } if changed.is_empty() => progress.line(&format!("  Puppet, run {run}: nothing to change")),
        BuildLine::Puppet { run, changed } => progress.line(&format!("  Puppet, run {run}: {} resources changed", changed.len())),
        BuildLine::Published { .. } | BuildLine::AlreadyBuilt { .. } | BuildLine::Failed { .. } | BuildLine::Done => {}
    }
}

/// What was declared and how it ended. As JSON it is one object: the fields of [`Declared`] and, beside them, those of [`End`].
#[derive(Debug, Serialize)]
pub struct Followed {
    #[serde(flatten)]
    declared: Declared,
    #[serde(flatten)]
    end: End,
    #[serde(skip)]
    trouble: Option<Trouble>,
}

/// How a rollout ended. Everything is `None` when it was not waited for, or when nothing changed.
#[derive(Debug, Default, PartialEq, Serialize)]
struct End {
    /// `Live` also while the old release is kept warm; `undo_until_ms` says until when.
    outcome: Option<Outcome>,
    /// Why, when it was rejected.
    reason: Option<Reason>,
    /// How long it took until the release had all the traffic, in milliseconds.
    live_after_ms: Option<u64>,
    /// Until when the old release is kept warm, in milliseconds since the Unix epoch. It is `None` when the rollout is over.
    undo_until_ms: Option<u64>,
    /// What the proxies counted while it was followed.
    counts: Option<Counts>,
    /// The receipt. It is signed when the rollout is over, so there is none yet while `undo_until_ms` is there.
    receipt: Option<Box<SignedReceipt>>,
    /// What became of what was live before, when it was rejected.
    #[serde(skip)]
    old: Old,
}

/// What a rollout did to what was live before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Old {
    #[default]
    Untouched,
    /// Old nodes lost traffic or left.
    Touched,
    /// Nothing was live.
    None,
}

impl Old {
    /// What is so after a rejection.
    fn words(self) -> &'static str {
        match self {
            Old::Untouched => "what was live is live, untouched",
            Old::Touched => "what was live before is live",
            Old::None => "nothing was live before, and nothing is",
        }
    }
}

impl Followed {
    /// A declaration that was not waited for.
    pub fn not_waited_for(declared: Declared) -> Self {
        Self { declared, end: End::default(), trouble: None }
    }

    /// The full name of its service.
    pub fn service(&self) -> &str {
        &self.declared.service
    }

    /// Whether the rollout goes on and nobody saw how it ends.
    pub fn is_open(&self) -> bool {
        self.declared.rollout.is_some() && self.end.outcome.is_none()
    }

    /// Tells a person how it ended: on standard output, or on standard error when that is for JSON.
    pub fn tell(&self, json: bool, name_the_service: bool) {
        match self.line(name_the_service) {
            Some(line) if json => eprintln!("{line}"),
            Some(line) => println!("{line}"),
            None => {}
        }
    }

    fn line(&self, name_the_service: bool) -> Option<String> {
        let Declared { service, release, rollout, waiting, passed_over, .. } = &self.declared;
        if let Some(passed_over) = passed_over {
            return Some(format!(
                "{service}: nothing changed: rolled back by hand to {release}, which stays until the declaration changes; `gapless retry` tries {passed_over} again"
            ));
        }
        if let Some(waiting) = waiting {
            return Some(format!("{service}: {release} waits {}", show::waiting(waiting)));
        }
        match (rollout, self.end.line()) {
            (None, _) => Some(format!("{service}: nothing changed, {release} is what is declared")),
            (Some(_), Some(line)) if name_the_service => Some(format!("{service}: {line}")),
            (Some(_), line) => line,
        }
    }

    /// The exit status: a rejected rollout is a failure.
    ///
    /// # Errors
    ///
    /// Why the rollout could not be followed to its end.
    pub fn result(self) -> Result<ExitCode, Trouble> {
        match (self.trouble, self.end.outcome) {
            (Some(trouble), _) => Err(trouble),
            (None, Some(Outcome::Rejected)) => Ok(ExitCode::FAILURE),
            (None, Some(Outcome::Live) | None) => Ok(ExitCode::SUCCESS),
        }
    }
}

impl Followed {
    /// The exit status of a rollout that was to be cancelled: that it was rejected for that is what was wanted.
    ///
    /// # Errors
    ///
    /// As [`Followed::result`].
    pub fn cancelled(self) -> Result<ExitCode, Trouble> {
        let wanted = self.end.reason.as_ref().is_some_and(|reason| reason.kind == "cancelled");
        if wanted { Ok(ExitCode::SUCCESS) } else { self.result() }
    }
}

impl End {
    /// `live 0.9 s · 4,312 requests · 0 failed · undo until 14:32`, or why it was rejected.
    fn line(&self) -> Option<String> {
        let (requests, failed) = self.counts.as_ref().map_or((0, 0), |counts| (counts.requests, counts.failed));
        let counted = format!("{} requests · {} failed", show::count(requests), show::count(failed));
        match self.outcome? {
            Outcome::Live => {
                let undo = self.undo_until_ms.map_or(String::new(), |until| format!(" · undo until {}", show::time_of_day(until)));
                Some(format!("live {} · {counted}{undo}", show::span(self.live_after_ms.unwrap_or(0))))
            }
            Outcome::Rejected => {
                let why = self.reason.as_ref().map_or("for an unknown reason", |reason| &reason.text);
                Some(format!("rejected: {why}\n{} · {counted}", self.old.words()))
            }
        }
    }
}

/// Where following ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// All of the traffic is where it shall be; the old nodes may be kept warm.
    Live,
    /// Nothing is left to do.
    Over,
}

/// Follows a rollout that was declared, to its end or to its bake window.
pub async fn rollout(client: &UnixClient, declared: Declared) -> Followed {
    follow(client, declared, Until::Live).await
}

/// Follows a rollout to its end, whatever its bake window.
pub async fn to_the_end(client: &UnixClient, declared: Declared) -> Followed {
    follow(client, declared, Until::Over).await
}

async fn follow(client: &UnixClient, declared: Declared, until: Until) -> Followed {
    let (end, trouble) = match declared.rollout {
        Some(number) => match end(client, &declared.service, number, until).await {
            Ok(end) => (end, None),
            Err(trouble) => (End::default(), Some(trouble)),
        },
        None => (End::default(), None),
    };
    Followed { declared, end, trouble }
}

/// The end of a rollout; an empty one if the person went away.
async fn end(client: &UnixClient, service: &str, number: u32, until: Until) -> Result<End, Trouble> {
    let mut lines = client.lines(Method::GET, &path::of_rollout(service, number, "events"), &()).await?;
    let progress = Progress::new();
    let mut seen = Seen { until, ..Seen::default() };
    loop {
        let line = tokio::select! {
            line = lines.next::<RolloutLine>() => line?,
            _ = tokio::signal::ctrl_c() => {
                drop(progress);
                eprintln!("detached: the rollout goes on; `gapless status` picks up again");
                return Ok(End::default());
            }
        };
        let Some(line) = line else {
            return Err(Trouble::new("the server told no end of the rollout", "the rollout goes on; `gapless status` picks up again"));
        };
        if let Some(end) = seen.take(line, &progress)? {
            return Ok(end);
        }
    }
}

/// What was seen of a rollout so far.
struct Seen {
    until: Until,
    started_ms: u64,
    shifted_ms: Option<u64>,
    counts: Option<Counts>,
    old: Old,
}

impl Default for Seen {
    fn default() -> Self {
        Self { until: Until::Live, started_ms: 0, shifted_ms: None, counts: None, old: Old::default() }
    }
}

impl Seen {
    fn take(&mut self, line: RolloutLine, progress: &Progress) -> Result<Option<End>, Trouble> {
        match line {
            RolloutLine::Step(step) => {
                self.step(&step);
                progress.line(&format!("{} {}", show::exact_time(step.at_ms), step.text));
                Ok(None)
            }
            RolloutLine::Counts(counts) => {
                progress.now(live_line(&counts));
                self.counts = Some(counts);
                Ok(None)
            }
            RolloutLine::Baking { counts, .. } if self.until == Until::Over => {
                self.counts = Some(counts);
                Ok(None)
            }
            RolloutLine::Baking { until_ms, counts } => Ok(Some(End {
                outcome: Some(Outcome::Live),
                live_after_ms: self.shifted_after_ms(),
                undo_until_ms: Some(until_ms),
                counts: Some(counts),
                ..End::default()
            })),
            RolloutLine::End { outcome, reason, receipt } => {
                let live_after_ms = match outcome {
                    Outcome::Live => receipt.as_ref().and_then(|signed| signed.receipt.switch_ms).or_else(|| self.shifted_after_ms()),
                    Outcome::Rejected => None,
                };
                let counts = self.counts.take();
                let old = self.old;
                Ok(Some(End { outcome: Some(outcome), reason, live_after_ms, undo_until_ms: None, counts, receipt, old }))
            }
            RolloutLine::Lost(problem) => Err(problem.into()),
        }
    }

    fn shifted_after_ms(&self) -> Option<u64> {
        self.shifted_ms.map(|at| at.saturating_sub(self.started_ms))
    }

    fn step(&mut self, step: &Step) {
        match &step.fact {
            Fact::RolloutStarted { from, .. } => {
                self.started_ms = step.at_ms;
                self.old = if from.is_some() { Old::Untouched } else { Old::None };
            }
            Fact::Shifted { .. } => self.shifted_ms = Some(step.at_ms),
            Fact::ShiftBegan { .. } | Fact::CanaryStepBegan { .. } | Fact::OutageBegan if self.old != Old::None => {
                self.old = Old::Touched;
            }
            _ => {}
        }
    }
}

/// What is going on, for a terminal.
fn live_line(counts: &Counts) -> String {
    let total: u64 = counts.split.values().sum();
    let share = |part: u64| part * 100 / total.max(1);
    let split: Vec<String> = counts.split.iter().map(|(release, part)| format!("{release} {} %", share(*part))).collect();
    let nodes = match counts.nodes.wanted {
        0 => String::new(),
        wanted => format!(" · nodes {}/{wanted} running, {} passing", counts.nodes.running, counts.nodes.passing),
    };
    format!("{} requests · {} failed{nodes} · {}", show::count(counts.requests), show::count(counts.failed), split.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::rollout::{RolloutKind, Waiting};
    use serde_json::{Value, json};

    fn declared(rollout: Option<u32>) -> Declared {
        Declared {
            service: "hello/web".into(),
            release: "web-r7".into(),
            rollout,
            changed: rollout.is_some(),
            waiting: None,
            passed_over: None,
            with: Vec::new(),
        }
    }

    fn followed(mut seen: Seen, line: RolloutLine) -> Followed {
        let end = seen.take(line, &Progress { bar: None }).ok().flatten().expect("an end");
        Followed { declared: declared(Some(4)), end, trouble: None }
    }

    fn shifted() -> Seen {
        let counts = Counts { requests: 4_312, ..Counts::default() };
        Seen { started_ms: 1_000, shifted_ms: Some(1_940), counts: Some(counts), old: Old::Touched, ..Seen::default() }
    }

    fn rejected() -> RolloutLine {
        let reason = Reason {
            kind: "gate-failed".into(),
            text: "GET /healthz on node r3-i3-n0 failed 4 times in a row: status 500".into(),
            node: None,
            check: None,
            result: None,
            times: None,
            output: None,
        };
        RolloutLine::End { outcome: Outcome::Rejected, reason: Some(reason), receipt: None }
    }

    fn written(followed: &Followed) -> Value {
        serde_json::to_value(followed).expect("JSON")
    }

    #[test]
    fn the_last_line_says_it_all() {
        let live = followed(shifted(), RolloutLine::End { outcome: Outcome::Live, reason: None, receipt: None });
        assert_eq!(live.line(false).as_deref(), Some("live 0.9 s · 4,312 requests · 0 failed"));
        assert_eq!(live.line(true).as_deref(), Some("hello/web: live 0.9 s · 4,312 requests · 0 failed"));
        let baking = followed(shifted(), RolloutLine::Baking { until_ms: 60_000, counts: shifted().counts.unwrap_or_default() });
        let line = baking.line(false).unwrap_or_default();
        assert!(line.starts_with("live 0.9 s · 4,312 requests · 0 failed · undo until "), "{line}");
    }

    #[test]
    fn who_stays_until_the_end_is_told_of_it_and_not_of_the_bake_window() {
        let mut seen = Seen { until: Until::Over, ..shifted() };
        let baking = RolloutLine::Baking { until_ms: 60_000, counts: Counts { requests: 5_000, ..Counts::default() } };
        assert_eq!(seen.take(baking, &Progress { bar: None }), Ok(None));
        let over = followed(seen, RolloutLine::End { outcome: Outcome::Live, reason: None, receipt: None });
        assert_eq!(over.line(false).as_deref(), Some("live 0.9 s · 5,000 requests · 0 failed"));
    }

    #[test]
    fn a_rejection_ends_badly_and_says_why() {
        let rejected = followed(Seen::default(), rejected());
        assert_eq!(
            rejected.line(false).as_deref(),
            Some(
                "rejected: GET /healthz on node r3-i3-n0 failed 4 times in a row: status 500\nwhat was live is live, untouched · 0 requests · 0 failed"
            )
        );
        assert_eq!(rejected.result(), Ok(ExitCode::FAILURE));
        let touched = followed(shifted(), self::rejected());
        assert!(touched.line(false).unwrap_or_default().contains("\nwhat was live before is live · "), "old nodes had lost traffic");
    }

    #[test]
    fn a_first_release_that_is_rejected_leaves_nothing_live() {
        let mut seen = Seen::default();
        let fact = Fact::RolloutStarted { kind: RolloutKind::Deploy, from: None, to: "web-r1".into() };
        let begun = Step { at_ms: 1, rollout: Some(1), fact, text: String::new(), rule: String::new() };
        seen.step(&begun);
        seen.step(&Step { fact: Fact::ShiftBegan { generation: 1, way_back: false }, ..begun });
        let line = followed(seen, rejected()).line(false).unwrap_or_default();
        assert!(line.contains("\nnothing was live before, and nothing is · "), "{line}");
    }

    #[test]
    fn a_declaration_that_was_rolled_back_says_what_stays_and_how_to_try_again() {
        let pinned = Declared { release: "web-r1".into(), passed_over: Some("web-r2".into()), ..declared(None) };
        let pinned = Followed::not_waited_for(pinned);
        assert!(!pinned.is_open());
        assert_eq!(
            pinned.line(false).as_deref(),
            Some(
                "hello/web: nothing changed: rolled back by hand to web-r1, which stays until the declaration changes; `gapless retry` tries web-r2 again"
            )
        );
    }

    #[test]
    fn a_release_that_waits_says_for_what() {
        let waiting = Waiting { rollout: Some(6), frozen_until_ms: None };
        let waits = Followed::not_waited_for(Declared { waiting: Some(waiting), ..declared(None) });
        assert_eq!(waits.line(false).as_deref(), Some("hello/web: web-r7 waits for the end of rollout 6; `gapless status` tells"));
        assert_eq!(written(&waits)["waiting"]["rollout"], 6);
    }

    #[test]
    fn a_cancelled_rollout_ended_as_it_was_wanted() {
        let reason = |kind: &str| match rejected() {
            RolloutLine::End { reason: Some(reason), outcome, receipt } => {
                RolloutLine::End { reason: Some(Reason { kind: kind.into(), ..reason }), outcome, receipt }
            }
            other => other,
        };
        assert_eq!(followed(Seen::default(), reason("cancelled")).cancelled(), Ok(ExitCode::SUCCESS));
        assert_eq!(followed(Seen::default(), reason("gate-failed")).cancelled(), Ok(ExitCode::FAILURE));
    }

    #[test]
    fn json_is_what_was_declared_and_how_it_ended() {
        let json = written(&followed(shifted(), RolloutLine::Baking { until_ms: 60_000, counts: shifted().counts.unwrap_or_default() }));
        assert_eq!((&json["service"], &json["rollout"], &json["outcome"]), (&json!("hello/web"), &json!(4), &json!("live")));
        assert_eq!((&json["live_after_ms"], &json["undo_until_ms"]), (&json!(940), &json!(60_000)));
        assert_eq!(json["counts"]["requests"], 4_312);
        let json = written(&followed(Seen::default(), rejected()));
        assert_eq!((&json["outcome"], &json["reason"]["kind"]), (&json!("rejected"), &json!("gate-failed")));
        assert_eq!((&json["live_after_ms"], &json["counts"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn json_has_no_outcome_when_nobody_waited_or_nothing_changed() {
        let no_end =
            json!({"outcome": null, "reason": null, "live_after_ms": null, "undo_until_ms": null, "counts": null, "receipt": null});
        for (rollout, line) in [(Some(4), None), (None, Some("hello/web: nothing changed, web-r7 is what is declared"))] {
            let mut expected = json!({"service": "hello/web", "release": "web-r7", "rollout": rollout, "changed": rollout.is_some()});
            expected.as_object_mut().expect("an object").extend(no_end.as_object().expect("an object").clone());
            let followed = Followed::not_waited_for(declared(rollout));
            assert_eq!(written(&followed), expected);
            assert_eq!((followed.line(true).as_deref(), followed.is_open()), (line, rollout.is_some()));
        }
    }
}
