//! Layers as tar files, the way the OCI image specification writes them (image-spec 1.1, `layer.md`): uncompressed, whiteouts as `.wh.` files.
//!
//! Packing is deterministic: sorted, no names of users, times in whole seconds, nothing of the machine that packs.

use crate::tree::{Kind as TreeKind, ROOT_MODE, Stamp, TreeEntry, TreeManifest};
use crate::view::{Difference, Entry, Kind, OPAQUE_ATTRIBUTE, parent};
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

/// The media type of a layer.
pub const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// What begins the name of a whiteout.
const WHITEOUT: &str = ".wh.";

/// The whiteout that hides everything which lower layers have in a folder.
const OPAQUE_WHITEOUT: &str = ".wh..wh..opq";

/// The most entries that a layer may have: bounds the memory of its manifest to some hundred MB.
pub const ENTRY_LIMIT: usize = 1_000_000;

/// The most bytes that a file of a layer may have, by its length and not by the room that it takes: a file of holes costs its maker nothing, and us the whole length.
pub const FILE_LIMIT: u64 = 8 * 1024 * 1024 * 1024;

/// The most bytes that all files of a layer may have: many times the largest of usual systems.
pub const CONTENT_LIMIT: u64 = 32 * 1024 * 1024 * 1024;

/// One thing that goes into a layer, with its content at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A folder.
    Folder,
    /// A file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(String),
}

/// The owner and mode of an [`Item`], and its time in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner in the node.
    pub user: u32,
    /// Group in the node.
    pub group: u32,
    /// Last change.
    pub modified: u64,
}

/// Writes the layer that leads from one view to another.
///
/// # Errors
/// When a file cannot be read, changed its length meanwhile, or the writer fails.
pub fn pack(difference: &Difference, writer: &mut dyn Write) -> Result<(), Error> {
    check_sizes(difference)?;
    let mut tar = tar::Builder::new(writer);
    let whiteouts: BTreeSet<String> = difference.removed.iter().map(|path| whiteout_of(path)).collect();
    let mut names: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    let paths: BTreeSet<&str> = difference.present.keys().chain(whiteouts.iter()).map(String::as_str).collect();
    for path in paths {
        match difference.present.get(path) {
            Some(entry) => append(&mut tar, path, entry, &mut names)?,
            None => append_bytes(&mut tar, path, tar::EntryType::Regular, WHITEOUT_ATTRIBUTES, &[])?,
        }
    }
    tar.finish().context(|| "ending a layer".into())
}

/// Looks at all lengths before a byte is read.
fn check_sizes(difference: &Difference) -> Result<(), Error> {
    let mut all = Allowance::default();
    for (path, entry) in &difference.present {
        if let Kind::File { size, .. } = &entry.kind {
            all.take(path, *size)?;
        }
    }
    Ok(())
}

/// What the files of a layer have together.
#[derive(Default)]
struct Allowance(u64);

impl Allowance {
    fn take(&mut self, path: &str, size: u64) -> Result<(), Error> {
        let too_much = |what: String| Err(Error::new(what).kind(ErrorKind::Invalid).hint("keep data on a volume, not in the image"));
        self.0 = self.0.saturating_add(size);
        if size > FILE_LIMIT {
            return too_much(format!("`{path}` has {size} bytes, and a file of an image at most {FILE_LIMIT}"));
        }
        if self.0 > CONTENT_LIMIT {
            return too_much(format!("the files up to `{path}` have {} bytes, and a layer's at most {CONTENT_LIMIT}", self.0));
        }
        Ok(())
    }
}

/// Writes a layer of things at hand, in the order of their paths.
///
/// # Errors
/// When the writer fails.
pub fn pack_items(items: &BTreeMap<String, (Item, Attributes)>, writer: &mut dyn Write) -> Result<(), Error> {
    let mut tar = tar::Builder::new(writer);
    for (path, (item, attributes)) in items {
        match item {
            Item::Folder => append_bytes(&mut tar, &format!("{path}/"), tar::EntryType::Directory, *attributes, &[])?,
            Item::File(bytes) => append_bytes(&mut tar, path, tar::EntryType::Regular, *attributes, bytes)?,
            Item::Link(target) => append_link(&mut tar, path, tar::EntryType::Symlink, *attributes, target)?,
        }
    }
    tar.finish().context(|| "ending a layer".into())
}

const WHITEOUT_ATTRIBUTES: Attributes = Attributes { mode: 0, user: 0, group: 0, modified: 0 };

fn whiteout_of(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{WHITEOUT}{name}"),
        None => format!("{WHITEOUT}{path}"),
    }
}

fn append<'a>(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &'a str,
    entry: &Entry,
    names: &mut BTreeMap<(u64, u64), &'a str>,
) -> Result<(), Error> {
    let attributes = Attributes { mode: entry.mode, user: entry.user, group: entry.group, modified: entry.modified };
    match &entry.kind {
        Kind::Folder => append_bytes(tar, &format!("{path}/"), tar::EntryType::Directory, attributes, &[]),
        Kind::Link { target } => append_link(tar, path, tar::EntryType::Symlink, attributes, target),
        Kind::File { source, size, identity } => {
            if let Some(first) = names.get(identity) {
                return append_link(tar, path, tar::EntryType::Link, attributes, first);
            }
            names.insert(*identity, path);
            let packing = || format!("packing {}", source.display());
            let file = File::open(source).context(packing)?;
            let mut content = Counted { inner: file.take(*size), length: 0 };
            let mut header = header(tar::EntryType::Regular, attributes, *size);
            tar.append_data(&mut header, path, &mut content).context(packing)?;
            if content.length == *size {
                Ok(())
            } else {
                Err(Error::new(format!("{} became shorter while it was packed", source.display())))
            }
        }
    }
}

struct Counted<R> {
    inner: R,
    length: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.length += length as u64;
        Ok(length)
    }
}

fn header(kind: tar::EntryType, attributes: Attributes, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.user.into());
    header.set_gid(attributes.group.into());
    header.set_mtime(attributes.modified);
    header.set_size(size);
    header
}

fn append_bytes(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    kind: tar::EntryType,
    attributes: Attributes,
    bytes: &[u8],
) -> Result<(), Error> {
    tar.append_data(&mut header(kind, attributes, bytes.len() as u64), path, bytes).context(|| format!("packing {path}"))
}

fn append_link(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    kind: tar::EntryType,
    attributes: Attributes,
    target: &str,
) -> Result<(), Error> {
    tar.append_link(&mut header(kind, attributes, 0), path, target).context(|| format!("packing {path}"))
}

/// Unpacks a layer into `root`, an empty folder that nobody but root can reach, as a tree that an overlay can be mounted over. `shift` is added to every owner.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the layer holds what a layer may not (a path that leads out, a device, an owner that no node has), and when a tree cannot be written.
pub fn unpack(layer: &mut dyn Read, root: &Path, shift: u32) -> Result<TreeManifest, Error> {
    let mut unpacking = Unpacking {
        root,
        shift,
        entries: BTreeMap::new(),
        folder_times: Vec::new(),
        allowance: Allowance::default(),
        root_is_opaque: false,
    };
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().context(|| "reading a layer".into())? {
        let mut entry = entry.context(|| "reading a layer".into())?;
        unpacking.entry(&mut entry)?;
        if unpacking.entries.len() > ENTRY_LIMIT {
            return Err(Error::new(format!("the layer has more than {ENTRY_LIMIT} entries")).kind(ErrorKind::Invalid));
        }
    }
    unpacking.finish()
}

struct Unpacking<'a> {
    root: &'a Path,
    shift: u32,
    entries: BTreeMap<String, TreeEntry>,
    folder_times: Vec<(String, u64)>,
    allowance: Allowance,
    root_is_opaque: bool,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
        let path = clean_path(&entry.path().context(|| "reading a layer".into())?)?;
        let attributes = attributes_of(entry.header(), &path)?;
        if path.is_empty() {
            return Ok(());
        }
        self.make_parents(&path)?;
        let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
        if name == OPAQUE_WHITEOUT {
            return self.opaque(parent(&path).unwrap_or(""));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let hidden = parent(&path).map_or(hidden.to_owned(), |folder| format!("{folder}/{hidden}"));
            return self.whiteout(&hidden);
        }
        self.content(entry, path, attributes)
    }

    fn content<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: String, attributes: Attributes) -> Result<(), Error> {
        let place = self.root.join(&path);
        let writing = || format!("unpacking {}", place.display());
        if entry.header().entry_type() != tar::EntryType::Directory {
            self.must_be_new(&path)?;
        }
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => {
                let opaque = self.folder(&path)?;
                self.folder_times.push((path.clone(), attributes.modified));
                TreeKind::Folder { opaque }
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.allowance.take(&path, entry.size())?;
                let (digest, size) = write_file(entry, &place).context(writing)?;
                TreeKind::File { digest: digest.to_string(), size }
            }
            tar::EntryType::Symlink => {
                let target = link_target(entry, &path)?;
                std::os::unix::fs::symlink(&target, &place).context(writing)?;
                TreeKind::Link { target }
            }
            tar::EntryType::Link => return self.hard_link(&link_target(entry, &path)?, path),
            other => return Err(refused(&path, &format!("it is of the kind {other:?}, which a layer may not hold"))),
        };
        let is_link = matches!(kind, TreeKind::Link { .. });
        set_attributes(&place, attributes, self.shift, is_link).context(writing)?;
        self.entries.insert(path, TreeEntry::new(kind, attributes.mode, attributes.user, attributes.group));
        Ok(())
    }

    /// A thing that is there already is never written over or through: it may be a link, which could lead anywhere.
    fn must_be_new(&self, path: &str) -> Result<(), Error> {
        if self.entries.contains_key(path) {
            return Err(refused(path, "it is in the layer twice"));
        }
        Ok(())
    }

    /// Makes a folder unless it is there, as one on the way to something or listed twice. Whether it was marked as opaque before.
    fn folder(&self, path: &str) -> Result<bool, Error> {
        if let Some(TreeKind::Folder { opaque }) = self.entries.get(path).map(|entry| &entry.kind) {
            return Ok(*opaque);
        }
        self.must_be_new(path)?;
        let place = self.root.join(path);
        fs::create_dir(&place).context(|| format!("unpacking {}", place.display()))?;
        Ok(false)
    }

    fn hard_link(&mut self, target: &str, path: String) -> Result<(), Error> {
        let target = clean_path(Path::new(target))?;
        let Some(entry) = self.entries.get(&target).filter(|entry| matches!(entry.kind, TreeKind::File { .. })).cloned() else {
            return Err(refused(&path, &format!("it is a hard link to `{target}`, which is no file of this layer")));
        };
        fs::hard_link(self.root.join(&target), self.root.join(&path)).context(|| format!("unpacking {path}"))?;
        self.entries.insert(path, entry);
        Ok(())
    }

    fn whiteout(&mut self, path: &str) -> Result<(), Error> {
        if matches!(path.rsplit('/').next(), None | Some("" | "." | "..")) {
            return Err(refused(path, "it hides nothing that has a name"));
        }
        self.must_be_new(path)?;
        let place = self.root.join(path);
        rustix::fs::mknodat(CWD, &place, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(io::Error::from)
            .context(|| format!("making the whiteout {}", place.display()))?;
        self.entries.insert(path.into(), TreeEntry::new(TreeKind::Whiteout, 0, 0, 0));
        Ok(())
    }

    fn opaque(&mut self, folder: &str) -> Result<(), Error> {
        let place = self.root.join(folder);
        rustix::fs::lsetxattr(&place, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
            .map_err(io::Error::from)
            .context(|| format!("marking {} as opaque", place.display()))?;
        match self.entries.get_mut(folder) {
            Some(entry) => entry.kind = TreeKind::Folder { opaque: true },
            None => self.root_is_opaque = true,
        }
        Ok(())
    }

    /// Every folder on the way must be a folder of this tree: a link in between could lead anywhere.
    fn make_parents(&mut self, path: &str) -> Result<(), Error> {
        let Some(folder) = parent(path) else { return Ok(()) };
        match self.entries.get(folder).map(|entry| &entry.kind) {
            Some(TreeKind::Folder { .. }) => return Ok(()),
            Some(_) => return Err(refused(path, &format!("`{folder}` is not a folder"))),
            None => {}
        }
        self.make_parents(folder)?;
        let place = self.root.join(folder);
        let attributes = Attributes { mode: 0o755, user: 0, group: 0, modified: 0 };
        fs::create_dir(&place)
            .and_then(|()| set_attributes(&place, attributes, self.shift, false))
            .context(|| format!("unpacking {}", place.display()))?;
        self.entries.insert(folder.into(), TreeEntry::new(TreeKind::Folder { opaque: false }, 0o755, 0, 0));
        Ok(())
    }

    fn finish(mut self) -> Result<TreeManifest, Error> {
        let finishing = || format!("finishing {}", self.root.display());
        let root = Attributes { mode: ROOT_MODE, user: 0, group: 0, modified: 0 };
        set_attributes(self.root, root, self.shift, false).context(finishing)?;
        for (path, modified) in self.folder_times.iter().rev() {
            set_time(&self.root.join(path), *modified).context(finishing)?;
        }
        for (path, entry) in &mut self.entries {
            let place = self.root.join(path);
            entry.stamp = Stamp::of(&place.symlink_metadata().context(|| format!("looking at {}", place.display()))?);
        }
        Ok(TreeManifest { shift: self.shift, root_is_opaque: self.root_is_opaque, entries: self.entries })
    }
}

/// A path of a layer without `./` and a slash at the end; refused when it is absolute or leads out.
fn clean_path(path: &Path) -> Result<String, Error> {
    let mut clean = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir | Component::RootDir if clean.is_empty() => {}
            Component::Normal(name) => {
                let name = name.to_str().ok_or_else(|| refused(&path.display().to_string(), "its name is not UTF-8"))?;
                clean.push(name.to_owned());
            }
            _ => return Err(refused(&path.display().to_string(), "it leads out of the image")),
        }
    }
    Ok(clean.join("/"))
}

fn attributes_of(header: &tar::Header, path: &str) -> Result<Attributes, Error> {
    let reading = || format!("reading the header of {path}");
    let owner = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id < gapless_engine::images::OWNER_COUNT)
            .ok_or_else(|| refused(path, &format!("its owner {id} is none that a node has")))
    };
    Ok(Attributes {
        mode: header.mode().context(reading)? & 0o7777,
        user: owner(header.uid().context(reading)?)?,
        group: owner(header.gid().context(reading)?)?,
        modified: header.mtime().context(reading)?,
    })
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, path: &str) -> Result<String, Error> {
    let target = entry.link_name().context(|| format!("reading the link {path}"))?;
    target.and_then(|target| target.to_str().map(str::to_owned)).ok_or_else(|| refused(path, "its link says nothing, or not UTF-8"))
}

fn write_file(content: &mut impl Read, place: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::create_new(place)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let length = content.read(&mut buffer)?;
        if length == 0 {
            return Ok((Digest(hasher.finalize().into()), size));
        }
        file.write_all(&buffer[..length])?;
        hasher.update(&buffer[..length]);
        size += length as u64;
    }
}

fn set_attributes(place: &Path, attributes: Attributes, shift: u32, is_link: bool) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(attributes.user + shift), Gid::from_raw(attributes.group + shift));
    rustix::fs::chownat(CWD, place, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_link {
        // After the owner: changing the owner clears the set-user-id bit.
        fs::set_permissions(place, fs::Permissions::from_mode(attributes.mode))?;
    }
    set_time(place, attributes.modified)
}

fn set_time(place: &Path, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    rustix::fs::utimensat(CWD, place, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn refused(path: &str, why: &str) -> Error {
    Error::new(format!("the layer's entry `{path}` is refused: {why}")).kind(ErrorKind::Corrupt)
}
