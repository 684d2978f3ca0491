//! `gapless pause`, `resume`, `cancel`, `promote`, `retry`, `scale`: what is done to a rollout in progress, or to a service as it is.

use crate::client::{Connection, service};
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::operation::Operation;
use gapless_wire::rollout::Declared;
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The service, if there are several
    #[arg(long)]
    service: Option<String>,
    /// Do not wait for the rollout
    #[arg(long)]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ScaleArguments {
    /// How many nodes: at least the service's `floor`, which is the declared number of nodes unless gapless.hcl names a lower one
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    #[command(flatten)]
    arguments: Arguments,
}

pub async fn scale(arguments: &ScaleArguments) -> Result<ExitCode, Trouble> {
    run(&arguments.arguments, Operation::Scale { nodes: arguments.nodes }).await
}

pub async fn run(arguments: &Arguments, operation: Operation) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let declared: Declared = client.send(Method::POST, &path::of_service(&service, "operations"), &operation).await?;
    tell(arguments.json, &line(operation, &declared));
    // What was paused has no end to wait for, and scaling is no rollout.
    let ends = !matches!(operation, Operation::Pause | Operation::Scale { .. });
    let followed = if ends && !arguments.no_wait && declared.rollout.is_some() {
        let followed = follow::rollout(&client, declared).await;
        followed.tell(arguments.json, false);
        followed
    } else {
        Followed::not_waited_for(declared)
    };
    if arguments.json {
        show::json(&followed)?;
    }
    if operation == Operation::Cancel { followed.cancelled() } else { followed.result() }
}

fn tell(json: bool, line: &str) {
    if json { eprintln!("{line}") } else { println!("{line}") }
}

/// What was done, in one line.
fn line(operation: Operation, declared: &Declared) -> String {
    let Declared { service, release, rollout, changed, with, .. } = declared;
    let rollout = rollout.map_or("the rollout".to_string(), |rollout| format!("rollout {rollout} to {release}"));
    match operation {
        Operation::Pause => format!("{service}: {rollout} is paused; `gapless resume` lets it go on, `gapless cancel` gives it up"),
        Operation::Resume => format!("{service}: {rollout} goes on"),
        // In the bake window the rollout of the answer is the one that takes the traffic back.
        Operation::Cancel if declared.rollout.is_some() => format!("{service}: cancelled; all becomes as it was before"),
        Operation::Cancel => format!("{service}: cancelled; {release} is not tried when the freeze window ends"),
        Operation::Promote => format!("{service}: {rollout} is promoted to its next step"),
        Operation::Retry if declared.rollout.is_some() => {
            let with = if with.is_empty() { String::new() } else { format!(", together with {}", with.join(", ")) };
            format!("{service}: {rollout} tries again{with}")
        }
        Operation::Retry => format!("{service}: nodes of {release} are made again"),
        Operation::Scale { nodes } if *changed => {
            format!("{service}: {release} gets {nodes} nodes; it keeps that number until a declaration names another one")
        }
        Operation::Scale { nodes } => format!("{service}: nothing changed, {release} has {nodes} nodes already"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_says_what_it_did() {
        let declared = |rollout, changed| Declared {
            service: "hello/web".into(),
            release: "web-r5".into(),
            rollout,
            changed,
            waiting: None,
            passed_over: None,
            with: Vec::new(),
        };
        let told = |operation, rollout| line(operation, &declared(rollout, true));
        assert_eq!(
            told(Operation::Pause, Some(4)),
            "hello/web: rollout 4 to web-r5 is paused; `gapless resume` lets it go on, `gapless cancel` gives it up"
        );
        assert_eq!(told(Operation::Cancel, Some(4)), "hello/web: cancelled; all becomes as it was before");
        assert_eq!(told(Operation::Retry, Some(4)), "hello/web: rollout 4 to web-r5 tries again");
        let together = Declared { with: vec!["hello/worker".into()], ..declared(Some(4), true) };
        assert_eq!(line(Operation::Retry, &together), "hello/web: rollout 4 to web-r5 tries again, together with hello/worker");
        assert_eq!(told(Operation::Retry, None), "hello/web: nodes of web-r5 are made again");
        assert_eq!(line(Operation::Scale { nodes: 3 }, &declared(None, false)), "hello/web: nothing changed, web-r5 has 3 nodes already");
    }
}
