//! The proxy's two processes.

use crate::command::{ProxyArguments, ProxyWorkerArguments};
use crate::trouble::Trouble;
use gapless_engine::error::Context;
use gapless_proxy::{holder, worker};
use gapless_server::settings;
use gapless_wire::settings::Settings;
use std::net::{Ipv4Addr, SocketAddr};

/// What this program takes to be a worker.
const WORKER_COMMAND: &str = "proxy-worker";

/// Where a proxy listens when nobody says where.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);

/// Holds the sockets and supervises, until a signal ends it.
pub fn hold(arguments: &ProxyArguments) -> Result<(), Trouble> {
    let program = std::env::current_exe().context(|| "finding this program's own file".to_string())?;
    let settings = settings(arguments)?;
    let options = holder::HolderOptions {
        state: arguments.place.state.clone(),
        listen: listen(&arguments.listen, settings.as_ref()),
        settings,
        program,
        worker_arguments: vec![WORKER_COMMAND.to_string()],
    };
    Ok(holder::main(options)?)
}

/// The settings of the file, if there is one; else those that the state folder keeps from an earlier one. A file with a fault keeps nobody from serving who has served with another.
fn settings(arguments: &ProxyArguments) -> Result<Option<Settings>, Trouble> {
    let state = &arguments.place.state;
    let file = arguments.file.path(state);
    let kept = || holder::kept_settings(state);
    if arguments.file.settings.is_none() && !file.exists() {
        return Ok(kept());
    }
    match (settings::read(&file), kept()) {
        (Ok(settings), _) => Ok(Some(settings)),
        (Err(problem), Some(kept)) => {
            tracing::error!(faults = problem.place, "{}: the proxy begins with the settings that it had", problem.what);
            Ok(Some(kept))
        }
        (Err(problem), None) => Err(problem.into()),
    }
}

fn listen(of_command_line: &[SocketAddr], settings: Option<&Settings>) -> Vec<SocketAddr> {
    let nowhere = of_command_line.is_empty() && settings.is_none_or(|settings| settings.listeners.is_empty());
    if nowhere { vec![LISTEN.into()] } else { of_command_line.to_vec() }
}

/// Serves, until the holder lets it end.
pub fn work(_arguments: &ProxyWorkerArguments) -> Result<(), Trouble> {
    Ok(worker::main(worker::WorkerOptions::from_environment()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};
    use std::fs;
    use std::path::Path;

    fn arguments(state: &Path, more: &[&str]) -> ProxyArguments {
        let line = ["proxy", "--state", state.to_str().expect("UTF-8")].into_iter().chain(more.iter().copied());
        let matches = ProxyArguments::augment_args(clap::Command::new("proxy")).try_get_matches_from(line).expect("arguments");
        ProxyArguments::from_arg_matches(&matches).expect("arguments")
    }

    #[test]
    fn a_file_counts_and_a_faulty_one_keeps_nobody_from_serving_as_before() {
        let state = tempfile::tempdir().expect("folder");
        let usual = arguments(state.path(), &[]);
        assert_eq!(settings(&usual).expect("no file"), None);
        let named = arguments(state.path(), &["--settings", "/nowhere/proxy.hcl"]);
        assert!(settings(&named).expect_err("a file that was named").to_string().contains("/nowhere/proxy.hcl cannot be read"));
        let file = state.path().join(settings::FILE);
        fs::write(&file, "clients { idle = \"7s\" }\n").expect("file");
        let read = settings(&usual).expect("good").expect("settings");
        assert_eq!(read.clients.idle_ms, 7000);
        fs::write(&file, "client {}\n").expect("file");
        assert!(settings(&usual).expect_err("a fault").to_string().contains("did you mean `clients`?"));
        fs::write(state.path().join("settings.json"), serde_json::to_vec(&read).expect("JSON")).expect("what a holder keeps");
        assert_eq!(settings(&usual).expect("kept"), Some(read.clone()));
        fs::remove_file(&file).expect("file");
        assert_eq!(settings(&usual).expect("kept"), Some(read));
    }

    #[test]
    fn somebody_says_where_to_listen_or_there_is_a_usual_place() {
        let here: SocketAddr = "127.0.0.1:1".parse().expect("address");
        let parsed = |text: &str| settings::parse("proxy.hcl", text, Path::new("/")).expect(text);
        let (none, some) = (parsed(""), parsed("listener \"127.0.0.1:2\" {}\n"));
        assert_eq!(listen(&[], None), [LISTEN.into()]);
        assert_eq!(listen(&[], Some(&none)), [LISTEN.into()]);
        assert_eq!(listen(&[], Some(&some)), []);
        assert_eq!(listen(&[here], Some(&some)), [here]);
    }
}
