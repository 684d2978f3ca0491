//! `gapless logs`: what nodes and builds wrote.

use crate::client::{Connection, service};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::log::Log;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// A node, such as r7-i12-n0 [default: all nodes, also those that are gone and whose output is kept]
    node: Option<String>,
    /// The service, if there are several
    #[arg(long)]
    service: Option<String>,
    /// The log of this build instead
    #[arg(long, value_name = "NUMBER", conflicts_with = "node")]
    build: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let client = arguments.connection.client();
    let logs: Vec<Log> = match arguments.build {
        Some(number) => vec![client.get(&path::build_log(number)).await?],
        None => {
            let service = service(&client, arguments.service.as_deref()).await?;
            let query = arguments.node.as_ref().map_or(String::new(), |node| format!("?node={node}"));
            client.get(&format!("{}{query}", path::of_service(&service, "logs"))).await?
        }
    };
    if arguments.json {
        show::json(&logs)?;
    } else {
        logs.iter().for_each(print);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(log: &Log) {
    let condition = if log.running { "" } else { " (gone)" };
    println!("==> {}{condition}", log.of);
    if log.shortened {
        println!("… (the beginning is left out)");
    }
    println!("{}", log.text.trim_end());
}
