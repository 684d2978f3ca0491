//! `gapless status`: services, nodes, rollouts in progress.

use crate::client::Connection;
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::client::UnixClient;
use gapless_wire::rollout::{Declared, RolloutKind, Waiting};
use gapless_wire::service::{CanaryStatus, NodeStatus, RolloutStatus, Scaled, ServiceStatus, Stage};
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
    let followed = follow::to_the_end(client, declared).await;
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
    let (service, release) = (status.service.clone(), rollout.to.clone());
    Some(Declared { service, release, rollout: Some(rollout.number), changed: true, waiting: None, passed_over: None, with: Vec::new() })
}

fn json(services: &[ServiceStatus], followed: Option<&Followed>) -> Result<(), Trouble> {
    show::json(&told(services, followed))
}

fn told<'a>(services: &'a [ServiceStatus], followed: Option<&'a Followed>) -> Vec<Told<'a>> {
    let of = |status: &ServiceStatus| followed.filter(|followed| followed.service() == status.service);
    services.iter().map(|status| Told { status, followed: of(status) }).collect()
}

fn print(status: &ServiceStatus) {
    print!("{}", words(status));
    let rows: Vec<Vec<String>> = status.nodes.iter().map(row).collect();
    for line in show::table(&["node", "release", "condition", "weight", "checks", "in flight"], &rows).lines() {
        println!("  {line}");
    }
    for (proxy, generation) in status.proxies.iter().filter(|(_, generation)| **generation != Some(status.generation)) {
        let applied = generation.map_or("no route".to_string(), |generation| format!("route g{generation}"));
        println!("  proxy {proxy} has {applied}, g{} is decided", status.generation);
    }
}

/// Everything that is said of a service above its nodes.
fn words(status: &ServiceStatus) -> String {
    let live = match &status.live {
        Some(release) => {
            let commit = release.commit.as_deref().map_or("", show::short);
            format!("{} live (artifact version {}, commit {commit})", release.name, release.version)
        }
        None => "nothing live".to_string(),
    };
    let host = if status.host.is_empty() { "worker".to_string() } else { format!("host {}", status.host) };
    let strategy = if status.strategy.is_empty() { String::new() } else { format!(" · {}", status.strategy) };
    let pinned = if status.pinned { " · rolled back by hand, pinned until the declaration changes" } else { "" };
    let mut text = format!("{} · {host}{strategy} · {live}{pinned}\n", status.service);
    for line in status.rollout.iter().flat_map(|rollout| rollout_lines(rollout, status.undo_until_ms)).chain(notes(status)) {
        text += &format!("  {line}\n");
    }
    text
}

fn rollout_lines(rollout: &RolloutStatus, undo_until_ms: Option<u64>) -> Vec<String> {
    let verb = match rollout.kind {
        RolloutKind::Deploy => "rollout",
        RolloutKind::Rollback => "rollback",
        RolloutKind::Eviction => "eviction",
    };
    let undo = undo_until_ms.map_or(String::new(), |until| format!(" · undo until {}", show::time_of_day(until)));
    let mut lines = vec![format!("{verb} {} to {}: {}{undo}", rollout.number, rollout.to, stage(rollout))];
    if let Some(since) = rollout.paused_since_ms {
        lines.push(format!("paused since {}: `gapless resume` lets it go on", show::time_of_day(since)));
    }
    if let Some(analysis) = rollout.canary.as_ref().and_then(|canary| canary.analysis.as_ref()) {
        lines.push(analysis.clone());
    }
    lines
}

/// What a person should know beside the rollout.
fn notes(status: &ServiceStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(queued) = &status.queued {
        notes.push(format!("next: {}, which waits {}", queued.release, waits(&queued.waiting)));
    }
    if let Some(Scaled { declared, nodes }) = status.scaled {
        notes.push(format!("scaled to {nodes} nodes; {declared} are declared, and a declaration with another number ends it"));
    }
    if status.revoked {
        notes.push(match &status.rollout {
            Some(rollout) => format!("the live release is revoked: it leaves with rollout {}, or when that is over", rollout.number),
            None => "the live release is revoked: it leaves as soon as there is a good one to go to".to_string(),
        });
    }
    if status.crash_loop {
        notes.push("its nodes died again and again, and no more are made: see `gapless logs`, then `gapless retry`".to_string());
    }
    if let Some(damage) = &status.damage {
        notes.push(format!("it goes on, but what it did long ago cannot be told: {}", damage.what));
        notes.extend(damage.hint.iter().map(|hint| format!("hint: {hint}")));
    }
    if let Some(trouble) = &status.trouble {
        notes.push(format!("does not get on: {}", trouble.what));
        notes.push(format!("hint: {}", trouble.hint.as_deref().unwrap_or("it is tried again by itself")));
    }
    notes
}

fn waits(waiting: &Waiting) -> String {
    match (waiting.rollout, waiting.frozen_until_ms) {
        (_, Some(until)) => format!("for the end of a freeze window, {}", show::day_and_time(until)),
        (Some(rollout), None) => format!("for the end of rollout {rollout}"),
        (None, None) => "for its turn".to_string(),
    }
}

fn stage(rollout: &RolloutStatus) -> String {
    let by = rollout.deadline_ms.map_or(String::new(), |at| format!(", at most until {}", show::time_of_day(at)));
    let given_up = |then: &str| format!("given up ({}); {then}", rollout.given_up.as_deref().unwrap_or("for an unknown reason"));
    match rollout.stage {
        Stage::Vacate => "the old nodes leave before there are new ones: nothing answers".into(),
        Stage::Command => "the release command runs".into(),
        Stage::Prepare => format!("new nodes are made and checked{by}"),
        Stage::Await => format!("the new nodes wait for {}, which move together with this one{by}", rollout.together.join(" and ")),
        Stage::Canary => rollout.canary.as_ref().map_or("the new nodes have a share of the traffic".into(), canary),
        Stage::Roll => format!("new nodes take old ones' place, some after others; the present ones may take until {}", at(rollout)),
        Stage::Confirm => "the new nodes have the traffic; the hook after the shift runs".into(),
        Stage::Unroll => given_up("old nodes take the new ones' place again"),
        Stage::Restore => given_up("nodes of the old release are made again"),
        Stage::Shift => "the traffic goes over".into(),
        Stage::Bake => "the new nodes have the traffic, the old ones are kept warm".into(),
        Stage::Retire => "the new nodes have the traffic, the old ones leave".into(),
        Stage::Undo => given_up("the new nodes leave"),
    }
}

fn at(rollout: &RolloutStatus) -> String {
    rollout.deadline_ms.map_or("their deadline".to_string(), show::time_of_day)
}

/// `canary step 2 of 3 at 25 %, until 14:32 if the answers are as good as the old nodes'`.
fn canary(canary: &CanaryStatus) -> String {
    let CanaryStatus { step, steps, percent, since_ms, until_ms, person, compared, .. } = canary;
    let good = if *compared { " if the answers are as good as those of the old nodes" } else { "" };
    let until = match (since_ms, until_ms) {
        (None, _) => ", once every proxy has acknowledged it".to_string(),
        (Some(_), Some(until)) => format!(", until {}{good}", show::time_of_day(*until)),
        (Some(_), None) if *person => ", waits for a person: `gapless promote`, or `gapless cancel`".to_string(),
        (Some(_), None) => String::new(),
    };
    format!("canary step {step} of {steps} at {percent} %{until}")
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
    use gapless_wire::api::Problem;
    use gapless_wire::service::Queued;

    fn rollout(stage: Stage) -> RolloutStatus {
        RolloutStatus {
            number: 4,
            kind: RolloutKind::Deploy,
            from: None,
            to: "books-r2".into(),
            stage,
            paused_since_ms: None,
            deadline_ms: None,
            canary: None,
            together: Vec::new(),
            given_up: None,
        }
    }

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
            strategy: "canary".into(),
            scaled: None,
            queued: None,
            crash_loop: false,
            revoked: false,
            trouble: None,
            damage: None,
        }
    }

    #[test]
    fn a_canary_says_where_it_is_and_what_it_waits_for() {
        let mut step = CanaryStatus {
            step: 2,
            steps: 3,
            percent: 25,
            since_ms: None,
            until_ms: None,
            person: true,
            compared: true,
            analysis: Some("compared: good enough".into()),
        };
        assert_eq!(canary(&step), "canary step 2 of 3 at 25 %, once every proxy has acknowledged it");
        step.since_ms = Some(1_000);
        let at = RolloutStatus { canary: Some(step.clone()), paused_since_ms: Some(2_000), ..rollout(Stage::Canary) };
        let told = words(&status("shelf/books", Some(at)));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "shelf/books · host books.test · canary · nothing live");
        assert_eq!(
            lines[1],
            "  rollout 4 to books-r2: canary step 2 of 3 at 25 %, waits for a person: `gapless promote`, or `gapless cancel`"
        );
        assert!(lines[2].starts_with("  paused since ") && lines[3] == "  compared: good enough", "{told}");
        (step.person, step.until_ms) = (false, Some(60_000));
        assert!(canary(&step).ends_with(" if the answers are as good as those of the old nodes"), "{}", canary(&step));
    }

    #[test]
    fn what_a_person_should_know_is_said() {
        let waiting = Waiting { rollout: Some(4), frozen_until_ms: None };
        let told = words(&ServiceStatus {
            host: String::new(),
            queued: Some(Queued { release: "books-r3".into(), waiting }),
            scaled: Some(Scaled { declared: 3, nodes: 5 }),
            crash_loop: true,
            revoked: true,
            damage: Some(Problem { what: "record 2 is damaged".into(), place: None, hint: Some("look after the disk".into()) }),
            ..status("shelf/books", None)
        });
        for part in [
            "shelf/books · worker · canary · nothing live",
            "next: books-r3, which waits for the end of rollout 4",
            "scaled to 5 nodes; 3 are declared",
            "the live release is revoked",
            "no more are made: see `gapless logs`, then `gapless retry`",
            "it goes on, but what it did long ago cannot be told: record 2 is damaged\n  hint: look after the disk\n",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let given_up = RolloutStatus { given_up: Some("somebody cancelled it".into()), ..rollout(Stage::Unroll) };
        assert_eq!(stage(&given_up), "given up (somebody cancelled it); old nodes take the new ones' place again");
    }

    #[test]
    fn json_after_following_is_that_of_the_status_and_how_the_rollout_ended() {
        let services = [status("shelf/web", None), status("shelf/books", Some(rollout(Stage::Shift)))];
        let followed = Followed::not_waited_for(services.iter().find_map(in_progress).expect("a rollout in progress"));
        let mut written = serde_json::to_value(told(&services, Some(&followed))).expect("JSON");
        let ends: Vec<_> = written.as_array_mut().expect("a list").iter_mut().map(|service| service["followed"].take()).collect();
        assert!(ends[0].is_null(), "{ends:?}");
        assert_eq!((ends[1]["release"].as_str(), ends[1]["rollout"].as_u64()), (Some("books-r2"), Some(4)));
        let read: Vec<ServiceStatus> = serde_json::from_value(written).expect("the status as it is without --follow");
        assert_eq!(read, services);
    }
}
