//! `gapless releases`: what was released of a service.

use crate::client::{Connection, service};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::release::Release;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The service, if there are several
    service: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let releases: Vec<Release> = client.get(&path::of_service(&service, "releases")).await?;
    if arguments.json {
        show::json(&releases)?;
    } else {
        let rows: Vec<Vec<String>> = releases.iter().rev().map(row).collect();
        print!("{}", show::table(&["release", "artifact", "commit", "nodes", "rolled out", "outcome", ""], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(release: &Release) -> Vec<String> {
    let mark = match (release.live, release.declared, release.revoked) {
        (true, _, true) => "live, revoked",
        (true, _, false) => "live",
        (false, _, true) => "revoked",
        (false, true, false) => "declared",
        (false, false, false) => "",
    };
    vec![
        release.name.clone(),
        format!("{} v{}", release.artifact, release.version),
        release.commit.as_deref().map_or("-", show::short).to_string(),
        release.nodes.to_string(),
        release.rolled_out_ms.map_or("-".to_string(), show::ago),
        release.outcome.clone().unwrap_or_else(|| "in progress".to_string()),
        mark.to_string(),
    ]
}
