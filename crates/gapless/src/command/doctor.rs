//! `gapless doctor`: what is missing, left over or damaged, and what a restart would do.

use crate::client::Connection;
use crate::show;
use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::client::ClientError;
use gapless_wire::doctor::{Examination, Treatment};
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Remove what is left over and no live node explains
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The exit status is 0 only if nothing was found.
pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let asked: Result<Examination, ClientError> = if arguments.fix {
        client.send(Method::POST, path::DOCTOR, &Treatment { remove_leftovers: true }).await
    } else {
        client.get(path::DOCTOR).await
    };
    let found = match asked {
        Ok(found) => found,
        // Without a server there is nobody to ask, and all the more to look at.
        Err(ClientError::Unreachable { .. }) => wiring::doctor::examine(&arguments.connection.state, arguments.fix)?,
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        show::json(&found)?;
    } else {
        print(&found);
    }
    Ok(if found.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(found: &Examination) {
    for removed in &found.removed {
        println!("removed {removed}");
    }
    for finding in &found.findings {
        println!("{}: {}", finding.kind, finding.what);
        println!("  {}", finding.why);
        if let Some(hint) = &finding.hint {
            println!("  hint: {hint}");
        } else if finding.removable {
            println!("  hint: `gapless doctor --fix` removes it");
        }
    }
    for plan in &found.restart {
        let next = if plan.next.is_empty() { "nothing".to_string() } else { plan.next.join("; ") };
        println!("{}: a restart now would do {next}", plan.service);
        if !plan.pending.is_empty() {
            println!("  under way: {}", plan.pending.join("; "));
        }
    }
    if found.findings.is_empty() {
        println!("all is well");
    }
}
