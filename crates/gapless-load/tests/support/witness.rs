//! What `gapless load PLAN OUTPUT` does, as a program of its own for the tests of the process.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [plan, output] = paths.as_slice() else {
        eprintln!("usage: gapless-load-witness PLAN OUTPUT");
        return ExitCode::from(2);
    };
    match gapless_load::main(plan, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\nhint: {}", error.hint());
            ExitCode::FAILURE
        }
    }
}
