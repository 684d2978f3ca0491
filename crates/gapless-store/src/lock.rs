//! One writer at a time: the lock of a state folder.

use gapless_engine::error::{Context, Error, ErrorKind};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The lock file's name in the state folder.
pub(crate) const LOCK_FILE: &str = "server.lock";

/// What is read of a lock file at most: a process id and a date are far shorter.
const HOLDER_LIMIT: u64 = 256;

/// Holds a state folder for this process. The kernel gives it up when the process ends, in whatever way; programs that the process starts do not inherit it.
#[derive(Debug)]
pub struct StateLock {
    folder: PathBuf,
    _file: File,
}

impl StateLock {
    /// Takes the lock of a state folder, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when another process holds it (with that process's id and start), and when the file cannot be opened.
    pub fn acquire(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).context(|| format!("opening the lock file {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(&mut file, folder)),
            Err(error) => return Err(std::io::Error::from(error)).context(|| format!("locking {}", path.display())),
        }
        // Who holds it is only for people: on a full disk the server must start all the same.
        let _ = write_holder(&mut file);
        Ok(Self { folder: folder.to_path_buf(), _file: file })
    }

    /// The folder that is held.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    file.set_len(0)?;
    writeln!(file, "process {}, started {}", std::process::id(), date(since_epoch.as_secs()))
}

fn held(file: &mut File, folder: &Path) -> Error {
    let mut holder = String::new();
    let read = file.take(HOLDER_LIMIT).read_to_string(&mut holder);
    let holder = match (read, holder.trim()) {
        (Ok(_), holder) if !holder.is_empty() => holder.to_string(),
        _ => "of which nothing more is known".to_string(),
    };
    Error::new(format!("another gapless server ({holder}) uses the state folder {}", folder.display()))
        .kind(ErrorKind::Invalid)
        .hint("stop that server first, or give this one another folder with --state")
}

/// Seconds since the Unix epoch as a date and time in UTC, after Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, written) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_767_225_600, "2026-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), written);
        }
    }
}
