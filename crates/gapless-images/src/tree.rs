//! The manifest of an unpacked tree: what must be there, so that a tree that was changed behind our back is refused.

use crate::view::{OPAQUE_ATTRIBUTE, attribute};
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The mode of every tree's own folder, which belongs to the node's root.
pub(crate) const ROOT_MODE: u32 = 0o755;

/// Set by the host's policy on every file of its own accord; no right of a program comes from it alone.
const LABEL_ATTRIBUTE: &str = "security.selinux";

/// The most bytes of names that the kernel lists (`XATTR_LIST_MAX` of linux/limits.h).
const ATTRIBUTE_LIST_LIMIT: usize = 65_536;

/// What an unpacked tree must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeManifest {
    /// What was added to every owner.
    pub shift: u32,
    /// Whether the tree's own folder hides everything that lower layers have.
    #[serde(default)]
    pub root_is_opaque: bool,
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

    /// The stamp of what is at a path below a folder, links not followed; `None` when it cannot be looked at. Thousands are compared before each use of a tree, so the way to
    /// the tree is gone once.
    fn below(folder: &File, path: &str) -> Option<Self> {
        let found = rustix::fs::statat(folder, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let changed_nanoseconds = i64::try_from(found.st_ctime_nsec).ok()?;
        Some(Self { inode: found.st_ino, changed_seconds: found.st_ctime, changed_nanoseconds })
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
        self.check_root(root)?;
        self.check_names(root, "")?;
        let folder = File::open(root).context(|| format!("opening {}", root.display()))?;
        for (path, entry) in &self.entries {
            if depth == Depth::Stamps && Stamp::below(&folder, path) == Some(entry.stamp) {
                continue;
            }
            let place = root.join(path);
            let metadata = match place.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(tampered(&place, "it is gone")),
                Err(error) => return Err(error).context(|| format!("looking at {}", place.display())),
            };
            self.check_entry(&place, entry, &metadata)?;
            if matches!(entry.kind, Kind::Folder { .. }) {
                self.check_names(root, path)?;
            }
        }
        Ok(())
    }

    /// The tree's own folder has no stamp: it is compared each time.
    fn check_root(&self, root: &Path) -> Result<(), Error> {
        let metadata = root.symlink_metadata().context(|| format!("looking at {}", root.display()))?;
        let own = TreeEntry::new(Kind::Folder { opaque: self.root_is_opaque }, ROOT_MODE, 0, 0);
        self.check_entry(root, &own, &metadata)
    }

    fn check_entry(&self, place: &Path, entry: &TreeEntry, metadata: &Metadata) -> Result<(), Error> {
        check_attributes(place, &entry.kind)?;
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

/// Extended attributes can give a program rights (`security.capability`) and hide what lower layers have: there must be exactly those that unpacking set.
fn check_attributes(place: &Path, kind: &Kind) -> Result<(), Error> {
    let listing = || format!("listing the extended attributes of {}", place.display());
    let mut names = vec![0; ATTRIBUTE_LIST_LIMIT];
    let length = match rustix::fs::llistxattr(place, &mut names[..]) {
        Ok(length) => length,
        // A file system without any.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(io::Error::from(error)).context(listing),
    };
    let mut is_opaque = false;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != LABEL_ATTRIBUTE.as_bytes()) {
        let opaque = name == OPAQUE_ATTRIBUTE.as_bytes() && attribute(place, OPAQUE_ATTRIBUTE)?.is_some_and(|value| value == b"y");
        if !opaque {
            return Err(tampered(place, &format!("it got the extended attribute {}", String::from_utf8_lossy(name))));
        }
        is_opaque = true;
    }
    if is_opaque != matches!(kind, Kind::Folder { opaque: true }) {
        return Err(tampered(place, "whether it hides what lower layers have changed"));
    }
    Ok(())
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
