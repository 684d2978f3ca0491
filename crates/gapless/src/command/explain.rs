//! `gapless explain`: the story of a rollout, each decision with its time, evidence and rule.

use crate::client::{Connection, service};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::rollout::{Explanation, RolloutKind};
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let number = arguments.rollout.map_or("latest".to_string(), |number| number.to_string());
    let story: Explanation = client.get(&format!("{}/{number}/explain", path::of_service(&service, "rollouts"))).await?;
    if arguments.json {
        show::json(&story)?;
    } else {
        print(&story);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(story: &Explanation) {
    let rollout = &story.rollout;
    let verb = match rollout.kind {
        RolloutKind::Deploy => "rollout",
        RolloutKind::Rollback => "rollback",
        RolloutKind::Eviction => "eviction",
    };
    println!("{verb} {} of {} to {}", rollout.number, rollout.service, rollout.to);
    for step in &story.steps {
        println!("\n+{} at {}", show::span(step.at_ms.saturating_sub(rollout.started_ms)), show::exact_time(step.at_ms));
        println!("  {}", step.text);
        if !step.rule.is_empty() {
            println!("  why: {}", step.rule);
        }
    }
    if rollout.ended_ms.is_none() {
        println!("\nit is in progress: `gapless status --follow`");
    }
}
