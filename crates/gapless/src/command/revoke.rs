//! `gapless revoke`: a version of an artifact may not run any more.

use crate::client::Connection;
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::revocation::{Eviction, RevocationRequest, Revoked};
use hyper::Method;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The artifact's name, such as hello/web
    name: String,
    /// Its version
    #[arg(value_parser = version)]
    version: u32,
    /// What is wrong with it: whoever deploys it next is told
    #[arg(long, value_name = "TEXT", required_unless_present = "lift")]
    reason: Option<String>,
    /// Give it free again
    #[arg(long, conflicts_with = "reason")]
    lift: bool,
    /// Do not wait for the nodes that run it to leave
    #[arg(long)]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A version: `3` or `v3`.
fn version(text: &str) -> Result<u32, String> {
    text.trim_start_matches('v').parse().map_err(|_| "a version number, such as 3; `gapless artifacts` lists them".to_string())
}

/// What came of it with how each eviction ended: `--json`.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    revoked: &'a Revoked,
    evictions: &'a [Followed],
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let Arguments { name, version, reason, lift, .. } = arguments.clone();
    let wish = RevocationRequest { artifact: name, version, reason, lift };
    let revoked: Revoked = client.send(Method::POST, path::REVOCATIONS, &wish).await?;
    let tell = |line: &str| if arguments.json { eprintln!("{line}") } else { println!("{line}") };
    tell(&line(&revoked));
    let mut evictions = Vec::new();
    for eviction in &revoked.running {
        tell(&eviction_line(eviction));
        let Some(declared) = eviction.to.clone() else { continue };
        let followed = if arguments.no_wait { Followed::not_waited_for(declared) } else { follow::rollout(&client, declared).await };
        followed.tell(arguments.json, revoked.running.len() > 1);
        evictions.push(followed);
    }
    if arguments.json {
        show::json(&Told { revoked: &revoked, evictions: &evictions })?;
    }
    let mut worst = ExitCode::SUCCESS;
    for followed in evictions {
        if followed.result()? != ExitCode::SUCCESS {
            worst = ExitCode::FAILURE;
        }
    }
    Ok(worst)
}

fn line(revoked: &Revoked) -> String {
    let Revoked { artifact, version, revocation, running } = revoked;
    match revocation {
        None => format!("{artifact} version {version} may run again; what was evicted stays where it is"),
        Some(revocation) if running.is_empty() => {
            format!("{artifact} version {version} is revoked, and nothing runs it: {}", revocation.reason)
        }
        Some(revocation) => format!("{artifact} version {version} is revoked: {}", revocation.reason),
    }
}

fn eviction_line(eviction: &Eviction) -> String {
    let Eviction { service, release, to } = eviction;
    match to {
        Some(declared) => format!("{service}: {release} runs it and leaves for {}", declared.release),
        None => format!("{service}: {release} runs it and cannot leave now: `gapless status` tells why; deploying another version helps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::revocation::Revocation;

    #[test]
    fn a_revocation_says_who_runs_it() {
        let revocation = Some(Revocation { at_ms: 1, reason: "leaks a key".into() });
        let mut revoked = Revoked { artifact: "hello/web".into(), version: 3, revocation, running: Vec::new() };
        assert_eq!(line(&revoked), "hello/web version 3 is revoked, and nothing runs it: leaks a key");
        revoked.running.push(Eviction { service: "hello/web".into(), release: "web-r5".into(), to: None });
        assert_eq!(line(&revoked), "hello/web version 3 is revoked: leaks a key");
        assert!(eviction_line(&revoked.running[0]).contains("cannot leave now"));
        revoked.revocation = None;
        assert!(line(&revoked).contains("may run again"));
        assert_eq!([version("3"), version("v3")], [Ok(3), Ok(3)]);
    }
}
