//! The manifest of an unpacked tree: what must be there, so that a tree that was changed behind our back is refused.

use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What an unpacked tree must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeManifest {
    /// What was added to every owner.
    pub shift: u32,
    /// By path, relative to the tree.
    pub entries: BTreeMap<String, TreeEntry>,
}

/// One thing of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner in the node.
    pub user: u32,
    /// Group in the node.
    pub group: u32,
    /// How it looked when it was unpacked.
    pub stamp: Stamp,
}

/// What a thing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// A folder.
    Folder {
        /// Whether it hides what lower layers have in it.
        opaque: bool,
    },
    /// A file.
    File {
        /// Of its content.
        digest: String,
        /// In bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// Hides what lower layers have under this name.
    Whiteout,
}

/// Inode and time of the last change of anything about it. The kernel sets this time and nobody else can: what has its old stamp was not touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The inode's number.
    pub inode: u64,
    /// Seconds since the Unix epoch.
    pub changed_seconds: i64,
    /// And nanoseconds.
    pub changed_nanoseconds: i64,
}

/// How thoroughly a tree is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What still has its stamp is trusted: some milliseconds, done before each use.
    Stamps,
    /// Every byte is read: finds also what the disk itself has lost.
    Contents,
}

impl Stamp {
    /// The stamp of what is there now.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), changed_seconds: metadata.ctime(), changed_nanoseconds: metadata.ctime_nsec() }
    }
}

impl TreeEntry {
    pub(crate) fn new(kind: Kind, mode: u32, user: u32, group: u32) -> Self {
        Self { kind, mode, user, group, stamp: Stamp::default() }
    }
}

impl TreeManifest {
    /// Compares the tree at `root` with this manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the first difference, and when the tree cannot be read.
    pub fn check(&self, root: &Path, depth: Depth) -> Result<(), Error> {
        self.check_names(root, "")?;
        for (path, entry) in &self.entries {
            let place = root.join(path);
            let metadata = match place.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(tampered(&place, "it is gone")),
                Err(error) => return Err(error).context(|| format!("looking at {}", place.display())),
            };
            if depth == Depth::Stamps && Stamp::of(&metadata) == entry.stamp {
                continue;
            }
            self.check_entry(&place, entry, &metadata)?;
            if matches!(entry.kind, Kind::Folder { .. }) {
                self.check_names(root, path)?;
            }
        }
        Ok(())
    }

    fn check_entry(&self, place: &Path, entry: &TreeEntry, metadata: &Metadata) -> Result<(), Error> {
        let kind = metadata.file_type();
        let kind_is_right = match &entry.kind {
            Kind::Folder { .. } => kind.is_dir(),
            Kind::File { size, .. } => kind.is_file() && metadata.len() == *size,
            Kind::Link { .. } => kind.is_symlink(),
            Kind::Whiteout => {
                return if kind.is_char_device() && metadata.rdev() == 0 {
                    Ok(())
                } else {
                    Err(tampered(place, "it is no whiteout any more"))
                };
            }
        };
        if !kind_is_right {
            return Err(tampered(place, "its kind or length changed"));
        }
        if (metadata.uid(), metadata.gid()) != (entry.user + self.shift, entry.group + self.shift) {
            return Err(tampered(place, "its owner changed"));
        }
        match &entry.kind {
            Kind::Link { target } => {
                let found = fs::read_link(place).context(|| format!("reading {}", place.display()))?;
                if found != Path::new(target) {
                    return Err(tampered(place, "its target changed"));
                }
                return Ok(());
            }
            Kind::File { digest, .. } if digest_of_file(place)?.to_string() != *digest => {
                return Err(tampered(place, "its content changed"));
            }
            _ => {}
        }
        if metadata.mode() & 0o7777 != entry.mode {
            return Err(tampered(place, "its mode changed"));
        }
        Ok(())
    }

    /// A folder may hold nothing beside what the manifest names.
    fn check_names(&self, root: &Path, folder: &str) -> Result<(), Error> {
        let place = root.join(folder);
        let reading = || format!("reading the folder {}", place.display());
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut unknown = BTreeSet::new();
        for item in fs::read_dir(&place).context(reading)? {
            let name = item.context(reading)?.file_name();
            let known = name.to_str().is_some_and(|name| self.entries.contains_key(&format!("{prefix}{name}")));
            if !known {
                unknown.insert(name);
            }
        }
        match unknown.first() {
            Some(name) => Err(tampered(&place.join(name), "it does not belong to the image")),
            None => Ok(()),
        }
    }
}

fn digest_of_file(place: &Path) -> Result<Digest, Error> {
    let mut hasher = Sha256::new();
    File::open(place).and_then(|mut file| io::copy(&mut file, &mut hasher)).context(|| format!("reading {}", place.display()))?;
    Ok(Digest(hasher.finalize().into()))
}

fn tampered(place: &Path, what: &str) -> Error {
    Error::new(format!("the unpacked tree was changed: {}: {what}", place.display()))
        .kind(ErrorKind::Corrupt)
        // Not removed: the nodes that run have the tree below them, damaged as it is.
        .hint("no node is started from it; rename the tree's folder (remove it when no node that runs uses it), and the next use unpacks it again from its verified blob")
}
