//! `gapless deploy`: from a commit to traffic.

use crate::client::Connection;
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_engine::error::Context;
use gapless_server::git;
use gapless_wire::api::path;
use gapless_wire::build::BuildRequest;
use gapless_wire::client::UnixClient;
use gapless_wire::rollout::{ArtifactChoice, Declared, DeployRequest, Plan};
use hyper::Method;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which commit of which project
#[derive(Clone, Debug, Args)]
pub struct Project {
    /// The project's folder, a Git repository
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub project: PathBuf,
    /// The commit, or any name of one
    #[arg(long, default_value = "HEAD")]
    pub commit: String,
}

impl Project {
    /// The same with an absolute folder and the full commit id. Says so if the work tree differs from the commit.
    pub async fn resolve(&self) -> Result<Project, Trouble> {
        let project = std::path::absolute(&self.project).context(|| format!("finding {}", self.project.display()))?;
        let commit = git::resolve(&project, &self.commit).await?;
        if self.commit == "HEAD" {
            warn_of_changes(&git::changed_files(&project).await?, &commit);
        }
        Ok(Project { project, commit })
    }
}

fn warn_of_changes(files: &[String], commit: &str) {
    let Some(first) = files.first() else { return };
    let more = match files.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    eprintln!("note: a commit is what is built ({}): your changes to {first}{more} are not in it", show::short(commit));
}

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    project: Project,
    /// Only this service of gapless.hcl
    #[arg(long)]
    service: Option<String>,
    /// Run this artifact version instead of the commit's: a number, or `latest`
    #[arg(long, value_name = "VERSION", value_parser = artifact)]
    artifact: Option<ArtifactChoice>,
    /// Do not wait for the end of a freeze window
    #[arg(long)]
    urgent: bool,
    /// Only say what would happen
    #[arg(long)]
    plan: bool,
    /// Do not wait for the rollout
    #[arg(long)]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn artifact(text: &str) -> Result<ArtifactChoice, String> {
    match text {
        "latest" => Ok(ArtifactChoice::Latest),
        number => number.parse().map(ArtifactChoice::Version).map_err(|_| {
            "there is no such channel: give a version number, or `latest`; `gapless artifacts` lists the versions".to_string()
        }),
    }
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let Project { project, commit } = arguments.project.resolve().await?;
    let client = arguments.connection.client();
    let artifact = arguments.artifact.unwrap_or_default();
    let (service, urgent) = (arguments.service.clone(), arguments.urgent);
    let mut request = DeployRequest { project, commit, service, artifact, built_for_this: false, urgent };
    if arguments.plan {
        return plan(&client, &request, arguments.json).await;
    }
    if artifact == ArtifactChoice::OfCommit {
        match build(&client, &request).await? {
            Some(built) => request.built_for_this = built,
            None => return detached(arguments.json),
        }
    }
    let declared: Vec<Declared> = client.send(Method::POST, path::DEPLOYS, &request).await?;
    let all = follow_all(&client, declared, arguments).await;
    if arguments.json {
        show::json(&all)?;
    }
    let mut worst = ExitCode::SUCCESS;
    for followed in all {
        if followed.result()? != ExitCode::SUCCESS {
            worst = ExitCode::FAILURE;
        }
    }
    Ok(worst)
}

/// The person went away before anything was declared.
fn detached(json: bool) -> Result<ExitCode, Trouble> {
    if json {
        show::json(&[(); 0])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows one after the other. Once one was left before its end, the others are not waited for either.
async fn follow_all(client: &UnixClient, all: Vec<Declared>, arguments: &Arguments) -> Vec<Followed> {
    let several = all.len() > 1;
    let mut wait = !arguments.no_wait;
    let mut seen = Vec::new();
    for declared in all {
        let followed = if declared.waiting.is_some() {
            Followed::not_waited_for(declared)
        } else if wait || declared.rollout.is_none() {
            follow::rollout(client, declared).await
        } else {
            eprintln!("{}: {} is on its way; `gapless status` tells", declared.service, declared.release);
            Followed::not_waited_for(declared)
        };
        followed.tell(arguments.json, several);
        wait &= !followed.is_open();
        seen.push(followed);
    }
    seen
}

/// Builds what the commit has no artifact of. `Some(true)`: something was built; `None`: the person went away.
async fn build(client: &UnixClient, request: &DeployRequest) -> Result<Option<bool>, Trouble> {
    let before: Vec<gapless_wire::artifact::Artifact> = client.get(path::ARTIFACTS).await?;
    let wish = BuildRequest { project: request.project.clone(), commit: request.commit.clone(), image: None, unless_built: true };
    let lines = client.lines(Method::POST, path::BUILDS, &wish).await?;
    let Some(artifacts) = follow::build(lines).await? else { return Ok(None) };
    Ok(Some(artifacts.iter().any(|artifact| !before.contains(artifact))))
}

async fn plan(client: &UnixClient, request: &DeployRequest, json: bool) -> Result<ExitCode, Trouble> {
    let plans: Vec<Plan> = client.send(Method::POST, path::PLAN, request).await?;
    if json {
        show::json(&plans)?;
    } else {
        plans.iter().for_each(|plan| print!("{}", words(plan)));
    }
    Ok(if plans.iter().any(|plan| plan.refused) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A plan for people.
fn words(plan: &Plan) -> String {
    let short = match plan {
        Plan { refused: true, .. } => " (refused)",
        Plan { changed: false, .. } => " (unchanged)",
        Plan { .. } => "",
    };
    let lines: String = plan.lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("{}{short}\n{lines}", plan.service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_first_whether_anything_would_come_of_it() {
        let plan = |changed, refused| Plan { service: "hello/web".into(), changed, refused, lines: vec!["the line".into()] };
        assert_eq!(words(&plan(true, false)), "hello/web\n  the line\n");
        assert_eq!(words(&plan(false, false)), "hello/web (unchanged)\n  the line\n");
        assert_eq!(words(&plan(false, true)), "hello/web (refused)\n  the line\n");
    }

    #[test]
    fn an_unknown_channel_is_refused_with_what_there_is() {
        assert_eq!(artifact("latest"), Ok(ArtifactChoice::Latest));
        assert_eq!(artifact("7"), Ok(ArtifactChoice::Version(7)));
        for unknown in ["stable", "-1", "7.0", ""] {
            let refused = artifact(unknown).unwrap_err();
            assert!(refused.starts_with("there is no such channel") && refused.contains("`gapless artifacts`"), "{unknown}: {refused}");
        }
    }
}
