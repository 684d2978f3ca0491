//! `gapless restore`: an installation from its backup, on an empty machine.

use crate::show;
use crate::trouble::Trouble;
use crate::wiring;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The server's state folder, which must be empty or not there
    #[arg(long, default_value = "/var/lib/gapless", value_name = "DIR")]
    state: PathBuf,
    /// The backup
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let restored = wiring::backup::restore(&arguments.file, &arguments.state)?;
    if arguments.json {
        show::json(&restored)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} is installation {} as it was on {}",
        arguments.state.display(),
        restored.installation,
        show::date_and_time(restored.made_ms)
    );
    println!("start `gapless proxy` and `gapless server`: the server makes the nodes again that should be there");
    Ok(ExitCode::SUCCESS)
}
