//! The commands by which the demo starts its processes: this very program, under other names of its own.

use super::folders::Folders;
use gapless_engine::error::{Context, Error};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable that names the effect before or after which the server stops for ever.
const HOLD_AT: &str = "GAPLESS_HOLD_AT";

/// The variable that names the file in which it says so.
const HOLD_MARKER: &str = "GAPLESS_HOLD_MARKER";

/// This program.
///
/// # Errors
/// When the system does not tell.
pub fn own() -> Result<PathBuf, Error> {
    std::env::current_exe().context(|| "find the program that runs".to_owned())
}

/// The proxy.
pub fn proxy(program: &Path, state: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.arg("proxy").arg("--state").arg(state).arg("--listen").arg(address.to_string());
    command
}

/// The server. With `hold` it stops for ever at that effect.
pub fn server(program: &Path, folders: &Folders, hold: Option<&str>) -> Command {
    let mut command = Command::new(program);
    command.arg("server").arg("--state").arg(folders.server()).arg("--proxy").arg(folders.proxy_socket());
    command.arg("--cache").arg(&folders.cache);
    command.env_remove(HOLD_AT).env_remove(HOLD_MARKER);
    if let Some(effect) = hold {
        command.env(HOLD_AT, effect).env(HOLD_MARKER, folders.hold_marker());
    }
    command
}

/// The witness; its plan and its recording are told by whoever starts it.
pub fn witness(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("load");
    command
}

/// Prepares a process that runs beside the demo: out of reach of the terminal's Ctrl-C, its output in a file.
///
/// # Errors
/// When the file cannot be opened.
pub fn beside(command: &mut Command, log: &Path) -> Result<(), Error> {
    let open = || File::options().create(true).append(true).open(log).context(|| format!("open {}", log.display()));
    command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).process_group(0);
    Ok(())
}

/// A loopback address that is free at this moment.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr, Error> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.context(|| "find a free loopback port".to_owned())
}
