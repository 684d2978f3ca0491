//! `gapless server`: it builds, decides and remembers.

use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The server's state folder, which belongs to it alone
    #[arg(long, default_value = "/var/lib/gapless", value_name = "DIR")]
    pub state: PathBuf,
    /// A proxy's admin socket; may be given several times [default: proxy/proxy.sock in the state folder]
    #[arg(long = "proxy", value_name = "FILE")]
    pub proxies: Vec<PathBuf>,
    /// Where base images are kept, for several installations [default: cache in the state folder]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// The OCI runtime that runs nodes
    #[arg(long, default_value = "runc", value_name = "PROGRAM")]
    pub runtime: String,
    /// How long a request is held when no node is ready, in milliseconds; 0: not at all
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    pub hold_ms: u64,
    /// Never send a request to a second node
    #[arg(long)]
    pub no_retry: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    wiring::logging();
    wiring::server::run(arguments)?;
    Ok(ExitCode::SUCCESS)
}
