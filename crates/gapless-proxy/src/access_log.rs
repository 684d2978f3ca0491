//! The access log: a line of JSON for each request that was somebody's. Cores gather lines, and one thread writes them, so that a slow disk holds no request up; what it cannot take is counted.

use crate::account::Closed;
use crate::error::ProxyError;
use crate::record::wall_clock;
use crate::request::{Client, Inbound};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// A core hands its lines over when they are so many bytes, or some 250 ms old.
pub(crate) const BATCH: usize = 32 * 1024;
/// So many batches may wait to be written: 8 MiB. When the disk is slower for longer, lines are lost and counted.
const BATCHES: usize = 256;
/// How often the writer looks whether the file was moved away.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// An access log that is open.
#[derive(Debug)]
pub(crate) struct AccessLog {
    path: PathBuf,
    batches: SyncSender<(Vec<u8>, u64)>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens a log. Its thread ends when the log is dropped and its last line is written.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: &Path, lost: Arc<AtomicU64>) -> Result<Self, ProxyError> {
        let told =
            |error: &std::io::Error| ProxyError::path("open the access log", path, error).hint("its folder must exist and be writable");
        let file = append(path).map_err(|error| told(&error))?;
        let (batches, waiting) = sync_channel(BATCHES);
        let (thread_path, thread_lost) = (path.to_path_buf(), lost.clone());
        std::thread::Builder::new()
            .name("access-log".to_string())
            .spawn(move || write(&waiting, file, &thread_path, &thread_lost))
            .map_err(|error| told(&error))?;
        Ok(Self { path: path.to_path_buf(), batches, lost })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Hands lines over, so many of them.
    pub(crate) fn send(&self, batch: Vec<u8>, lines: u64) {
        if self.batches.try_send((batch, lines)).is_err() {
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

fn write(waiting: &Receiver<(Vec<u8>, u64)>, mut file: File, path: &Path, lost: &AtomicU64) {
    let mut looked = Instant::now();
    let mut is_told = false;
    while let Ok((batch, lines)) = waiting.recv() {
        if looked.elapsed() > LOOK_INTERVAL {
            looked = Instant::now();
            if was_moved(&file, path)
                && let Ok(fresh) = append(path)
            {
                file = fresh;
            }
        }
        if let Err(error) = file.write_all(&batch) {
            lost.fetch_add(lines, Ordering::Relaxed);
            if !std::mem::replace(&mut is_told, true) {
                tracing::error!(path = %path.display(), %error, "the access log cannot be written; lines are lost and counted");
            }
        }
    }
}

fn was_moved(file: &File, path: &Path) -> bool {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(place) != std::fs::metadata(path).ok().map(place)
}

/// A line. The names stand in `docs/reference/access-log.md`.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: &'a str,
    service: &'a str,
    method: &'a str,
    host: &'a str,
    target: std::borrow::Cow<'a, str>,
    protocol: &'static str,
    status: u16,
    bytes: u64,
    duration_us: u64,
    release: &'a str,
    node: &'a str,
    request_id: std::borrow::Cow<'a, str>,
    user_agent: std::borrow::Cow<'a, str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    retried: bool,
    held: bool,
}

/// Writes the line of a request that ended.
pub(crate) fn write_line(out: &mut Vec<u8>, client: &Client, inbound: &Inbound, closed: &Closed) {
    let line = Line {
        time: humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + wall_clock()).to_string(),
        client: client.peer(),
        service: &closed.service,
        method: inbound.method.as_str(),
        host: &inbound.host,
        target: String::from_utf8_lossy(inbound.target()),
        protocol: inbound.protocol.name(),
        status: closed.status,
        bytes: closed.bytes,
        duration_us: closed.duration_us,
        release: &closed.release,
        node: &closed.node,
        request_id: String::from_utf8_lossy(inbound.request_id()),
        user_agent: String::from_utf8_lossy(inbound.user_agent()),
        outcome: closed.outcome,
        cause: closed.cause,
        retried: closed.retried,
        held: closed.held,
    };
    // Writing into memory does not fail.
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
    }
}
