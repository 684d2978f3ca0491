//! Opens a local platform and a build node on it, then says so and ends without closing it. The recovery tests kill it in the middle.
//!
//! `local_open_bench STATE INSTALLATION IMAGE UPPER`

#[path = "../tests/local/service.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod service;

use gapless_engine::workbench::{BenchRequest, Workbench};
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (state, image, upper) = (PathBuf::from(&arguments[1]), PathBuf::from(&arguments[3]), PathBuf::from(&arguments[4]));
    let images = Arc::new(service::OneTree(image.clone()));
    let options = LocalOptions::new(state.clone(), arguments[2].clone(), Vec::new(), images);
    let platform = LocalPlatform::open(options).await.expect("the platform opens");
    println!("open");
    let request = BenchRequest {
        name: "build-1".to_string(),
        layers: vec![image],
        log: upper.with_extension("log"),
        upper,
        command: [service::PROGRAM, "serve", "22"].map(str::to_string).to_vec(),
        files: BTreeMap::new(),
    };
    platform.open(request).await.expect("the build node is opened");
    println!("made");
}
