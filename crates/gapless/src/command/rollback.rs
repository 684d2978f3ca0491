//! `gapless rollback`: back to an earlier release.

use crate::client::{Connection, service};
use crate::follow::{self, Followed};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::rollout::{Declared, RollbackRequest};
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The release, such as r3 or web-r3 [default: the one that was live before]
    #[arg(value_parser = release)]
    release: Option<u32>,
    /// The service, if there are several
    #[arg(long)]
    service: Option<String>,
    /// Also past a release that declared that what was before it can no longer run
    #[arg(long)]
    force: bool,
    /// Do not wait for the rollout
    #[arg(long)]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The number of a release: `3`, `r3`, `web-r3`.
fn release(text: &str) -> Result<u32, String> {
    let number = text.rsplit_once("-r").map_or(text, |(_, number)| number);
    number.trim_start_matches('r').parse().map_err(|_| "a release, such as r3 or web-r3; `gapless releases` lists them".to_string())
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let service = service(&client, arguments.service.as_deref()).await?;
    let wish = RollbackRequest { to: arguments.release, force: arguments.force };
    let declared: Declared = client.send(Method::POST, &path::of_service(&service, "rollback"), &wish).await?;
    if !declared.with.is_empty() {
        eprintln!("{}: what came with it goes back, too: {}", declared.service, declared.with.join(", "));
    }
    let followed = if arguments.no_wait && declared.rollout.is_some() {
        eprintln!("{}: {} is on its way back; `gapless status` tells", declared.service, declared.release);
        Followed::not_waited_for(declared)
    } else {
        follow::rollout(&client, declared).await
    };
    followed.tell(arguments.json, false);
    if arguments.json {
        show::json(&followed)?;
    }
    followed.result()
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn a_release_may_be_written_in_three_ways() {
        assert_eq!([release("3"), release("r3"), release("web-r3")], [Ok(3), Ok(3), Ok(3)]);
        assert!(release("web").is_err());
    }
}
