//! The commands, one file each.

mod artifacts;
mod backup;
mod build;
mod deploy;
mod doctor;
mod explain;
mod init;
mod load;
mod logs;
mod operation;
mod probe;
mod proxy;
mod prune;
mod receipt;
mod releases;
mod replay;
mod restore;
mod revoke;
mod rollback;
mod server;
mod status;

pub use proxy::{Arguments as ProxyArguments, WorkerArguments as ProxyWorkerArguments};
pub use server::Arguments as ServerArguments;

use crate::demo;
use crate::trouble::Trouble;
use clap::{Parser, Subcommand};
use gapless_wire::operation::Operation;
use std::future::Future;
use std::process::ExitCode;

/// Delivers immutable infrastructure without a gap: new nodes before old ones, no request fails in between, and a signed receipt counts it
#[derive(Debug, Parser)]
#[command(name = "gapless", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a project: app/, packer/, puppet/, terraform/ and a commented gapless.hcl
    Init(init::Arguments),
    /// Run the server: it builds, decides and remembers
    Server(server::Arguments),
    /// Run the proxy: it carries the traffic
    Proxy(proxy::Arguments),
    /// A worker of the proxy, started by it
    #[command(hide = true)]
    ProxyWorker(proxy::WorkerArguments),
    /// The witness as a process of its own
    #[command(hide = true)]
    Load(load::Arguments),
    /// Build the images of a commit
    Build(build::Arguments),
    /// Build a commit if it was not built, and give it the traffic
    Deploy(deploy::Arguments),
    /// Show services, nodes and rollouts in progress
    Status(status::Arguments),
    /// List the releases of a service
    Releases(releases::Arguments),
    /// List what was built
    Artifacts(artifacts::Arguments),
    /// Go back to an earlier release
    Rollback(rollback::Arguments),
    /// Hold the rollout in progress where it is
    Pause(operation::Arguments),
    /// Let a paused rollout go on
    Resume(operation::Arguments),
    /// End the rollout in progress in the old release
    Cancel(operation::Arguments),
    /// End the canary's step: it is good enough
    Promote(operation::Arguments),
    /// Try the declared release again, or make nodes again after a crash loop
    Retry(operation::Arguments),
    /// Give a service another number of nodes
    Scale(operation::ScaleArguments),
    /// Revoke a version of an artifact: it is not deployed any more, and leaves where it runs
    Revoke(revoke::Arguments),
    /// Show what nodes and builds wrote
    Logs(logs::Arguments),
    /// Show or verify what a rollout did, measured on the requests
    Receipt(receipt::Arguments),
    /// Tell the story of a rollout: each decision, its evidence, its rule
    Explain(explain::Arguments),
    /// Run a rollout's journal through the core again, record by record
    Replay(replay::Arguments),
    /// Look for what is missing, left over or damaged
    Doctor(doctor::Arguments),
    /// Free the images that no kept release needs
    Prune(prune::Arguments),
    /// Write the whole installation into one file, while the server runs
    Backup(backup::Arguments),
    /// Put a backup into an empty state folder
    Restore(restore::Arguments),
    /// Point the witness at any URL
    Probe(probe::Arguments),
    /// Show the product's main job on real tools, under load
    Demo(demo::Arguments),
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<ExitCode, Trouble> {
    match cli.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Server(arguments) => server::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::ProxyWorker(arguments) => proxy::run_worker(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Demo(arguments) => Ok(demo::run(&arguments)?),
        Command::Build(arguments) => wait_for(build::run(&arguments)),
        Command::Deploy(arguments) => wait_for(deploy::run(&arguments)),
        Command::Status(arguments) => wait_for(status::run(&arguments)),
        Command::Releases(arguments) => wait_for(releases::run(&arguments)),
        Command::Artifacts(arguments) => wait_for(artifacts::run(&arguments)),
        Command::Rollback(arguments) => wait_for(rollback::run(&arguments)),
        Command::Pause(arguments) => wait_for(operation::run(&arguments, Operation::Pause)),
        Command::Resume(arguments) => wait_for(operation::run(&arguments, Operation::Resume)),
        Command::Cancel(arguments) => wait_for(operation::run(&arguments, Operation::Cancel)),
        Command::Promote(arguments) => wait_for(operation::run(&arguments, Operation::Promote)),
        Command::Retry(arguments) => wait_for(operation::run(&arguments, Operation::Retry)),
        Command::Scale(arguments) => wait_for(operation::scale(&arguments)),
        Command::Revoke(arguments) => wait_for(revoke::run(&arguments)),
        Command::Logs(arguments) => wait_for(logs::run(&arguments)),
        Command::Receipt(arguments) => wait_for(receipt::run(&arguments)),
        Command::Explain(arguments) => wait_for(explain::run(&arguments)),
        Command::Replay(arguments) => wait_for(replay::run(&arguments)),
        Command::Doctor(arguments) => wait_for(doctor::run(&arguments)),
        Command::Prune(arguments) => wait_for(prune::run(&arguments)),
        Command::Backup(arguments) => wait_for(backup::run(&arguments)),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Probe(arguments) => wait_for(probe::run(&arguments)),
    }
}

/// Runs a command that waits for others.
fn wait_for(work: impl Future<Output = Result<ExitCode, Trouble>>) -> Result<ExitCode, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Trouble::new(format!("the program's runtime cannot be started: {error}"), "look at the limits of processes and open files")
    })?;
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests;
