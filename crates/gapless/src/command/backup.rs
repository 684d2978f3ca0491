//! `gapless backup`: the installation as one file.

use crate::client::Connection;
use crate::show;
use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use gapless_wire::api::path;
use gapless_wire::backup::{Backup, BackupRequest};
use gapless_wire::client::ClientError;
use hyper::Method;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The file to make: journal, receipts, keys and images; only you may read it. Volumes are not in it
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let file = std::path::absolute(&arguments.file)
        .map_err(|error| Trouble::usage(format!("{} is no file's name: {error}", arguments.file.display()), "name the file to make"))?;
    let made: Result<Backup, ClientError> =
        arguments.connection.client().send(Method::POST, path::BACKUPS, &BackupRequest { file: file.clone() }).await;
    let made = match made {
        Ok(made) => made,
        // Without a server nobody writes, and the folder itself is what is backed up.
        Err(ClientError::Unreachable { .. }) => wiring::backup::make_without_server(&arguments.connection.state, &file)?,
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        show::json(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} holds installation {}: {} files, {} bytes", made.file.display(), made.installation, made.files, show::count(made.bytes));
    println!("it holds the key that receipts are signed with: keep it where only you can read it");
    if !made.without_image.is_empty() {
        println!("without their images, which are not kept any more: {}", made.without_image.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
