//! `gapless proxy reload`: the running proxy takes its settings anew.

use super::{ANSWER_LIMIT, Place, SettingsFile, change, trouble};
use crate::trouble::Trouble;
use clap::Args;
use gapless_server::settings;
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::route::ProxyStatus;
use gapless_wire::settings::Settings;
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    file: SettingsFile,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let file = arguments.file.path(&arguments.place.state);
    let wanted = settings::read(&file)?;
    let holder = arguments.place.client();
    let before = in_force(&holder).await;
    let refused = format!("nothing has changed: correct {}, and reload again", file.display());
    let taken: Result<Settings, ClientError> = holder.send(Method::PUT, "/v1/settings", &wanted).await;
    let after = taken.map_err(|error| trouble(error, &refused))?;
    match before.as_ref().map(|before| change::lines(before, &after)) {
        None => println!("the proxy serves with {}", file.display()),
        Some(lines) if lines.is_empty() => println!("the proxy serves with {}, which changed nothing", file.display()),
        Some(lines) => {
            println!("the proxy serves with {}:", file.display());
            lines.iter().for_each(|line| println!("  {line}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings of the worker that serves. Without them a reload only tells less.
async fn in_force(holder: &UnixClient) -> Option<Settings> {
    let status: ProxyStatus = holder.get("/v1/proxy").await.ok()?;
    let serving = status.workers.iter().rfind(|worker| !worker.leaving)?;
    UnixClient::new(&serving.socket).timeout(ANSWER_LIMIT).get("/v1/settings").await.ok()
}
