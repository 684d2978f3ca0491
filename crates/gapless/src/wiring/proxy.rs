//! The proxy's two processes.

use crate::command::{ProxyArguments, ProxyWorkerArguments};
use crate::trouble::Trouble;
use gapless_engine::error::Context;
use gapless_proxy::{holder, worker};

/// What this program takes to be a worker.
const WORKER_COMMAND: &str = "proxy-worker";

/// Holds the sockets and supervises, until a signal ends it.
pub fn hold(arguments: &ProxyArguments) -> Result<(), Trouble> {
    let program = std::env::current_exe().context(|| "finding this program's own file".to_string())?;
    let options = holder::HolderOptions {
        state: arguments.state.clone(),
        listen: arguments.listen.clone(),
        settings: None,
        program,
        worker_arguments: vec![WORKER_COMMAND.to_string()],
    };
    Ok(holder::main(options)?)
}

/// Serves, until the holder lets it end.
pub fn work(_arguments: &ProxyWorkerArguments) -> Result<(), Trouble> {
    Ok(worker::main(worker::WorkerOptions::from_environment()?)?)
}
