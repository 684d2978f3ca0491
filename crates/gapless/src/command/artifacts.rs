//! `gapless artifacts`: what was built.

use crate::client::Connection;
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::artifact::Artifact;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only artifacts of this name, such as hello/web
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let path = match &arguments.name {
        Some(name) => format!("{}?name={name}", path::ARTIFACTS),
        None => path::ARTIFACTS.to_string(),
    };
    let artifacts: Vec<Artifact> = arguments.connection.client().get(&path).await?;
    if arguments.json {
        show::json(&artifacts)?;
    } else {
        let rows: Vec<Vec<String>> = artifacts.iter().rev().map(row).collect();
        print!("{}", show::table(&["artifact", "version", "type", "commit", "image", "published", ""], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(artifact: &Artifact) -> Vec<String> {
    vec![
        artifact.name.clone(),
        artifact.version.to_string(),
        artifact.kind.clone(),
        artifact.commit.as_deref().map_or("-", show::short).to_string(),
        show::short(&artifact.image).to_string(),
        show::ago(artifact.published_ms),
        artifact.revoked.as_ref().map_or(String::new(), |revoked| format!("revoked {}: {}", show::ago(revoked.at_ms), revoked.reason)),
    ]
}
