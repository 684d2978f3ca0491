//! What a stack of overlay trees shows: read from the trees themselves, whiteouts and opaque folders applied.

use gapless_engine::error::{Context, Error};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The extended attribute that marks a folder of an overlay tree as hiding everything below it.
pub(crate) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// Attributes of trees that an overlay was mounted over with options that gapless never uses: such a tree cannot be read without the kernel's help.
const FOREIGN_ATTRIBUTES: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

/// The most of a file that is compared at a time, in bytes.
const COMPARED_AT_ONCE: usize = 64 * 1024;

/// One thing in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// The owner inside the node: not shifted.
    pub user: u32,
    /// The group inside the node: not shifted.
    pub group: u32,
    /// Last change of the content, in seconds since the Unix epoch.
    pub modified: u64,
}

/// What a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Where its content is.
        source: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// Device and inode: entries that share them are one file with several names.
        identity: (u64, u64),
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

/// Paths, relative and without a leading slash, in byte order: a folder comes before what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    entries: BTreeMap<String, Entry>,
}

/// What leads from one view to another; what [`crate::layer::pack`] writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is there, with every folder on the way to it.
    pub present: BTreeMap<String, Entry>,
    /// What is hidden: gone from the lower view.
    pub removed: Vec<String>,
}

impl View {
    /// What these trees show, the lowest first. `shift` is taken off every owner.
    ///
    /// # Errors
    /// When a tree cannot be read, a name is not UTF-8, an owner is below `shift`, or a tree holds overlay marks that gapless does not use.
    pub fn of(trees: &[&Path], shift: u32) -> Result<Self, Error> {
        let mut view = Self::default();
        for tree in trees {
            let mut scan = Scan { view: &mut view, root: tree, shift };
            scan.folder("")?;
        }
        Ok(view)
    }

    /// The entries, a folder before what is in it.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// What must be laid over `lower` to see this view. A file counts as the same when owner, mode and content are: its time alone is no difference.
    ///
    /// # Errors
    /// When files cannot be compared.
    pub fn difference(&self, lower: &View) -> Result<Difference, Error> {
        let mut difference = Difference::default();
        for (path, entry) in &self.entries {
            let same = match lower.entries.get(path) {
                Some(before) => same(before, entry)?,
                None => false,
            };
            if !same {
                self.add_with_folders(path, &mut difference);
            }
        }
        for path in lower.entries.keys() {
            let parent_is_there =
                parent(path).is_none_or(|folder| matches!(self.entries.get(folder), Some(Entry { kind: Kind::Folder, .. })));
            if !self.entries.contains_key(path) && parent_is_there {
                if let Some(folder) = parent(path) {
                    self.add_with_folders(folder, &mut difference);
                }
                difference.removed.push(path.clone());
            }
        }
        Ok(difference)
    }

    /// The view without what is in these folders; the folders themselves stay.
    #[must_use]
    pub fn without_inside(mut self, folders: &[&str]) -> Self {
        folders.iter().for_each(|folder| self.remove_below(folder));
        self
    }

    fn add_with_folders(&self, path: &str, difference: &mut Difference) {
        let mut next = Some(path);
        while let Some(path) = next {
            if let Some(entry) = self.entries.get(path) {
                difference.present.insert(path.into(), entry.clone());
            }
            next = parent(path);
        }
    }

    fn remove_below(&mut self, path: &str) {
        // '0' is the character after '/': the range holds exactly the paths that begin with `path/`.
        let below: Vec<String> = self.entries.range(format!("{path}/")..format!("{path}0")).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    fn put(&mut self, path: String, entry: Entry) {
        if entry.kind != Kind::Folder {
            self.remove_below(&path);
        }
        self.entries.insert(path, entry);
    }
}

/// The folder that a path is in; nothing for the topmost.
pub(crate) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(folder, _)| folder)
}

struct Scan<'a> {
    view: &'a mut View,
    root: &'a Path,
    shift: u32,
}

impl Scan<'_> {
    fn folder(&mut self, path: &str) -> Result<(), Error> {
        let place = self.root.join(path);
        let reading = || format!("reading the folder {}", place.display());
        let mut names = Vec::new();
        for item in fs::read_dir(&place).context(reading)? {
            let name = item.context(reading)?.file_name();
            let name = name.into_string().map_err(|name| {
                Error::new(format!("{} holds the name {name:?}, which is not UTF-8", place.display()))
                    .hint("rename the file: images hold UTF-8 names only")
            })?;
            names.push(name);
        }
        names.sort();
        for name in names {
            let inner = if path.is_empty() { name } else { format!("{path}/{name}") };
            self.item(inner)?;
        }
        Ok(())
    }

    fn item(&mut self, path: String) -> Result<(), Error> {
        let place = self.root.join(&path);
        let metadata = place.symlink_metadata().context(|| format!("looking at {}", place.display()))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            refuse_foreign_marks(&place)?;
            if attribute(&place, OPAQUE_ATTRIBUTE)?.is_some_and(|value| value == b"y") {
                self.view.remove_below(&path);
            }
            if self.view.entries.get(&path).is_some_and(|entry| entry.kind != Kind::Folder) {
                self.view.entries.remove(&path);
            }
            let entry = self.entry(&place, &metadata, Kind::Folder)?;
            self.view.put(path.clone(), entry);
            return self.folder(&path);
        }
        if kind.is_char_device() && metadata.rdev() == 0 {
            self.view.remove_below(&path);
            self.view.entries.remove(&path);
        } else if kind.is_file() {
            refuse_foreign_marks(&place)?;
            let kind = Kind::File { source: place.clone(), size: metadata.len(), identity: (metadata.dev(), metadata.ino()) };
            let entry = self.entry(&place, &metadata, kind)?;
            self.view.put(path, entry);
        } else if kind.is_symlink() {
            let target = fs::read_link(&place).context(|| format!("reading the link {}", place.display()))?;
            let target = target
                .into_os_string()
                .into_string()
                .map_err(|_| Error::new(format!("the link {} does not say UTF-8", place.display())))?;
            let entry = self.entry(&place, &metadata, Kind::Link { target })?;
            self.view.put(path, entry);
        }
        // Devices, sockets and pipes belong to a running node: /dev is made anew for each.
        Ok(())
    }

    fn entry(&self, place: &Path, metadata: &Metadata, kind: Kind) -> Result<Entry, Error> {
        let owner = |id: u32| {
            id.checked_sub(self.shift)
                .ok_or_else(|| Error::new(format!("{} has the owner {id}, which no user of a node is", place.display())))
        };
        Ok(Entry {
            kind,
            mode: metadata.mode() & 0o7777,
            user: owner(metadata.uid())?,
            group: owner(metadata.gid())?,
            modified: u64::try_from(metadata.mtime()).unwrap_or(0),
        })
    }
}

fn same(before: &Entry, now: &Entry) -> Result<bool, Error> {
    if (before.mode, before.user, before.group) != (now.mode, now.user, now.group) {
        return Ok(false);
    }
    match (&before.kind, &now.kind) {
        (Kind::Folder, Kind::Folder) => Ok(true),
        (Kind::Link { target: before }, Kind::Link { target: now }) => Ok(before == now),
        (Kind::File { source: before, size: size_before, identity: identity_before }, Kind::File { source: now, size, identity }) => {
            if identity_before == identity {
                return Ok(true);
            }
            if size_before != size {
                return Ok(false);
            }
            same_content(before, now).context(|| format!("comparing {} with {}", before.display(), now.display()))
        }
        _ => Ok(false),
    }
}

fn same_content(one: &Path, other: &Path) -> Result<bool, std::io::Error> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        if let Err(error) = other.read_exact(&mut right[..length]) {
            return if error.kind() == std::io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

fn refuse_foreign_marks(place: &Path) -> Result<(), Error> {
    for name in FOREIGN_ATTRIBUTES {
        if attribute(place, name)?.is_some() {
            return Err(Error::new(format!(
                "{} has the mark {name}: its overlay was mounted with options that gapless does not use",
                place.display()
            )));
        }
    }
    Ok(())
}

/// The value of an extended attribute, if it is set and the file system knows such.
pub(crate) fn attribute(place: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(place, name, &mut value) {
        Ok(length) => Ok(Some(value[..length.min(value.len())].to_vec())),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(rustix::io::Errno::RANGE) => Ok(Some(Vec::new())),
        Err(error) => Err(std::io::Error::from(error)).context(|| format!("reading {name} of {}", place.display())),
    }
}
