//! Notices that the files of certificates were replaced.

use super::{Certificates, Sources};
use crate::sync::lock;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;

/// How often the files are looked at. A look is one `stat` for each file; whoever replaced one does not wait longer than for a command to answer.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file system may give two writes within this time the same stamp; the coarsest that is in use (FAT) counts in steps of 2 s.
const STAMP_GRAIN: Duration = Duration::from_secs(2);

/// How a file looks from outside. A file that was renamed into its place is another inode; one that was written in place has another time or size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<Seen>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970.
    written: (i64, i64),
}

impl Stamp {
    /// The stamps of all files, in the order of the settings.
    pub(super) fn of_all(sources: &Sources) -> Vec<Self> {
        let files = sources.given.iter().chain(&sources.ordered);
        files.flat_map(|files| [Self::of(&files.chain), Self::of(&files.key)]).collect()
    }

    /// Follows links: many tools keep versions of a certificate, and a link to the one that counts.
    fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|seen| Seen {
            device: seen.dev(),
            inode: seen.ino(),
            size: seen.size(),
            written: (seen.mtime(), seen.mtime_nsec()),
        }))
    }
}

/// Whether a file could be written once more and still look as it does.
pub(super) fn unsettled(stamps: &[Stamp], now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let fresh = |seen: &Seen| u64::try_from(seen.written.0).is_ok_and(|written| written.abs_diff(now) <= STAMP_GRAIN.as_secs());
    stamps.iter().filter_map(|stamp| stamp.0.as_ref()).any(fresh)
}

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What is in force stands in the files.
    Same,
    /// New certificates came in force: so many.
    Reloaded(usize),
    /// What stands in the files cannot be used, for now: the old set stays in force, and the next look tries again.
    Kept,
}

/// Keeps certificates as their files are.
#[derive(Debug)]
pub(crate) struct Watch {
    certificates: Arc<Certificates>,
    /// What the last look could not use, so that it is told once and not at each look.
    pub(super) told: Option<String>,
}

impl Watch {
    /// A watch on the files of these certificates; also when other files are named later.
    pub(crate) fn new(certificates: Arc<Certificates>) -> Self {
        Self { certificates, told: None }
    }

    /// Looks in intervals of one second and never ends. To stop it, drop it.
    pub(crate) async fn run(mut self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.look();
        }
    }

    /// Looks once. A chain and a key that are replaced one after the other do not fit in between; that lasts until a look finds both.
    pub(crate) fn look(&mut self) -> Look {
        let set = self.certificates.current();
        let stamps = Stamp::of_all(&lock(&self.certificates.sources));
        if stamps == set.stamps && !set.unsettled {
            self.told = None;
            return Look::Same;
        }
        match self.certificates.reload() {
            Ok(changed) => {
                self.told = None;
                if changed == 0 {
                    return Look::Same;
                }
                tracing::info!(certificates = changed, "new certificates are in force");
                Look::Reloaded(changed)
            }
            Err(error) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    let hint = error.hint_text().unwrap_or_default();
                    tracing::warn!(%error, hint, "new certificates cannot be used; the old ones stay in force until a look finds usable ones");
                    self.told = Some(text);
                }
                Look::Kept
            }
        }
    }
}
