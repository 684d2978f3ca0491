//! Provision layers from test to test: Packer takes long and has tests of its own, the others need only what it makes.
//!
//! A layer is known by the content of its inputs, so a fresh installation that is given one takes it for its own.

use crate::installation::target;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Gives a fresh state folder the layers that are kept.
pub fn give(state: &Path) {
    copy_all(&kept(), state);
}

/// Keeps the layers of a state folder.
pub fn keep(state: &Path) {
    copy_all(state, &kept());
}

fn kept() -> PathBuf {
    target().join("provisioned")
}

/// Copies records and their layers; the record last, so that whoever finds it finds the layer too.
fn copy_all(from: &Path, to: &Path) {
    let records = fs::read_dir(from.join("build")).into_iter().flatten().flatten().map(|entry| entry.path());
    for record in records.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let Some(blob) = fs::read(&record).ok().and_then(|text| layer(&text)) else { continue };
        let blob = Path::new("images/blobs/sha256").join(blob);
        let record = record.strip_prefix(from).expect("a file of the folder").to_path_buf();
        for file in [blob, record] {
            if !to.join(&file).exists() && from.join(&file).exists() {
                copy(&from.join(&file), &to.join(&file));
            }
        }
    }
}

/// The digits of the layer that a record names.
fn layer(record: &[u8]) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    record["layer"].as_str()?.strip_prefix("sha256:").map(str::to_owned)
}

/// A copy that is there whole or not at all: tests run at the same time.
fn copy(from: &Path, to: &Path) {
    let folder = to.parent().expect("a file in a folder");
    fs::create_dir_all(folder).expect("making a folder for layers");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unfinished = folder.join(format!(".{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::copy(from, &unfinished).and_then(|_| fs::rename(&unfinished, to)).expect("copying a layer");
}
