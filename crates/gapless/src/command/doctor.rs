//! `gapless doctor`: what is missing, left over or damaged, and what a restart would do.

use crate::client::Connection;
use crate::show;
use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::client::ClientError;
use gapless_wire::doctor::{Examination, RestartPlan, Treatment};
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
        print!("{}", restart(plan));
    }
    if found.findings.is_empty() {
        println!("all is well");
    }
}

/// What a restart would do to a service.
fn restart(plan: &RestartPlan) -> String {
    let mut text = if plan.state.is_empty() { format!("{}\n", plan.service) } else { format!("{}: {}\n", plan.service, plan.state) };
    for pending in &plan.pending {
        text += &format!("  under way: {pending}\n");
    }
    match plan.next.as_slice() {
        [] => text += "  a restart now would look at the world, and have nothing to do\n",
        next => {
            text += "  a restart now would look at the world, and then:\n";
            for effect in next {
                text += &format!("    {effect}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_in_words() {
        let mut plan = RestartPlan {
            service: "hello/web".into(),
            state: "rollout 4 to web-r5: its release command runs".into(),
            pending: vec!["e7 RunTask: the release command".into()],
            next: vec!["e8 RunTask: the release command".into()],
        };
        assert_eq!(
            restart(&plan),
            "hello/web: rollout 4 to web-r5: its release command runs\n  under way: e7 RunTask: the release command\n  a restart now would look at the world, and then:\n    e8 RunTask: the release command\n"
        );
        plan.next.clear();
        assert!(restart(&plan).ends_with("have nothing to do\n"));
    }
}
