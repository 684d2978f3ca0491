//! Follows a rollout or a build to its end. Going away changes nothing: the server goes on.

use crate::show;
use crate::trouble::Trouble;
use gapless_wire::api::path;
use gapless_wire::artifact::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::client::{Lines, UnixClient};
use gapless_wire::rollout::{Counts, Declared, Fact, Outcome, RolloutLine, Step};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
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

/// Follows a rollout that was declared, to its end or to its bake window.
pub async fn rollout(client: &UnixClient, declared: &Declared) -> Result<ExitCode, Trouble> {
    let Some(number) = declared.rollout else {
        println!("{}: nothing changed, {} is what is declared", declared.service, declared.release);
        return Ok(ExitCode::SUCCESS);
    };
    let events = path::of_rollout(&declared.service, number, "events");
    let mut lines = client.lines(Method::GET, &events, &()).await?;
    let progress = Progress::new();
    let mut seen = Seen::default();
    loop {
        let line = tokio::select! {
            line = lines.next::<RolloutLine>() => line?,
            _ = tokio::signal::ctrl_c() => {
                drop(progress);
                eprintln!("detached: the rollout goes on; `gapless status` picks up again");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let Some(line) = line else {
            return Err(Trouble::new("the server told no end of the rollout", "the rollout goes on; `gapless status` picks up again"));
        };
        if let Some(end) = seen.take(line, &progress)? {
            drop(progress);
            println!("{}", end.text);
            return Ok(if end.good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}

/// What was seen of a rollout so far.
#[derive(Default)]
struct Seen {
    started_ms: u64,
    shifted_ms: Option<u64>,
    counts: Counts,
}

/// The last line.
struct End {
    text: String,
    good: bool,
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
                progress.now(self.live_line(&counts));
                self.counts = counts;
                Ok(None)
            }
            RolloutLine::Baking { until_ms, counts } => {
                self.counts = counts;
                Ok(Some(End { text: self.last_line(None, Some(until_ms)), good: true }))
            }
            RolloutLine::End { outcome: Outcome::Live, receipt, .. } => {
                let switch = receipt.and_then(|receipt| receipt.receipt.switch_ms);
                Ok(Some(End { text: self.last_line(switch, None), good: true }))
            }
            RolloutLine::End { outcome: Outcome::Rejected, reason, .. } => {
                let why = reason.map_or_else(|| "for an unknown reason".to_string(), |reason| reason.text);
                let text = format!(
                    "rejected: {why}\nwhat was live is live, untouched · {} requests · {} failed",
                    show::count(self.counts.requests),
                    show::count(self.counts.failed)
                );
                Ok(Some(End { text, good: false }))
            }
            RolloutLine::Lost(problem) => Err(problem.into()),
        }
    }

    fn step(&mut self, step: &Step) {
        match step.fact {
            Fact::RolloutStarted { .. } => self.started_ms = step.at_ms,
            Fact::Shifted { .. } => self.shifted_ms = Some(step.at_ms),
            _ => {}
        }
    }

    fn live_line(&self, counts: &Counts) -> String {
        let total: u64 = counts.split.values().sum();
        let share = |part: u64| part * 100 / total.max(1);
        let split: Vec<String> = counts.split.iter().map(|(release, part)| format!("{release} {} %", share(*part))).collect();
        let nodes = match counts.nodes.wanted {
            0 => String::new(),
            wanted => format!(" · nodes {}/{wanted} running, {} passing", counts.nodes.running, counts.nodes.passing),
        };
        format!("{} requests · {} failed{nodes} · {}", show::count(counts.requests), show::count(counts.failed), split.join(" · "))
    }

    /// `live 0.9 s · 4,312 requests · 0 failed · undo until 14:32`.
    fn last_line(&self, switch_ms: Option<u64>, undo_until_ms: Option<u64>) -> String {
        let took = switch_ms.or_else(|| self.shifted_ms.map(|at| at.saturating_sub(self.started_ms))).unwrap_or(0);
        let undo = undo_until_ms.map_or(String::new(), |until| format!(" · undo until {}", show::time_of_day(until)));
        format!(
            "live {} · {} requests · {} failed{undo}",
            show::span(took),
            show::count(self.counts.requests),
            show::count(self.counts.failed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_it_all() {
        let counts = Counts { requests: 4_312, ..Counts::default() };
        let seen = Seen { started_ms: 1_000, shifted_ms: Some(1_940), counts };
        assert_eq!(seen.last_line(None, None), "live 0.9 s · 4,312 requests · 0 failed");
        assert!(seen.last_line(None, Some(60_000)).starts_with("live 0.9 s · 4,312 requests · 0 failed · undo until "));
    }

    #[test]
    fn a_rejection_ends_badly_and_says_why() {
        let reason = gapless_wire::rollout::Reason {
            kind: "gate-failed".into(),
            text: "GET /healthz on node r3-i3-n0 failed 4 times in a row: status 500".into(),
            node: None,
            check: None,
            result: None,
            times: None,
            output: None,
        };
        let line = RolloutLine::End { outcome: Outcome::Rejected, reason: Some(reason), receipt: None };
        let end = Seen::default().take(line, &Progress { bar: None }).ok().flatten().expect("an end");
        assert!(!end.good);
        assert_eq!(
            end.text,
            "rejected: GET /healthz on node r3-i3-n0 failed 4 times in a row: status 500\nwhat was live is live, untouched · 0 requests · 0 failed"
        );
    }
}
