//! `gapless replay`: a rollout's journal, run through the core again.

use crate::client::{Connection, service};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::replay::{Replay, ReplayStep};
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The rollout's number [default: the latest]
    rollout: Option<u32>,
    /// The service, if there are several
    #[arg(long)]
    service: Option<String>,
    /// Wait for Enter after each record
    #[arg(long, conflicts_with = "json")]
    step: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The exit status is 0 only if the core decides everything as it did then.
pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let number = arguments.rollout.map_or("latest".to_string(), |number| number.to_string());
    let replay: Replay = client.get(&format!("{}/{number}/replay", path::of_service(&service, "rollouts"))).await?;
    if arguments.json {
        show::json(&replay)?;
    } else {
        print(&replay, arguments.step);
    }
    Ok(if replay.agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(replay: &Replay, step: bool) {
    let began = replay.steps.first().map_or(0, |first| first.at_ms);
    println!("rollout {} of {}, run through the core again", replay.rollout, replay.service);
    for record in &replay.steps {
        print!("\n{}", words(record, began));
        if step && !wait_for_enter() {
            return;
        }
    }
    println!("\n{}", verdict(replay));
}

fn words(record: &ReplayStep, began: u64) -> String {
    let after = show::span(record.at_ms.saturating_sub(began));
    let mut text = format!("record {} · +{after} at {}\n  {}\n", record.record, show::exact_time(record.at_ms), record.event);
    for decided in &record.decided {
        text += &format!("  → {decided}\n");
    }
    match &record.recorded {
        None if record.decided.is_empty() => text += "  → nothing, as then\n",
        None => {}
        Some(recorded) => {
            text += "  it was decided differently then:\n";
            for decided in recorded {
                text += &format!("  ← {decided}\n");
            }
        }
    }
    text + &format!("  = {}\n", record.state)
}

fn verdict(replay: &Replay) -> String {
    let from =
        if replay.from_record == 0 { "the beginning".to_string() } else { format!("the state kept after record {}", replay.from_record) };
    let records = show::count(replay.records);
    match replay.agrees {
        true => format!("{records} records from {from} on were run again: every decision is the one that was made"),
        false => {
            format!("{records} records from {from} on were run again: this version of gapless decides differently than was decided then")
        }
    }
}

/// `false`: there is nobody who could press it any more.
fn wait_for_enter() -> bool {
    if std::io::stderr().is_terminal() {
        eprint!("  (Enter)");
    }
    std::io::stdin().lock().read_line(&mut String::new()).is_ok_and(|read| read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_what_was_decided_and_where_it_differs() {
        let mut record = ReplayStep {
            record: 12,
            at_ms: 1_250,
            event: "somebody pauses the rollout".into(),
            decided: vec!["tell: somebody paused it".into()],
            recorded: None,
            state: "prepare · web-r1 live".into(),
        };
        let told = words(&record, 1_000);
        assert!(told.starts_with("record 12 · +0.2 s at "), "{told}");
        assert!(told.ends_with("\n  somebody pauses the rollout\n  → tell: somebody paused it\n  = prepare · web-r1 live\n"), "{told}");
        record.recorded = Some(vec!["e3 Route g4: no node".into()]);
        assert!(words(&record, 1_000).contains("it was decided differently then:\n  ← e3 Route g4: no node\n"));
        (record.recorded, record.decided) = (None, Vec::new());
        assert!(words(&record, 1_000).contains("→ nothing, as then"));
    }
}
