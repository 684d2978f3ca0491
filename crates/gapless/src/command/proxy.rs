//! `gapless proxy`: the holder of the sockets; and its workers.

use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The proxy's own folder: its snapshot and its admin socket
    #[arg(long, default_value = "/var/lib/gapless/proxy", value_name = "DIR")]
    pub state: PathBuf,
    /// An address to listen on; may be given several times
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
}

/// What a worker needs it finds in its environment.
#[derive(Clone, Debug, Args)]
pub struct WorkerArguments {}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    wiring::logging();
    wiring::proxy::hold(arguments)?;
    Ok(ExitCode::SUCCESS)
}

pub fn run_worker(arguments: &WorkerArguments) -> Result<ExitCode, Trouble> {
    wiring::logging();
    wiring::proxy::work(arguments)?;
    Ok(ExitCode::SUCCESS)
}
