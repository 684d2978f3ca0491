//! `gapless build`: the images of a commit.

use super::deploy::Project;
use crate::client::Connection;
use crate::follow;
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::build::BuildRequest;
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    project: Project,
    /// Only this image of gapless.hcl
    #[arg(long)]
    image: Option<String>,
    /// Print the artifacts as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let Project { project, commit } = arguments.project.resolve().await?;
    let request = BuildRequest { project, commit, image: arguments.image.clone(), unless_built: false };
    let lines = arguments.connection.client().lines(Method::POST, path::BUILDS, &request).await?;
    let artifacts = follow::build(lines).await?;
    match artifacts {
        Some(artifacts) if arguments.json => show::json(&artifacts)?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}
