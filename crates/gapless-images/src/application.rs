//! The application layer: the files of a commit, straight from Git into a layer. It is small and built again for each commit; the same files give the same digest.

use crate::blob::BlobStore;
use crate::commit::{Commit, CommitFile};
use crate::layer::{self, Attributes, Item};
use crate::spec::ApplicationSpec;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::OWNER_SHIFT;
use gapless_engine::inside;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most bytes of an image's `/etc/passwd`: that of 65,536 users.
const ACCOUNTS_LIMIT: u64 = 8 * 1024 * 1024;

/// Builds the layer. `below` are the trees of the image's other layers, the lowest first: they know the owner's number and the folders on the way.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the commit has no such folder or the image no such user; when something cannot be read or written.
pub fn build(blobs: &BlobStore, commit: &Commit, spec: &ApplicationSpec, below: &[PathBuf]) -> Result<Digest, Error> {
    let items = items(commit, spec, below)?;
    blobs.put(|writer| layer::pack_items(&items, writer)).context(|| "building the application layer".into())
}

fn items(commit: &Commit, spec: &ApplicationSpec, below: &[PathBuf]) -> Result<BTreeMap<String, (Item, Attributes)>, Error> {
    let source = plain(&spec.source)?;
    let destination = plain(&spec.destination)?;
    let files = commit.files(&[&source])?;
    if files.is_empty() {
        return Err(Error::new(format!("the commit {} has no files in `{source}`", commit.id()))
            .kind(ErrorKind::Invalid)
            .hint("set `source` of the image's `application` block to a folder that was committed"));
    }
    let (user, group) = owner(&spec.owner, below)?;
    // The time tells web servers and caches that a file changed: that of the last commit that touched the folder, so that the same files have the same time.
    let modified = commit.last_change(&source)?;
    let mut items = BTreeMap::new();
    for (path, file) in files {
        let inner = path.strip_prefix(&source).unwrap_or(&path).trim_start_matches('/');
        let path = if inner.is_empty() { destination.clone() } else { format!("{destination}/{inner}") };
        let (item, mode) = match file {
            CommitFile::File { executable, content } => (Item::File(content), if executable { 0o755 } else { 0o644 }),
            CommitFile::Link { target } => (Item::Link(target), 0o777),
        };
        add_folders(&mut items, &path, &destination, Attributes { mode: 0o755, user, group, modified }, below);
        items.insert(path, (item, Attributes { mode, user, group, modified }));
    }
    Ok(items)
}

/// The folders above `path`: those of the application get its owner, those on the way to it keep what they have.
fn add_folders(items: &mut BTreeMap<String, (Item, Attributes)>, path: &str, destination: &str, own: Attributes, below: &[PathBuf]) {
    let mut next = crate::view::parent(path);
    while let Some(folder) = next {
        let is_own = folder == destination || folder.starts_with(&format!("{destination}/"));
        items.entry(folder.into()).or_insert_with(|| {
            let attributes =
                if is_own { own } else { existing(folder, below).unwrap_or(Attributes { mode: 0o755, user: 0, group: 0, modified: 0 }) };
            (Item::Folder, attributes)
        });
        next = crate::view::parent(folder);
    }
}

fn existing(folder: &str, below: &[PathBuf]) -> Option<Attributes> {
    let metadata = below.iter().rev().find_map(|tree| tree.join(folder).symlink_metadata().ok().filter(fs::Metadata::is_dir))?;
    Some(Attributes {
        mode: metadata.mode() & 0o7777,
        user: metadata.uid().checked_sub(OWNER_SHIFT)?,
        group: metadata.gid().checked_sub(OWNER_SHIFT)?,
        modified: 0,
    })
}

fn owner(name: &str, below: &[PathBuf]) -> Result<(u32, u32), Error> {
    if name == "root" {
        return Ok((0, 0));
    }
    let text = accounts(below)?;
    let found = text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name)).then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
    });
    found.ok_or_else(|| {
        Error::new(format!("the image has no user `{name}` to own the application"))
            .kind(ErrorKind::Invalid)
            .hint("let Puppet make the user, or set `owner = \"root\"` in the image's `application` block")
    })
}

/// The image's accounts, as its topmost layer that has them gives them. Links stay inside of that layer.
fn accounts(below: &[PathBuf]) -> Result<String, Error> {
    for tree in below.iter().rev() {
        match inside::read_text(tree, Path::new("etc/passwd"), ACCOUNTS_LIMIT) {
            Err(error) if error.error_kind() == ErrorKind::NotFound => {}
            other => return other.context(|| "reading the image's accounts".into()),
        }
    }
    Ok(String::new())
}

/// A path without slashes at its ends and without steps upward.
fn plain(path: &Path) -> Result<String, Error> {
    let text = path.to_str().unwrap_or("..").trim_matches('/').to_owned();
    if text.is_empty() || text.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(
            Error::new(format!("`{}` is no folder that an application can come from or go to", path.display())).kind(ErrorKind::Invalid)
        );
    }
    Ok(text)
}
