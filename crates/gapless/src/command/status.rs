//! `gapless status`: services, nodes, rollouts in progress.

use crate::client::Connection;
use crate::follow;
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::rollout::Declared;
use gapless_wire::service::{NodeStatus, ServiceStatus, Stage};
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only this service
    service: Option<String>,
    /// Stay with the rollout that is in progress until it ends
    #[arg(long)]
    follow: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let services: Vec<ServiceStatus> = match &arguments.service {
        Some(name) => vec![client.get(&path::service(&crate::client::service(&client, Some(name)).await?)).await?],
        None => client.get(path::SERVICES).await?,
    };
    if arguments.json {
        show::json(&services)?;
    } else if services.is_empty() {
        println!("nothing is deployed yet: in a project's folder, `gapless deploy`");
    } else {
        services.iter().for_each(print);
    }
    let in_progress = services.iter().find_map(|status| status.rollout.as_ref().map(|rollout| (status, rollout)));
    if let (true, Some((status, rollout))) = (arguments.follow, in_progress) {
        let declared =
            Declared { service: status.service.clone(), release: rollout.to.clone(), rollout: Some(rollout.number), changed: true };
        return follow::rollout(&client, &declared).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &ServiceStatus) {
    let live = match &status.live {
        Some(release) => {
            let commit = release.commit.as_deref().map_or("", show::short);
            format!("{} live (artifact version {}, commit {commit})", release.name, release.version)
        }
        None => "nothing live".to_string(),
    };
    let pinned = if status.pinned { " · rolled back by hand, pinned until the declaration changes" } else { "" };
    println!("{} · host {} · {live}{pinned}", status.service, status.host);
    if let Some(rollout) = &status.rollout {
        let undo = status.undo_until_ms.map_or(String::new(), |until| format!(" · undo until {}", show::time_of_day(until)));
        println!("  rollout {} to {}: {}{undo}", rollout.number, rollout.to, stage(rollout.stage));
    }
    if let Some(trouble) = &status.trouble {
        println!("  does not get on: {}", trouble.what);
        println!("  hint: {}", trouble.hint.as_deref().unwrap_or("it is tried again by itself"));
    }
    let rows: Vec<Vec<String>> = status.nodes.iter().map(row).collect();
    for line in show::table(&["node", "release", "condition", "weight", "checks", "in flight"], &rows).lines() {
        println!("  {line}");
    }
    for (proxy, generation) in status.proxies.iter().filter(|(_, generation)| **generation != Some(status.generation)) {
        let applied = generation.map_or("no route".to_string(), |generation| format!("route g{generation}"));
        println!("  proxy {proxy} has {applied}, g{} is decided", status.generation);
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepare => "new nodes are made and checked",
        Stage::Shift => "the traffic goes over",
        Stage::Bake => "the new nodes have the traffic, the old ones are kept warm",
        Stage::Retire => "the old nodes leave",
        Stage::Undo => "given up, the new nodes leave",
    }
}

fn row(node: &NodeStatus) -> Vec<String> {
    let checks = match (&node.failure, node.failures, node.passes) {
        (Some(failure), failures, _) if failures > 0 => format!("{failures} failed ({failure})"),
        (_, _, passes) => format!("{passes} passed"),
    };
    let weight = node.weight.map_or("-".to_string(), |weight| weight.to_string());
    vec![node.name.clone(), node.release.clone(), node.condition.clone(), weight, checks, node.requests_in_flight.to_string()]
}
