//! A backup of an installation: all that an empty machine needs to go on with it.
//!
//! The database (journal, declarations, artifacts, receipts), the installation's id, its keys, what came of tasks, so that none is run twice, and the blobs of its artifacts: images
//! and lists of packages. Unpacked trees, cached layers and base systems are made again; volumes are the applications' own data, and only they know when theirs is whole.

use super::installation;
use gapless_core::digest::Digest;
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::store::{Artifact, Records};
use gapless_images::artifact::OCI_IMAGE;
use gapless_images::blob::BlobStore;
use gapless_images::manifest::Manifest;
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::{RESULTS_FOLDER, begun_tasks, copy_results};
use gapless_store::archive::{self, About, Contents, Source};
use gapless_store::{DATABASE_FILE, SqliteStore, StateLock};
use gapless_wire::backup::Backup;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The folder of blobs in the state folder.
const BLOBS: &str = "images/blobs/sha256";

/// The folder of keys in the state folder.
const KEYS: &str = "keys";

/// What is made for a backup alone, in the state folder, until that is there: a copy of the database.
const UNFINISHED: &str = "backup.unfinished";

/// How often the database is copied until no task begins meanwhile: a copy takes a second, and a task begins once in a rollout.
const COPY_TRIES: u32 = 5;

/// Where earlier versions had the copy, with the number of their process.
const EARLIER_COPY: &str = "backup.db.";

/// Makes a backup, one at a time. The store, which holds the state folder's lock, goes on being written meanwhile. No blob that an artifact names may be freed until it is there.
///
/// # Errors
/// As [`gapless_server::parts::Host::back_up`].
pub fn make(store: &SqliteStore, images: &ImageStore, state: &Path, file: &Path) -> Result<Backup, Error> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    remove_unfinished(state)?;
    let unfinished = Unfinished::make(state)?;
    let copy = unfinished.0.join(DATABASE_FILE);
    let begun = copy_database(store, state, &copy)?;
    let mut sources = vec![Source { path: DATABASE_FILE.into(), from: copy, digest: None }];
    sources.extend(files_of(state)?);
    copy_results(state, &begun, &unfinished.0)?;
    let result = |name: &String| Source { path: format!("{RESULTS_FOLDER}/{name}"), from: unfinished.0.join(name), digest: None };
    sources.extend(begun.iter().map(result).filter(|source| source.from.exists()));
    // Read after the copy: no artifact of the copy is missed.
    let artifacts = store.artifacts(None)?;
    let (blobs, without_image) = blobs_of(&images.blobs, &artifacts)?;
    sources.extend(blobs.into_iter().map(|digest| Source {
        path: format!("{BLOBS}/{}", digest.hex()),
        from: images.blobs.path(digest),
        digest: Some(digest),
    }));
    let id = installation::existing_id(state)?.ok_or_else(|| Error::new(format!("{} is no state folder", state.display())))?;
    let made = SystemClock::default().now();
    let contents = archive::write(file, &About { installation: id, made }, &sources)?;
    Ok(Backup { without_image, ..told(file, contents) })
}

/// Copies the database, and gives the tasks that have begun, as both are at one moment. A task that the copy does not know of must not be taken for begun where it is restored: the
/// number of its group is given again there. One that the copy knows of must not be run again.
fn copy_database(store: &SqliteStore, state: &Path, copy: &Path) -> Result<BTreeSet<String>, Error> {
    let mut before = begun_tasks(state)?;
    for _ in 0..COPY_TRIES {
        store.copy_to(copy)?;
        let after = begun_tasks(state)?;
        if after == before {
            return Ok(after);
        }
        fs::remove_file(copy).context(|| format!("removing {}", copy.display()))?;
        before = after;
    }
    Err(Error::new(format!("in each of {COPY_TRIES} copies of the database, a release command or a hook began meanwhile"))
        .hint("make the backup again when fewer rollouts are in progress"))
}

/// As [`make`], when no server runs.
pub fn make_without_server(state: &Path, file: &Path) -> Result<Backup, Error> {
    if !state.join(DATABASE_FILE).exists() {
        return Err(Error::new(format!("there is no installation in {}", state.display()))
            .kind(ErrorKind::NotFound)
            .hint("name the server's state folder with --state"));
    }
    let store = SqliteStore::open(StateLock::acquire(state)?)?;
    make(&store, &ImageStore::open(&state.join("images"))?, state, file)
}

/// Removes what backups left that were broken off. The caller holds the state folder's lock, and no backup is being made.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_unfinished(state: &Path) -> Result<(), Error> {
    let removing = || format!("removing from {} what an earlier backup left", state.display());
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(removing),
    };
    for item in fs::read_dir(state).context(removing)? {
        let item = item.context(removing)?;
        let name = item.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(EARLIER_COPY));
        if process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())) {
            gone(fs::remove_file(item.path()))?;
        }
    }
    gone(fs::remove_dir_all(state.join(UNFINISHED)))
}

/// Puts a backup into an empty state folder.
///
/// # Errors
/// As [`archive::restore`].
pub fn restore(file: &Path, state: &Path) -> Result<Backup, Error> {
    let check = |contents: &Contents| {
        if installation::existing_id(state)?.as_ref() == Some(&contents.about.installation) {
            return Ok(());
        }
        Err(Error::new("the backup holds another installation than it says").kind(ErrorKind::Corrupt).hint("use another backup"))
    };
    Ok(told(file, archive::restore(file, state, check)?))
}

fn told(file: &Path, contents: Contents) -> Backup {
    let Contents { about: About { installation, made }, files, bytes } = contents;
    Backup { file: file.to_path_buf(), installation, made_ms: made.0, files, bytes, without_image: Vec::new() }
}

/// The small files: the installation's id and its keys.
fn files_of(state: &Path) -> Result<Vec<Source>, Error> {
    let mut files = vec![installation::ID.to_string()];
    let keys = state.join(KEYS);
    let reading = || format!("reading {}", keys.display());
    for item in fs::read_dir(&keys).context(reading)? {
        files.push(format!("{KEYS}/{}", item.context(reading)?.file_name().to_string_lossy()));
    }
    files.sort();
    Ok(files.into_iter().map(|path| Source { from: state.join(&path), path, digest: None }).collect())
}

/// The blobs of all images that are kept, the other blobs that their artifacts name, such as lists of packages, and the artifacts whose images are not kept.
fn blobs_of(blobs: &BlobStore, artifacts: &[Artifact]) -> Result<(BTreeSet<Digest>, Vec<String>), Error> {
    let (mut found, mut without) = (BTreeSet::new(), Vec::new());
    for artifact in artifacts {
        let name = || format!("{} {}", artifact.name, artifact.version);
        let named = artifact.metadata.values().filter_map(|value| value.parse().ok());
        found.extend(named.filter(|digest| blobs.contains(*digest)));
        if artifact.kind != OCI_IMAGE {
            continue;
        }
        if !blobs.contains(artifact.image) {
            without.push(name());
            continue;
        }
        let manifest = Manifest::read(blobs, artifact.image).context(|| format!("reading the image of {}", name()))?;
        found.insert(artifact.image);
        found.extend(manifest.blobs()?);
    }
    Ok((found, without))
}

/// The folder of what is made for a backup alone, which goes when it is not needed any more.
struct Unfinished(PathBuf);

impl Unfinished {
    fn make(state: &Path) -> Result<Self, Error> {
        let folder = state.join(UNFINISHED);
        fs::DirBuilder::new().mode(0o700).create(&folder).context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What is left is removed at the next start, or before the next backup.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::release::ArtifactVersion;
    use gapless_engine::store::NewArtifact;
    use gapless_images::blob::digest_of;
    use std::collections::BTreeMap;

    struct Scratch {
        folder: tempfile::TempDir,
        store: SqliteStore,
        images: ImageStore,
    }

    impl Scratch {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let state = installation::folder(&folder.path().join("state")).expect("a state folder");
            installation::id(&state).expect("an id");
            fs::create_dir(state.join(KEYS)).expect("a folder of keys");
            fs::write(state.join(KEYS).join("receipt.key"), "secret").expect("a key");
            let store = SqliteStore::open(StateLock::acquire(&state).expect("the lock")).expect("a store");
            let images = ImageStore::open(&state.join("images")).expect("images");
            Self { folder, store, images }
        }

        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        fn make(&self, name: &str) -> Result<Backup, Error> {
            make(&self.store, &self.images, &self.state(), &self.folder.path().join(name))
        }

        fn restored(&self, name: &str) -> PathBuf {
            let state = self.folder.path().join(format!("{name}-restored"));
            restore(&self.folder.path().join(name), &state).expect("restored");
            state
        }
    }

    #[test]
    fn two_backups_at_once_are_both_whole() {
        let scratch = Scratch::new();
        scratch.store.put_value("name", "value").expect("put");
        let names: Vec<String> = (0..4).map(|number| format!("{number}.tar")).collect();
        std::thread::scope(|scope| {
            let made: Vec<_> = names.iter().map(|name| scope.spawn(|| scratch.make(name))).collect();
            made.into_iter().for_each(|made| drop(made.join().expect("it ended").expect("a backup")));
        });
        for name in &names {
            let store = SqliteStore::open(StateLock::acquire(&scratch.restored(name)).expect("the lock")).expect("a store");
            assert_eq!(store.value("name").expect("read").as_deref(), Some("value"));
        }
        assert!(!scratch.state().join(UNFINISHED).exists());
    }

    #[test]
    fn what_a_backup_left_that_was_broken_off_is_removed() {
        let scratch = Scratch::new();
        let state = scratch.state();
        fs::create_dir(state.join(UNFINISHED)).expect("a folder");
        for name in ["backup.unfinished/gapless.db", "backup.db.4711", "backup.db.mine", "backup.tar"] {
            fs::write(state.join(name), "something").expect("written");
        }
        scratch.make("backup.tar").expect("a backup");
        let left = |name: &&str| state.join(name).exists();
        let names = [UNFINISHED, "backup.db.4711", "backup.db.mine", "backup.tar"];
        assert_eq!(names.iter().filter(|name| left(name)).collect::<Vec<_>>(), [&"backup.db.mine", &"backup.tar"], "people's files stay");
    }

    #[test]
    fn lists_of_packages_belong_to_a_backup() {
        let scratch = Scratch::new();
        let list = scratch.images.blobs.put_bytes(b"apache2 2.4").expect("put");
        let artifact = NewArtifact {
            name: "hello/web".into(),
            kind: OCI_IMAGE.into(),
            image: Digest([9; 32]),
            published: gapless_core::time::Instant(1),
            metadata: BTreeMap::from([("packages".into(), list.to_string()), ("gone".into(), digest_of(b"gone").to_string())]),
        };
        assert_eq!(scratch.store.publish(artifact).expect("published").version, ArtifactVersion(1));
        let made = scratch.make("backup.tar").expect("a backup");
        assert_eq!(made.without_image, ["hello/web v1"]);
        let blobs = BlobStore::open(scratch.restored("backup.tar").join("images/blobs")).expect("blobs");
        assert_eq!(blobs.read(list).expect("the list"), b"apache2 2.4");
    }

    #[test]
    fn a_task_that_has_begun_is_not_forgotten() {
        let scratch = Scratch::new();
        let (ended, running) = ("hello.web.r1-i1-task-release-command", "hello.web.r2-i2-task-release-command");
        let platform = scratch.state().join("platform");
        fs::create_dir_all(platform.join("results")).expect("a folder");
        fs::create_dir_all(platform.join("tasks").join(running)).expect("a folder");
        let result = r#"{"end":{"exited":0},"what":"migrate","output":"","deadline_ms":1000}"#;
        fs::write(platform.join("results").join(ended), result).expect("written");
        let record = r#"{"address":"10.0.0.2","command":["migrate"],"deadline_ms":1000,"stop_signal":"TERM"}"#;
        for (name, text) in [("task.json", record), ("begun.json", r#"{"boot":"this one"}"#)] {
            fs::write(platform.join("tasks").join(running).join(name), text).expect("written");
        }
        scratch.make("backup.tar").expect("a backup");
        let results = scratch.restored("backup.tar").join(RESULTS_FOLDER);
        assert_eq!(fs::read_to_string(results.join(ended)).expect("its result"), result);
        let unknown = fs::read_to_string(results.join(running)).expect("what stands for its result");
        assert!(unknown.contains(r#""end":"unknown""#), "{unknown}");
    }
}
