//! Opens a local platform and ensures a group of nodes, then says so. The recovery tests kill it in the middle.
//!
//! `local_ensure_group STATE INSTALLATION IMAGE`

#[path = "../tests/local/service.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod service;

use gapless_engine::platform::Platform;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let images = Arc::new(service::OneTree(PathBuf::from(&arguments[3])));
    let options = LocalOptions::new(PathBuf::from(&arguments[1]), arguments[2].clone(), Vec::new(), images);
    let platform = LocalPlatform::open(options).await.expect("the platform opens");
    println!("open");
    platform.ensure_group(Arc::new(service::serving()), service::group(1), 2).await.expect("the group is made");
    println!("made");
}
