//! A build, followed line by line, and what can be read from it.

use super::api::Api;
use super::fault;
use super::screen::{Screen, StepState};
use gapless_engine::error::Error;
use gapless_wire::artifact::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::client::Lines;
use std::collections::BTreeMap;

/// The build's phase that makes the base image.
pub const BASE: &str = "base";

/// The build's phase that Packer and Puppet run in.
pub const PROVISION: &str = "provision";

/// What a build told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Every phase that ended, in order.
    pub phases: Vec<Phase>,
    /// What each run of Puppet changed.
    pub puppet: BTreeMap<u32, Vec<String>>,
    /// Lines of output by phase: a tool that was not started wrote none.
    pub output: BTreeMap<String, u64>,
    /// What was published.
    pub artifact: Option<Artifact>,
    /// From its begin to the artifact, in milliseconds.
    pub took_ms: u64,
    began_ms: BTreeMap<String, u64>,
}

/// A phase of a build that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its inputs were as before, and nothing ran.
    pub cached: bool,
    /// The digest of the layer that came of it.
    pub layer: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Told {
    /// The phase with this name, if it ended.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// Takes a line in. Answers whether it was the last one.
    fn take(&mut self, line: BuildLine) -> Result<bool, Error> {
        match line {
            BuildLine::Begun { .. } => {}
            BuildLine::PhaseBegan { phase, at_ms } => {
                self.began_ms.insert(phase, at_ms);
            }
            BuildLine::PhaseEnded { phase, at_ms, cached, layer } => {
                let began_ms = self.began_ms.get(&phase).copied().unwrap_or(at_ms);
                self.phases.push(Phase { name: phase, cached, layer, took_ms: at_ms.saturating_sub(began_ms) });
            }
            BuildLine::Output { phase, .. } => *self.output.entry(phase).or_default() += 1,
            BuildLine::Puppet { run, changed } => {
                self.puppet.insert(run, changed);
            }
            BuildLine::Published { artifact, took_ms, .. } => {
                self.artifact = Some(artifact);
                self.took_ms = took_ms;
            }
            BuildLine::AlreadyBuilt { artifact } => self.artifact = Some(artifact),
            BuildLine::Failed { problem, .. } => return Err(fault::of_problem(&problem).context("the build failed")),
            BuildLine::Done => return Ok(true),
        }
        Ok(false)
    }
}

/// Follows a build to its end and shows it.
///
/// # Errors
/// When the build fails or nothing was published.
pub async fn follow(mut lines: Lines, screen: &Screen) -> Result<(Told, Artifact), Error> {
    let mut told = Told::default();
    loop {
        let line = Api::build_line(&mut lines).await?;
        show(&line, &told, screen);
        if told.take(line)? {
            break;
        }
    }
    let artifact = told.artifact.clone().ok_or_else(|| Error::new("the build published nothing"))?;
    Ok((told, artifact))
}

fn show(line: &BuildLine, told: &Told, screen: &Screen) {
    match line {
        BuildLine::PhaseBegan { phase, .. } => screen.step(phase, StepState::Running(None)),
        BuildLine::PhaseEnded { phase, cached: true, .. } => screen.step(phase, StepState::Kept),
        BuildLine::PhaseEnded { phase, at_ms, .. } => {
            let began_ms = told.began_ms.get(phase).copied().unwrap_or(*at_ms);
            screen.step(phase, StepState::Done(at_ms.saturating_sub(began_ms)));
            screen.detail("");
        }
        BuildLine::Output { phase, text } => screen.detail(&format!("{phase}: {text}")),
        BuildLine::Begun { .. }
        | BuildLine::Puppet { .. }
        | BuildLine::Published { .. }
        | BuildLine::AlreadyBuilt { .. }
        | BuildLine::Failed { .. }
        | BuildLine::Done => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::api::Problem;

    #[test]
    fn what_was_told_can_be_asked_for() {
        let mut told = Told::default();
        let phase = |name: &str| name.to_owned();
        let lines = [
            BuildLine::PhaseBegan { phase: phase(BASE), at_ms: 1_000 },
            BuildLine::PhaseEnded { phase: phase(BASE), at_ms: 1_010, cached: true, layer: Some("sha256:a".to_owned()) },
            BuildLine::PhaseBegan { phase: phase(PROVISION), at_ms: 1_010 },
            BuildLine::Output { phase: phase(PROVISION), text: "packer".to_owned() },
            BuildLine::Puppet { run: 1, changed: vec!["Package[apache2]".to_owned()] },
            BuildLine::PhaseEnded { phase: phase(PROVISION), at_ms: 9_000, cached: false, layer: Some("sha256:b".to_owned()) },
        ];
        for line in lines {
            assert!(!told.take(line).unwrap());
        }
        assert!(told.phase(BASE).unwrap().cached);
        assert_eq!(told.phase(BASE).unwrap().layer.as_deref(), Some("sha256:a"));
        assert_eq!(told.phase(PROVISION).unwrap().took_ms, 7_990);
        assert_eq!(told.output.get(PROVISION), Some(&1));
        assert!(told.take(BuildLine::Done).unwrap());
    }

    #[test]
    fn a_failed_build_says_why() {
        let problem = Problem { what: "Puppet changed File[/etc/motd] again".to_owned(), ..Problem::default() };
        let error = Told::default().take(BuildLine::Failed { build: 1, problem }).unwrap_err();
        assert_eq!(error.to_string(), "the build failed: Puppet changed File[/etc/motd] again");
    }
}
