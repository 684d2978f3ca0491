//! Opens a local platform and runs a release command on it, then says so. The recovery tests kill it in the middle.
//!
//! `local_run_task STATE INSTALLATION IMAGE UPPER`

#[path = "../tests/local/service.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod service;

use gapless_core::effect::Task;
use gapless_engine::platform::Platform;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let images = Arc::new(service::OneTree(PathBuf::from(&arguments[3])));
    let options = LocalOptions::new(PathBuf::from(&arguments[1]), arguments[2].clone(), Vec::new(), images);
    let platform = LocalPlatform::open(options).await.expect("the platform opens");
    println!("open");
    let declaration = Arc::new(service::with_release_command("300ms"));
    let ended = platform.run_task(declaration, service::group(1), Task::ReleaseCommand, Duration::from_secs(60)).await;
    ended.expect("the task passes");
    println!("made");
}
