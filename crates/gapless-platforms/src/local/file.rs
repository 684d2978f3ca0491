//! Small files that must be whole or not there.

use gapless_engine::error::{Context, Error, ErrorKind};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a value as JSON, whole or not at all, and durable before this returns.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    write_by_way_of(path, ".new", value)
}

/// As [`write`], for what two may write at the same time, as two lives of the server do: each has a draft of its own, and the one that is renamed last stays.
pub fn write_shared<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let draft = format!(".{}-{}.new", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    write_by_way_of(path, &draft, value)
}

fn write_by_way_of(path: &Path, draft: &str, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::new(error.to_string()).context(format!("writing {}", path.display())))?;
    write_bytes(path, draft, &text).context(|| format!("writing {}", path.display()))
}

fn write_bytes(path: &Path, draft: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.as_os_str().to_os_string();
    name.push(draft);
    let written = write_draft(Path::new(&name), bytes).and_then(|()| fs::rename(&name, path));
    if written.is_err() {
        // On a full disk every try would leave one more. What failed is told, not this.
        let _ = fs::remove_file(&name);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_draft(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a value; `None` when there is no such file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("reading {}", path.display()))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Error::new(error.to_string()).kind(ErrorKind::Corrupt).context(format!("reading {}", path.display())))
}

/// The last bytes of a file, from the beginning of a line; empty if there is none.
pub fn tail(path: &Path, limit: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit as u64)))?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(last_lines(&bytes, length > limit as u64))
    };
    read().unwrap_or_default()
}

/// These bytes as text, from the beginning of a line if something before them `is_cut` off.
pub fn last_lines(bytes: &[u8], is_cut: bool) -> String {
    let begin = if is_cut { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1) } else { 0 };
    String::from_utf8_lossy(&bytes[begin..]).trim_end().to_string()
}

/// A folder and those above it. What is made gets this mode; what is there stays as it is.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).context(|| format!("making the folder {}", path.display()))
}

/// Sets the mode of a file or folder, whatever the process's mask is.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).context(|| format!("setting the mode of {}", path.display()))
}

/// Removes a folder and all below it; it may be gone already.
pub fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("removing {}", path.display())),
    }
}

/// Whether there is something of this name. What cannot be looked at is not taken for gone.
pub fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().context(|| format!("looking for {}", path.display()))
}

/// The names in a folder; none if it is not there.
pub fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("listing {}", path.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // One that cannot be read is not left out: whoever lists may take what is not named for gone. A name that is no text is none of ours.
        names.extend(entry.context(|| format!("listing {}", path.display()))?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// What is mounted, as this process sees it (proc(5), `mountinfo`). A mount's name may be any bytes, also somebody else's that is no text.
///
/// # Errors
/// When it cannot be read: that nothing is mounted does not follow.
pub fn mountinfo() -> Result<String, Error> {
    let text = fs::read("/proc/self/mountinfo").context(|| "reading what is mounted".into())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_with_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "first line\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&path, 12), "third");
        assert_eq!(tail(&path, 1000), "first line\nsecond\nthird");
        assert_eq!(tail(&folder.path().join("none"), 10), "");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(!exists(&path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(exists(&path).unwrap());
        // A file stands where a folder should be.
        assert!(exists(&path.join("below")).is_err());
        assert!(names(&path).is_err());
        assert_eq!(names(folder.path()).unwrap(), ["file"]);
        assert_eq!(names(&folder.path().join("none")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        fs::create_dir_all(path.join("below")).unwrap();
        for write in [write::<u32>, write_shared::<u32>] {
            assert!(write(&path, &7).is_err(), "a folder that is not empty was replaced by a file");
            assert_eq!(names(folder.path()).unwrap(), ["value.json"]);
        }
    }

    #[test]
    fn a_value_is_read_back_and_a_broken_file_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7_u32).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(7));
        fs::write(&path, "{").unwrap();
        assert_eq!(read::<u32>(&path).unwrap_err().error_kind(), ErrorKind::Corrupt);
    }
}
