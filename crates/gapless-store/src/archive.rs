//! A backup as one file: a tar whose first entry says what all the others must be, so that a restored folder is what was backed up, or is not there.

use crate::lock::{LOCK_FILE, StateLock};
use crate::sqlite::DATABASE_FILE;
use gapless_core::digest::Digest;
use gapless_core::time::Instant;
use gapless_engine::error::{Context, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// The version in which backups are written.
const VERSION: u32 = 1;

/// The first entry.
const MANIFEST: &str = "gapless-backup.json";

/// The most that is read of a manifest, in bytes: two hundred thousand files.
const MANIFEST_LIMIT: u64 = 64 * 1024 * 1024;

/// A reader's and a writer's memory, in bytes: large enough that the disk is what takes the time.
const BUFFER: usize = 256 * 1024;

/// The database's name until everything of a restore is there and durable.
const UNFINISHED: &str = "gapless.db.unfinished";

const DAMAGED: &str = "use another backup, and look after the disk that this one was on";

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The installation's short unique id.
    pub installation: String,
    /// When it was made.
    pub made: Instant,
}

/// A file that belongs into a backup.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its place in the state folder.
    pub path: String,
    /// Where it is read from.
    pub from: PathBuf,
    /// What it must be, where that is known.
    pub digest: Option<Digest>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it is of.
    pub about: About,
    /// How many files.
    pub files: usize,
    /// What they are together, in bytes.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    installation: String,
    made_ms: u64,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    bytes: u64,
    digest: String,
}

/// All that is read of a manifest of any version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Manifest {
    fn contents(&self) -> Contents {
        let about = About { installation: self.installation.clone(), made: Instant(self.made_ms) };
        Contents { about, files: self.files.len(), bytes: self.files.iter().map(|entry| entry.bytes).sum() }
    }
}

/// Writes a backup that only its owner may read. It gets its name when it is whole and durable.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is such a file already, [`ErrorKind::NoRoom`] when the disk is full, [`ErrorKind::Corrupt`] when a source is not what it must be. Nothing is
/// left then.
pub fn write(file: &Path, about: &About, sources: &[Source]) -> Result<Contents, Error> {
    let named = || format!("writing the backup {}", file.display());
    if fs::symlink_metadata(file).is_ok() {
        return Err(Error::new("there is such a file already").kind(ErrorKind::Invalid).hint("name another file").context(named()));
    }
    let name = file.file_name().ok_or_else(|| Error::new("it names no file").kind(ErrorKind::Invalid).context(named()))?;
    let unfinished = file.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
    let written = write_to(&unfinished, about, sources).and_then(|contents| {
        fs::rename(&unfinished, file).context(|| "naming it".to_string())?;
        sync_folder(file.parent().unwrap_or(Path::new("/")))?;
        Ok(contents)
    });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written.context(named)
}

fn write_to(file: &Path, about: &About, sources: &[Source]) -> Result<Contents, Error> {
    let manifest = manifest(about, sources)?;
    let text = serde_json::to_vec(&manifest).map_err(|error| Error::new(format!("its manifest: {error}")))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).context(|| "making it".to_string())?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(BUFFER, opened));
    append(&mut archive, MANIFEST, text.len() as u64, &text[..])?;
    for (source, entry) in sources.iter().zip(&manifest.files) {
        let mut reader = Hashing::new(open(&source.from)?);
        append(&mut archive, &entry.path, entry.bytes, (&mut reader).take(entry.bytes))?;
        let found = reader.digest();
        if found.to_string() != entry.digest {
            return Err(Error::new(format!("{} has the digest {found} and should have {}", source.from.display(), entry.digest))
                .kind(ErrorKind::Corrupt)
                .hint("`gapless doctor` looks for what is damaged; an image is built again from its commit"));
        }
    }
    let flushed = archive.into_inner().and_then(|buffered| buffered.into_inner().map_err(io::IntoInnerError::into_error));
    flushed.and_then(|file| file.sync_all()).context(|| "making it durable".to_string())?;
    Ok(manifest.contents())
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, bytes: u64, content: impl Read) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    archive.append_data(&mut header, path, content).context(|| format!("adding {path}"))
}

fn manifest(about: &About, sources: &[Source]) -> Result<Manifest, Error> {
    let entry = |source: &Source| {
        let bytes = fs::metadata(&source.from).context(|| format!("looking at {}", source.from.display()))?.len();
        let digest = match source.digest {
            Some(digest) => digest,
            None => {
                let mut reader = Hashing::new(open(&source.from)?);
                io::copy(&mut reader, &mut io::sink()).context(|| format!("reading {}", source.from.display()))?;
                reader.digest()
            }
        };
        Ok(Entry { path: source.path.clone(), bytes, digest: digest.to_string() })
    };
    let files = sources.iter().map(entry).collect::<Result<_, Error>>()?;
    Ok(Manifest { version: VERSION, installation: about.installation.clone(), made_ms: about.made.0, files })
}

/// Puts a backup into an empty folder, which is made if it is not there, and holds the folder's lock meanwhile. `check` looks at what was restored before it is valid. When this returns,
/// every file is there, is what was backed up, and is durable. The database gets its name last: a restore that was broken off leaves none, and [`assert_whole`] tells of it.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the folder is not empty or in use, the file is no backup, or it is of a version that this program does not know; [`ErrorKind::Corrupt`] when it is
/// damaged; what `check` says. What was written is removed again then.
pub fn restore(file: &Path, folder: &Path, check: impl FnOnce(&Contents) -> Result<(), Error>) -> Result<Contents, Error> {
    let named = || format!("restoring the backup {}", file.display());
    let opened = open(file).context(named)?;
    // Before the lock, which leaves its file: nothing is put into a folder that is another's.
    assert_empty(folder).context(named)?;
    let lock = StateLock::acquire(folder).context(named)?;
    assert_empty(lock.folder()).context(named)?;
    let mut written = Written::default();
    let restored = restore_from(opened, folder, &mut written, check);
    if restored.is_err() {
        written.remove().context(|| format!("removing from {} what was restored", folder.display()))?;
    }
    restored.context(named)
}

/// Refuses a state folder in which a restore was broken off.
///
/// # Errors
/// When it was, and when that cannot be seen.
pub fn assert_whole(folder: &Path) -> Result<(), Error> {
    let unfinished = folder.join(UNFINISHED);
    if !unfinished.try_exists().context(|| format!("looking for {}", unfinished.display()))? {
        return Ok(());
    }
    Err(Error::new(format!("{} is not empty: it holds a part of a backup, whose restoring was broken off", folder.display()))
        .kind(ErrorKind::Invalid)
        .hint("remove what is in the folder, then restore the backup again"))
}

fn restore_from(
    file: File,
    folder: &Path,
    written: &mut Written,
    check: impl FnOnce(&Contents) -> Result<(), Error>,
) -> Result<Contents, Error> {
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER, file));
    let mut entries = archive.entries().map_err(|error| damaged(&error))?;
    let manifest = match entries.next() {
        Some(Ok(entry)) if entry.path().is_ok_and(|path| path == Path::new(MANIFEST)) => read_manifest(entry)?,
        _ => return Err(Error::new("it is no backup of gapless").kind(ErrorKind::Invalid).hint("`gapless backup FILE` makes one")),
    };
    if !manifest.files.iter().any(|entry| entry.path == DATABASE_FILE) {
        return Err(damaged(&"it holds no database"));
    }
    // Durable before anything else is there: from here on the folder says itself that it is not whole.
    written
        .make_file(&folder.join(UNFINISHED))
        .and_then(|mark| mark.sync_all())
        .context(|| format!("writing into {}", folder.display()))?;
    sync_folder(folder)?;
    for expected in &manifest.files {
        let entry = entries.next().ok_or_else(|| damaged(&"it ends too early"))?.map_err(|error| damaged(&error))?;
        put(entry, expected, folder, written)?;
    }
    match entries.next() {
        None => {}
        Some(Ok(_)) => return Err(damaged(&"it holds more than its manifest says")),
        Some(Err(error)) => return Err(damaged(&error)),
    }
    let contents = manifest.contents();
    check(&contents)?;
    let synced = File::open(folder).and_then(|folder| rustix::fs::syncfs(folder).map_err(Into::into));
    synced.context(|| format!("syncing {}", folder.display()))?;
    fs::rename(folder.join(UNFINISHED), folder.join(DATABASE_FILE)).context(|| "naming the database".to_string())?;
    sync_folder(folder)?;
    Ok(contents)
}

/// What a restore made, in order.
#[derive(Default)]
struct Written {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Written {
    fn make_file(&mut self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        self.files.push(path.to_path_buf());
        Ok(file)
    }

    /// A folder below `root`, and those between them.
    fn make_folders(&mut self, root: &Path, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().take_while(|folder| *folder != root).collect();
        for folder in above.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => self.folders.push(folder.to_path_buf()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes all of it, and nothing else: what says that it is not whole comes last.
    fn remove(&self) -> io::Result<()> {
        let gone = |removed: io::Result<()>| match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let (mark, files) = self.files.split_first().map_or((None, &[][..]), |(mark, files)| (Some(mark), files));
        files.iter().try_for_each(|file| gone(fs::remove_file(file)))?;
        for folder in self.folders.iter().rev() {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => gone(other)?,
            }
        }
        mark.map_or(Ok(()), |mark| gone(fs::remove_file(mark)))
    }
}

fn read_manifest(entry: impl Read) -> Result<Manifest, Error> {
    let mut text = Vec::new();
    entry.take(MANIFEST_LIMIT).read_to_end(&mut text).map_err(|error| damaged(&error))?;
    let Versioned { version } = serde_json::from_slice(&text).map_err(|error| damaged(&format!("its manifest: {error}")))?;
    if version != VERSION {
        return Err(Error::new(format!("it is of version {version}, and this program knows version {VERSION}"))
            .kind(ErrorKind::Invalid)
            .hint("restore it with the version of gapless that made it, or a newer one"));
    }
    serde_json::from_slice(&text).map_err(|error| damaged(&format!("its manifest: {error}")))
}

fn put(entry: tar::Entry<'_, impl Read>, expected: &Entry, folder: &Path, written: &mut Written) -> Result<(), Error> {
    let path = Path::new(&expected.path);
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_it = entry.path().is_ok_and(|found| found == path) && entry.header().entry_type().is_file();
    if !is_inside || !is_it {
        return Err(damaged(&format!("where {} should be is something else", expected.path)));
    }
    let is_database = expected.path == DATABASE_FILE;
    let place = folder.join(if is_database { Path::new(UNFINISHED) } else { path });
    let writing = || format!("writing {}", place.display());
    if let Some(parent) = place.parent() {
        written.make_folders(folder, parent).context(writing)?;
    }
    let file = if is_database { OpenOptions::new().write(true).truncate(true).open(&place) } else { written.make_file(&place) };
    let file = file.context(writing)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    let mut reader = Hashing::new(entry);
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let length = reader.read(&mut buffer).map_err(|error| damaged(&error))?;
        if length == 0 {
            break;
        }
        writer.write_all(&buffer[..length]).context(writing)?;
        bytes += length as u64;
    }
    writer.flush().context(writing)?;
    if bytes == expected.bytes && reader.digest().to_string() == expected.digest {
        return Ok(());
    }
    Err(damaged(&format!("{} is not what was backed up", expected.path)))
}

fn assert_empty(folder: &Path) -> Result<(), Error> {
    let reading = || format!("looking at {}", folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context(reading)?;
    assert_whole(folder)?;
    for item in fs::read_dir(folder).context(reading)? {
        // An earlier restore leaves it.
        if item.context(reading)?.file_name() != LOCK_FILE {
            return Err(Error::new(format!("{} is not empty", folder.display()))
                .kind(ErrorKind::Invalid)
                .hint("restore into an empty folder: name another one with --state, or move away what is there"));
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).context(|| format!("opening {}", path.display()))
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|opened| opened.sync_all()).context(|| format!("syncing {}", folder.display()))
}

fn damaged(why: &dyn std::fmt::Display) -> Error {
    Error::new(format!("it is damaged: {why}")).kind(ErrorKind::Corrupt).hint(DAMAGED)
}

/// A reader that hashes what passes.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    fn digest(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let items = fs::read_dir(folder).expect("the folder").map(|item| item.expect("an item").file_name());
        let mut names: Vec<String> = items.map(|name| name.into_string().expect("a name in UTF-8")).collect();
        names.sort();
        names
    }

    struct Scratch {
        folder: tempfile::TempDir,
        about: About,
        sources: Vec<Source>,
    }

    impl Scratch {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let about = About { installation: "0a1b2c".into(), made: Instant(1_767_225_600_000) };
            let source = |(path, content): (&str, &[u8])| {
                let from = folder.path().join(path.replace('/', "-"));
                fs::write(&from, content).expect("a source");
                Source { path: path.into(), from, digest: None }
            };
            let sources = [("gapless.db", &b"the journal"[..]), ("keys/receipt.key", b"secret"), ("images/blobs/sha256/00", &[7; 5_000])];
            let sources = sources.map(source).to_vec();
            Self { folder, about, sources }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self) -> PathBuf {
            let file = self.path("backup.tar");
            let contents = write(&file, &self.about, &self.sources).expect("a backup");
            assert_eq!((contents.files, contents.bytes), (3, 5_017));
            file
        }

        fn refused(&self, file: &Path) -> Error {
            let folder = self.path("restored");
            let error = restore(file, &folder, |_| Ok(())).expect_err("it was restored");
            assert!(error.hint_text().is_some(), "{error}");
            assert_eq!(names(&folder), [LOCK_FILE], "something was left");
            error
        }
    }

    #[test]
    fn what_was_backed_up_is_restored() {
        let scratch = Scratch::new();
        let file = scratch.write();
        assert_eq!(fs::metadata(&file).expect("the backup").permissions().mode() & 0o777, 0o600);
        let folder = scratch.path("restored");
        let contents = restore(&file, &folder, |_| Ok(())).expect("restored");
        assert_eq!(contents.about, scratch.about);
        for source in &scratch.sources {
            let place = folder.join(&source.path);
            assert_eq!(fs::read(&place).expect("restored"), fs::read(&source.from).expect("its source"));
            assert_eq!(fs::metadata(&place).expect("restored").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&folder).expect("the folder").permissions().mode() & 0o777, 0o700);
        let error = restore(&file, &folder, |_| Ok(())).expect_err("it is not empty");
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read(folder.join("gapless.db")).expect("untouched"), b"the journal");
    }

    /// Any byte, and any end: what comes back is what was there, or nothing.
    #[test]
    fn a_damaged_backup_leaves_nothing() {
        let scratch = Scratch::new();
        let file = scratch.write();
        let whole = fs::read(&file).expect("the backup");
        let mut refused = 0;
        for place in (0..whole.len()).step_by(37) {
            let mut changed = whole.clone();
            changed[place] ^= 0x10;
            fs::write(&file, changed).expect("damage");
            let folder = scratch.path("restored");
            match restore(&file, &folder, |_| Ok(())) {
                Err(_) => {
                    refused += 1;
                    scratch.refused(&file);
                }
                // The tar's own padding, and what is said about owners and times, belongs to nothing.
                Ok(_) => {
                    for source in &scratch.sources {
                        assert_eq!(
                            fs::read(folder.join(&source.path)).expect("restored"),
                            fs::read(&source.from).expect("its source"),
                            "byte {place}"
                        );
                    }
                    fs::remove_dir_all(&folder).expect("removed");
                }
            }
        }
        assert!(refused > 140, "only {refused} changes were seen");
        // A tar ends with two empty blocks: without the last one it is still whole.
        for length in (0..whole.len() - 1024).step_by(61) {
            fs::write(&file, &whole[..length]).expect("an end");
            scratch.refused(&file);
        }
    }

    #[test]
    fn a_restore_that_fails_removes_what_it_wrote_and_nothing_else() {
        let scratch = Scratch::new();
        let file = scratch.write();
        let folder = scratch.path("restored");
        let others = folder.join("keys/other");
        let error = restore(&file, &folder, |contents| {
            assert_eq!(contents.about, scratch.about);
            assert_eq!(names(&folder), [UNFINISHED, "images", "keys", LOCK_FILE], "the database has its name too early");
            let refused = restore(&file, &folder, |_| Ok(())).expect_err("it is in use");
            assert!(refused.to_string().contains("is not empty"), "{refused}");
            fs::write(&others, "of somebody else").expect("written");
            Err(Error::new("it is another installation").kind(ErrorKind::Corrupt))
        });
        assert_eq!(error.expect_err("it failed").error_kind(), ErrorKind::Corrupt);
        assert_eq!(names(&folder), ["keys", LOCK_FILE]);
        assert_eq!(names(&folder.join("keys")), ["other"]);
    }

    #[test]
    fn a_restore_waits_for_no_server_and_disturbs_none() {
        let scratch = Scratch::new();
        let file = scratch.write();
        let folder = scratch.path("restored");
        fs::create_dir(&folder).expect("a folder");
        let _held = StateLock::acquire(&folder).expect("the lock");
        let error = restore(&file, &folder, |_| Ok(())).expect_err("a server has just begun there");
        assert!(error.to_string().contains("another gapless server"), "{error}");
        assert_eq!(names(&folder), [LOCK_FILE]);
    }

    /// As a kill leaves it.
    #[test]
    fn a_restore_that_was_broken_off_is_told() {
        let scratch = Scratch::new();
        let file = scratch.write();
        let folder = scratch.path("restored");
        let broken_off = std::panic::catch_unwind(|| restore(&file, &folder, |_| panic!("it is killed")));
        assert!(broken_off.is_err());
        assert_eq!(names(&folder), [UNFINISHED, "images", "keys", LOCK_FILE]);
        for error in [assert_whole(&folder), restore(&file, &folder, |_| Ok(())).map(drop)].map(|told| told.expect_err("it is not whole")) {
            assert!(error.to_string().contains("was broken off") && error.hint_text().is_some(), "{error}");
        }
        assert!(!folder.join(DATABASE_FILE).exists());
        fs::remove_dir_all(&folder).expect("removed");
        restore(&file, &folder, |_| Ok(())).expect("restored");
        assert_whole(&folder).expect("whole");
    }

    #[test]
    fn what_is_no_backup_or_of_another_version_is_refused() {
        let scratch = Scratch::new();
        let file = scratch.path("backup.tar");
        fs::write(&file, [b'x'; 2_000]).expect("a file");
        assert!(scratch.refused(&file).to_string().contains("it is no backup of gapless"));
        let mut archive = tar::Builder::new(File::create(&file).expect("a file"));
        let text = br#"{"version": 2, "what": "nobody knows"}"#;
        append(&mut archive, MANIFEST, text.len() as u64, &text[..]).expect("added");
        archive.finish().expect("written");
        let error = scratch.refused(&file);
        assert_eq!(error.error_kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("of version 2"), "{error}");
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let scratch = Scratch::new();
        let file = scratch.path("backup.tar");
        let mut archive = tar::Builder::new(File::create(&file).expect("a file"));
        let digest = Digest(Sha256::digest(b"x").into());
        let text =
            format!(r#"{{"version":1,"installation":"0a1b2c","made_ms":1,"files":[{{"path":"../out","bytes":1,"digest":"{digest}"}}]}}"#);
        append(&mut archive, MANIFEST, text.len() as u64, text.as_bytes()).expect("added");
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.as_old_mut().name[..6].copy_from_slice(b"../out");
        header.set_cksum();
        archive.append(&header, &b"x"[..]).expect("added");
        archive.finish().expect("written");
        scratch.refused(&file);
        assert!(!scratch.path("out").exists());
    }

    #[test]
    fn a_source_that_is_not_what_it_must_be_is_told_and_leaves_no_backup() {
        let mut scratch = Scratch::new();
        scratch.sources[2].digest = Some(Digest([9; 32]));
        let file = scratch.path("backup.tar");
        let error = write(&file, &scratch.about, &scratch.sources).expect_err("it is corrupt");
        assert_eq!(error.error_kind(), ErrorKind::Corrupt);
        assert!(
            !fs::read_dir(scratch.folder.path())
                .expect("the folder")
                .flatten()
                .any(|item| item.file_name().to_string_lossy().contains("backup"))
        );
        scratch.sources[2].digest = None;
        let file = scratch.write();
        let error = write(&file, &scratch.about, &scratch.sources).expect_err("there is one");
        assert_eq!(error.error_kind(), ErrorKind::Invalid);
    }
}
