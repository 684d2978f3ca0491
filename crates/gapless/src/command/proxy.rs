//! `gapless proxy`: the holder of the sockets, and its workers; and what a running one is asked.

mod change;
mod reload;
mod status;
mod upgrade;

use crate::trouble::Trouble;
use crate::wiring;
use clap::{Args, Subcommand};
use gapless_proxy::holder;
use gapless_server::settings;
use gapless_wire::client::{ClientError, UnixClient};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a proxy may take for anything: a change of workers has three steps of 12 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    wish: Option<Wish>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub file: SettingsFile,
    /// An address to listen on, beside those of the settings; may be given several times [default: 127.0.0.1:8080, unless the settings have listeners]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<SocketAddr>,
}

#[derive(Clone, Debug, Subcommand)]
enum Wish {
    /// Make the running proxy take its settings anew
    Reload(reload::Arguments),
    /// Let the running proxy go on as the program that is on the disk now, without a gap
    Upgrade(upgrade::Arguments),
    /// Show the running proxy's listeners, workers and nodes
    Status(status::Arguments),
}

/// Where the proxy is
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The proxy's own folder: its snapshot and its admin socket
    #[arg(long, default_value = "/var/lib/gapless/proxy", value_name = "DIR")]
    pub state: PathBuf,
}

/// What it is set to
#[derive(Clone, Debug, Args)]
pub struct SettingsFile {
    /// The proxy's settings [default: proxy.hcl in the state folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// What a worker needs it finds in its environment.
#[derive(Clone, Debug, Args)]
pub struct WorkerArguments {}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    match &arguments.wish {
        None => {
            wiring::logging();
            wiring::proxy::hold(arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Wish::Reload(arguments)) => super::wait_for(reload::run(arguments)),
        Some(Wish::Upgrade(arguments)) => super::wait_for(upgrade::run(arguments)),
        Some(Wish::Status(arguments)) => super::wait_for(status::run(arguments)),
    }
}

pub fn run_worker(arguments: &WorkerArguments) -> Result<ExitCode, Trouble> {
    wiring::logging();
    wiring::proxy::work(arguments)?;
    Ok(ExitCode::SUCCESS)
}

impl SettingsFile {
    /// The file that counts for a proxy with this state folder, whether it is there or not.
    pub fn path(&self, state: &Path) -> PathBuf {
        self.settings.clone().unwrap_or_else(|| state.join(settings::FILE))
    }
}

impl Place {
    /// A client of the holder.
    fn client(&self) -> UnixClient {
        UnixClient::new(holder::socket(&self.state)).timeout(ANSWER_LIMIT)
    }
}

/// Why a proxy did not do what it was asked. `refused`: what a person can do when it says no.
fn trouble(error: ClientError, refused: &str) -> Trouble {
    match error {
        ClientError::Refused { body, .. } => Trouble::new(body.trim_end(), refused),
        ClientError::Unreachable { socket, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Trouble::new(format!("{} may not be opened", socket.display()), "only root talks to the proxy: use `sudo gapless …`")
        }
        ClientError::Unreachable { socket, .. } => Trouble::new(
            format!("no proxy answers on {}", socket.display()),
            "start it: `systemctl start gapless-proxy`, or `gapless proxy`; another state folder is named with `--state`",
        ),
        ClientError::Broken { .. } => Trouble::new(error.to_string(), "see how the proxy is: `gapless proxy status`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_not_there_or_refuses_is_told() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let told = trouble(ClientError::Unreachable { socket: "/x/proxy.sock".into(), source }, "").to_string();
        assert!(told.starts_with("error: no proxy answers on /x/proxy.sock\n hint: start it: `systemctl start gapless-proxy`"), "{told}");
        let refused = ClientError::Refused { status: hyper::StatusCode::BAD_REQUEST, body: "the port is taken (free it)\n".into() };
        assert_eq!(trouble(refused, "nothing has changed").to_string(), "error: the port is taken (free it)\n hint: nothing has changed\n");
    }

    #[test]
    fn the_settings_are_in_the_state_folder_unless_another_file_is_named() {
        let state = Path::new("/var/lib/gapless/proxy");
        assert_eq!(SettingsFile { settings: None }.path(state), Path::new("/var/lib/gapless/proxy/proxy.hcl"));
        assert_eq!(SettingsFile { settings: Some("x.hcl".into()) }.path(state), Path::new("x.hcl"));
    }
}
