//! A backup of an installation: all that an empty machine needs to go on with it.
//!
//! The database (journal, declarations, artifacts, receipts), the installation's id, its keys, and the blobs of the images of its artifacts. Unpacked trees, cached layers and
//! base systems are made again; volumes are the applications' own data, and only they know when theirs is whole.

use super::installation;
use gapless_core::digest::Digest;
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::store::{Artifact, Records};
use gapless_images::artifact::OCI_IMAGE;
use gapless_images::blob::BlobStore;
use gapless_images::manifest::Manifest;
use gapless_images::unpack::ImageStore;
use gapless_store::archive::{self, About, Contents, Source};
use gapless_store::{DATABASE_FILE, SqliteStore, StateLock};
use gapless_wire::backup::Backup;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of blobs in the state folder.
const BLOBS: &str = "images/blobs/sha256";

/// The folder of keys in the state folder.
const KEYS: &str = "keys";

/// The copy of the database that goes into a backup, until it is there.
const COPY: &str = "backup.db";

/// Makes a backup. The store's writers go on meanwhile.
///
/// # Errors
/// As [`gapless_server::parts::Host::back_up`].
pub fn make(store: &SqliteStore, images: &ImageStore, state: &Path, file: &Path) -> Result<Backup, Error> {
    let copy = Temporary(state.join(format!("{COPY}.{}", std::process::id())));
    let _ = fs::remove_file(&copy.0);
    store.copy_to(&copy.0)?;
    let mut sources = vec![Source { path: DATABASE_FILE.into(), from: copy.0.clone(), digest: None }];
    sources.extend(files_of(state)?);
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

/// The blobs of all images that are kept, and the artifacts whose images are not.
fn blobs_of(blobs: &BlobStore, artifacts: &[Artifact]) -> Result<(BTreeSet<Digest>, Vec<String>), Error> {
    let (mut found, mut without) = (BTreeSet::new(), Vec::new());
    for artifact in artifacts.iter().filter(|artifact| artifact.kind == OCI_IMAGE) {
        let name = || format!("{} {}", artifact.name, artifact.version);
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

/// A file that is removed when it is not needed any more.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
