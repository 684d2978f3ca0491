//! The commands, one file each.

mod artifacts;
mod build;
mod deploy;
mod doctor;
mod explain;
mod init;
mod load;
mod logs;
mod probe;
mod proxy;
mod receipt;
mod releases;
mod rollback;
mod server;
mod status;

pub use proxy::{Arguments as ProxyArguments, WorkerArguments as ProxyWorkerArguments};
pub use server::Arguments as ServerArguments;

use crate::demo;
use crate::trouble::Trouble;
use clap::{Parser, Subcommand};
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
    /// Show what nodes and builds wrote
    Logs(logs::Arguments),
    /// Show or verify what a rollout did, measured on the requests
    Receipt(receipt::Arguments),
    /// Tell the story of a rollout: each decision, its evidence, its rule
    Explain(explain::Arguments),
    /// Look for what is missing, left over or damaged
    Doctor(doctor::Arguments),
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
        Command::Logs(arguments) => wait_for(logs::run(&arguments)),
        Command::Receipt(arguments) => wait_for(receipt::run(&arguments)),
        Command::Explain(arguments) => wait_for(explain::run(&arguments)),
        Command::Doctor(arguments) => wait_for(doctor::run(&arguments)),
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
