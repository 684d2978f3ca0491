//! `gapless load PLAN OUTPUT`: the witness as a process of its own.

use crate::trouble::Trouble;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The plan as JSON; `-`: one line on standard input
    plan: PathBuf,
    /// Where the recording goes
    output: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    gapless_load::main(&arguments.plan, &arguments.output)?;
    Ok(ExitCode::SUCCESS)
}
