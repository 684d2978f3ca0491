//! The gapless program: the command line, and the one place where concrete parts are wired into programs.

mod client;
mod command;
mod demo;
mod follow;
mod show;
mod trouble;
mod wiring;

use clap::Parser;
use std::process::ExitCode;

/// Requests and blobs make many short-lived pieces of memory on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run(command::Cli::parse()).unwrap_or_else(|trouble| {
        eprint!("{trouble}");
        trouble.exit_code()
    })
}
