//! `gapless probe URL`: the witness pointed at anyone's deployment, whatever made it.

use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_load::{PROBE_RATE_PER_SECOND, PROBE_SECONDS, Probe, probe};
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// What is asked for, such as https://www.example.com/
    url: String,
    /// How long, in seconds
    #[arg(long, default_value_t = PROBE_SECONDS)]
    seconds: u64,
    /// Requests per second
    #[arg(long, default_value_t = PROBE_RATE_PER_SECOND)]
    rate: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The exit status is 0 only if no request failed.
pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    eprintln!(
        "asking {} for {} s, {} requests a second, half of them on connections of their own",
        arguments.url, arguments.seconds, arguments.rate
    );
    let seen = probe(&arguments.url, arguments.seconds, arguments.rate).await?;
    if arguments.json {
        show::json(&json(&seen))?;
    } else {
        print(&seen);
    }
    Ok(if seen.recording.report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn json(seen: &Probe) -> serde_json::Value {
    serde_json::json!({ "report": seen.recording.report, "longest_gap_ms": seen.longest_gap_ms, "quantiles": seen.quantiles })
}

fn print(seen: &Probe) {
    let report = &seen.recording.report;
    println!(
        "{} requests · {} failed · longest gap {:.0} ms",
        show::count(report.requests),
        show::count(report.failed),
        seen.longest_gap_ms
    );
    println!("p50 {:.1} ms · p99 {:.1} ms · max {:.1} ms", seen.quantiles.p50_ms, seen.quantiles.p99_ms, seen.quantiles.max_ms);
    for (cause, count) in &report.failed_by_cause {
        println!("failed: {count} × {cause}");
    }
    if report.late_starts > 0 {
        println!("{} requests began late: the witness itself was the bottleneck", report.late_starts);
    }
}
