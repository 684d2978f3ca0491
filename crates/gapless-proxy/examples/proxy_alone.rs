//! The proxy as a program of its own, for the tests: `proxy_alone STATE ADDRESS…` is a holder, `proxy_alone --worker` is what it starts.

use gapless_proxy::ProxyError;
use gapless_proxy::holder::{self, HolderOptions};
use gapless_proxy::worker::{self, WorkerOptions};
use std::process::ExitCode;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n  hint: {}", error.hint_text().unwrap_or("none"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), ProxyError> {
    if arguments == ["--worker"] {
        return worker::main(WorkerOptions::from_environment()?);
    }
    let [state, listen @ ..] = arguments else { panic!("usage: proxy_alone STATE ADDRESS…") };
    let listen = listen.iter().map(|address| address.parse().expect("an address")).collect();
    let program = std::env::current_exe().expect("the path of this program");
    holder::main(HolderOptions { state: state.into(), listen, settings: None, program, worker_arguments: vec!["--worker".to_string()] })
}
