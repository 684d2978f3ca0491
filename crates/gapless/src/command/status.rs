//! `gapless status`: services, nodes, rollouts in progress.

use crate::client::Connection;
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::client::UnixClient;
use gapless_wire::rollout::Declared;
use gapless_wire::service::{NodeStatus, ServiceStatus, Stage};
use serde::Serialize;
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

/// A service with what was followed of it: `--follow --json`.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    status: &'a ServiceStatus,
    followed: Option<&'a Followed>,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let services = services(&client, arguments).await?;
    match (arguments.json, arguments.follow) {
        (true, false) => show::json(&services)?,
        (true, true) => {}
        (false, _) if services.is_empty() => println!("nothing is deployed yet: in a project's folder, `gapless deploy`"),
        (false, _) => services.iter().for_each(print),
    }
    if arguments.follow { follow(&client, arguments, &services).await } else { Ok(ExitCode::SUCCESS) }
}

async fn services(client: &UnixClient, arguments: &Arguments) -> Result<Vec<ServiceStatus>, Trouble> {
    Ok(match &arguments.service {
        Some(name) => vec![client.get(&path::service(&crate::client::service(client, Some(name)).await?)).await?],
        None => client.get(path::SERVICES).await?,
    })
}

/// Follows the first rollout in progress. JSON comes once, after it, and shows the services as they are then.
async fn follow(client: &UnixClient, arguments: &Arguments, services: &[ServiceStatus]) -> Result<ExitCode, Trouble> {
    let Some(declared) = services.iter().find_map(in_progress) else {
        return if arguments.json { json(services, None).map(|()| ExitCode::SUCCESS) } else { Ok(ExitCode::SUCCESS) };
    };
    let followed = follow::rollout(client, declared).await;
    followed.tell(arguments.json, services.len() > 1);
    if arguments.json {
        match self::services(client, arguments).await {
            Ok(services) => json(&services, Some(&followed))?,
            // Whatever kept the services from being read again, how the rollout went is what was asked for.
            Err(_) => json(services, Some(&followed))?,
        }
    }
    followed.result()
}

fn in_progress(status: &ServiceStatus) -> Option<Declared> {
    let rollout = status.rollout.as_ref()?;
    Some(Declared { service: status.service.clone(), release: rollout.to.clone(), rollout: Some(rollout.number), changed: true })
}

fn json(services: &[ServiceStatus], followed: Option<&Followed>) -> Result<(), Trouble> {
    show::json(&told(services, followed))
}

fn told<'a>(services: &'a [ServiceStatus], followed: Option<&'a Followed>) -> Vec<Told<'a>> {
    let of = |status: &ServiceStatus| followed.filter(|followed| followed.service() == status.service);
    services.iter().map(|status| Told { status, followed: of(status) }).collect()
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
        Stage::Vacate => "the old nodes leave before there are new ones",
        Stage::Command => "the release command runs",
        Stage::Prepare => "new nodes are made and checked",
        Stage::Await => "the new nodes wait for the services that move together with this one",
        Stage::Canary => "the new nodes have a share of the traffic",
        Stage::Roll => "new nodes take old ones' place, some after others",
        Stage::Confirm => "the new nodes have the traffic; what has to be done after the shift is on its way",
        Stage::Unroll => "given up, old nodes take new ones' place again",
        Stage::Restore => "given up, nodes of the old release are made again",
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

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::rollout::RolloutKind;
    use gapless_wire::service::RolloutStatus;

    fn status(service: &str, rollout: Option<RolloutStatus>) -> ServiceStatus {
        ServiceStatus {
            service: service.into(),
            host: "books.test".into(),
            live: None,
            declared: None,
            previous: None,
            pinned: false,
            rollout,
            generation: 3,
            proxies: [("w0".to_string(), Some(3))].into(),
            nodes: Vec::new(),
            undo_until_ms: None,
            trouble: None,
        }
    }

    #[test]
    fn json_after_following_is_that_of_the_status_and_how_the_rollout_ended() {
        let rollout = RolloutStatus { number: 4, kind: RolloutKind::Deploy, from: None, to: "books-r2".into(), stage: Stage::Shift };
        let services = [status("shelf/web", None), status("shelf/books", Some(rollout))];
        let followed = Followed::not_waited_for(services.iter().find_map(in_progress).expect("a rollout in progress"));
        let mut written = serde_json::to_value(told(&services, Some(&followed))).expect("JSON");
        let ends: Vec<_> = written.as_array_mut().expect("a list").iter_mut().map(|service| service["followed"].take()).collect();
        assert!(ends[0].is_null(), "{ends:?}");
        assert_eq!((ends[1]["release"].as_str(), ends[1]["rollout"].as_u64()), (Some("books-r2"), Some(4)));
        let read: Vec<ServiceStatus> = serde_json::from_value(written).expect("the status as it is without --follow");
        assert_eq!(read, services);
    }
}
