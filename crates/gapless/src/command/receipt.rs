//! `gapless receipt`: what a rollout did, measured on the requests; and whether a receipt is genuine.

use crate::client::{Connection, service};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_server::receipt::{named_phases, verify};
use gapless_wire::api::path;
use gapless_wire::receipt::{Measured, Quantiles, Receipt, SignedReceipt};
use gapless_wire::rollout::{Outcome, RolloutKind, RolloutSummary};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The rollout's number [default: the latest that has ended]
    rollout: Option<u32>,
    /// The service, if there are several
    #[arg(long)]
    service: Option<String>,
    /// Check this file's signature instead; needs no server
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// The public key that it must be signed with, 64 hexadecimal digits
    #[arg(long, requires = "verify")]
    key: Option<String>,
    /// Print the signed receipt as JSON; with --verify, what was found
    #[arg(long)]
    json: bool,
}

/// A genuine receipt: `--verify --json`. Of any other there is no JSON, as of nothing that failed.
#[derive(Serialize)]
struct Verified<'a> {
    genuine: bool,
    service: &'a str,
    rollout: u32,
    /// The public key that it is signed with, 64 hexadecimal digits.
    key: &'a str,
    /// The key is the one that was given with `--key`; else it is to be compared with the installation's.
    is_given_key: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    if let Some(file) = &arguments.verify {
        return check(file, arguments.key.as_deref(), arguments.json);
    }
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let number = match arguments.rollout {
        Some(number) => number,
        None => {
            let rollouts: Vec<RolloutSummary> = client.get(&path::of_service(&service, "rollouts")).await?;
            let last = rollouts.iter().rfind(|rollout| rollout.receipt).map(|rollout| rollout.number);
            last.ok_or_else(|| Trouble::new(format!("{service} has no receipt yet"), "a receipt is made when a rollout ends"))?
        }
    };
    let signed: SignedReceipt = client.get(&path::of_rollout(&service, number, "receipt")).await?;
    if arguments.json {
        show::json(&signed)?;
    } else {
        print(&signed.receipt);
        println!("signed with {}", signed.key);
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path, key: Option<&str>, json: bool) -> Result<ExitCode, Trouble> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Trouble::new(format!("{} cannot be read: {error}", file.display()), "`gapless receipt --json` writes one"))?;
    let signed = verify(&text, key).map_err(|error| {
        Trouble::new(format!("{}: {error}", file.display()), "ask the installation for the receipt again: `gapless receipt --json`")
    })?;
    if json {
        let Receipt { service, rollout, .. } = &signed.receipt;
        show::json(&Verified { genuine: true, service, rollout: *rollout, key: &signed.key, is_given_key: key.is_some() })?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("genuine: rollout {} of {}, signed with {}", signed.receipt.rollout, signed.receipt.service, signed.key);
    if key.is_none() {
        println!("compare this key with the installation's (keys/receipt.pub in its state folder), or give it with --key");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(receipt: &Receipt) {
    let outcome = match (receipt.outcome, &receipt.reason) {
        (Outcome::Live, _) => "live".to_string(),
        (Outcome::Rejected, Some(reason)) => format!("rejected: {}", reason.text),
        (Outcome::Rejected, None) => "rejected".to_string(),
    };
    let from = receipt.from.as_ref().map_or("nothing", |from| from.release.as_str());
    let kind = match receipt.kind {
        RolloutKind::Deploy => "rollout",
        RolloutKind::Rollback => "rollback",
        RolloutKind::Eviction => "eviction",
    };
    println!("{} {kind} {}: {from} → {} · {outcome}", receipt.service, receipt.rollout, receipt.to.release);
    println!(
        "artifact   {} version {}, commit {}",
        receipt.to.artifact,
        receipt.to.version,
        receipt.to.commit.as_deref().map_or("-", show::short)
    );
    println!("image      {}", receipt.to.image);
    let optional = |span: Option<u64>| span.map_or("-".to_string(), show::span);
    println!("switch     {} to all traffic, {} to the old nodes gone", optional(receipt.switch_ms), optional(receipt.gone_ms));
    if let Some(outage) = receipt.outage_ms {
        println!("outage     {}: the old nodes had to leave before there were new ones", show::span(outage));
    }
    // What every rollout has is named also when it was not reached.
    let usual = ["build", "boot", "gate", "shift", "drain", "destroy"];
    let named = named_phases(&receipt.phases).into_iter().filter(|(name, span)| span.is_some() || usual.contains(name));
    let phases: Vec<String> = named.map(|(name, span)| format!("{name} {}", optional(span))).collect();
    println!("phases     {} (longest: {})", phases.join(" · "), receipt.longest_phase.as_deref().unwrap_or("-"));
    match &receipt.measured {
        Some(measured) => print_measured(measured),
        None => println!("requests   not measured"),
    }
    if receipt.server_restarts > 0 {
        println!("server     was started again {} times in the middle", receipt.server_restarts);
    }
    for why in &receipt.incomplete {
        println!("incomplete {why}");
    }
}

fn print_measured(measured: &Measured) {
    println!(
        "requests   {} · {} failed · {} retried · {} held · {} cut",
        show::count(measured.requests),
        measured.failed,
        measured.retried,
        measured.held,
        measured.cut
    );
    for (cause, count) in &measured.failed_by_cause {
        println!("failed     {count} × {cause}");
    }
    if measured.unanswered > 0 {
        println!("unanswered {} whose client went away before the answer began (shown, not counted)", show::count(measured.unanswered));
    }
    let flight = measured.in_flight_at_switch.map_or("-".to_string(), |count| count.to_string());
    let gap = measured.longest_gap_ms.map_or("-".to_string(), |gap| format!("{gap} ms"));
    println!("switch     {flight} in flight, longest gap {gap}");
    for (name, quantiles) in [("before", measured.before), ("during", measured.during), ("after", measured.after)] {
        println!("{name:10} {}", latencies(quantiles));
    }
}

fn latencies(quantiles: Quantiles) -> String {
    if quantiles.count == 0 {
        return "no small GETs".to_string();
    }
    let [p50, p99, p999, max] = [quantiles.p50_us, quantiles.p99_us, quantiles.p999_us, quantiles.max_us].map(show::latency);
    format!("p50 {p50} · p99 {p99} · p99.9 {p999} · max {max} ({} small GETs)", show::count(quantiles.count))
}
