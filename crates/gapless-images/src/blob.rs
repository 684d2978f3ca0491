//! Blobs: content that is named by its SHA-256, kept as files.

use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest blob that is read into memory at once, in bytes: manifests, configurations and lists. Layers are streamed.
pub const SMALL_BLOB_LIMIT: u64 = 16 * 1024 * 1024;

/// Distinguishes the temporary files of one process.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A folder of blobs, laid out as an OCI image layout does: `sha256/<64 digits>`.
#[derive(Clone, Debug)]
pub struct BlobStore {
    folder: PathBuf,
}

impl BlobStore {
    /// Opens the store in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        for made in [folder.join("sha256"), folder.join("incoming")] {
            fs::create_dir_all(&made).context(|| format!("making the blob folder {}", made.display()))?;
        }
        Ok(Self { folder })
    }

    /// Where a blob is or would be. What is there was not verified.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join("sha256").join(digest.hex())
    }

    /// Whether there is such a blob.
    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NoRoom`] when the disk is full, and when it cannot be written: nothing is kept then.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, Error> {
        self.put(|writer| writer.write_all(bytes).context(|| "writing a blob".into()))
    }

    /// Keeps what `produce` writes. The blob is durable when this returns.
    ///
    /// # Errors
    /// The error of `produce`; [`ErrorKind::NoRoom`] when the disk is full. Nothing is kept then.
    pub fn put(&self, produce: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<Digest, Error> {
        let incoming = self.incoming();
        let kept = self.write(&incoming, produce);
        if kept.is_err() {
            let _ = fs::remove_file(&incoming);
        }
        kept
    }

    fn write(&self, incoming: &Path, produce: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<Digest, Error> {
        let writing = || format!("writing a blob to {}", incoming.display());
        let mut writer = HashingWriter::new(BufWriter::with_capacity(256 * 1024, File::create_new(incoming).context(writing)?));
        produce(&mut writer)?;
        let (digest, buffered) = writer.finish();
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error).context(writing)?;
        let place = self.path(digest);
        if place.exists() && self.verify(digest).is_ok() {
            fs::remove_file(incoming).context(writing)?;
            return Ok(digest);
        }
        file.sync_all().context(writing)?;
        fs::rename(incoming, &place).context(|| format!("naming the blob {}", place.display()))?;
        sync_folder(&self.folder.join("sha256"))?;
        Ok(digest)
    }

    /// Takes a blob over from another store, which keeps it: by a hard link where that is possible, else by a copy.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is not what its digest says, and when it cannot be read or written.
    pub fn adopt(&self, other: &BlobStore, digest: Digest) -> Result<(), Error> {
        if self.contains(digest) {
            return Ok(());
        }
        other.verify(digest)?;
        match fs::hard_link(other.path(digest), self.path(digest)) {
            Ok(()) => sync_folder(&self.folder.join("sha256")),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => self.copy(other, digest),
        }
    }

    fn copy(&self, other: &BlobStore, digest: Digest) -> Result<(), Error> {
        let from = other.path(digest);
        let copied = self.put(|writer| {
            let mut file = File::open(&from).context(|| format!("opening {}", from.display()))?;
            io::copy(&mut file, writer).map(drop).context(|| format!("copying {}", from.display()))
        })?;
        if copied == digest { Ok(()) } else { Err(corrupt(&from, digest, copied)) }
    }

    /// Every blob, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, Error> {
        let folder = self.folder.join("sha256");
        let reading = || format!("reading {}", folder.display());
        let mut blobs = Vec::new();
        for item in fs::read_dir(&folder).context(reading)? {
            let name = item.context(reading)?.file_name();
            blobs.extend(name.to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok()));
        }
        blobs.sort();
        Ok(blobs)
    }

    /// How many bytes a blob has.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn size(&self, digest: Digest) -> Result<u64, Error> {
        let path = self.path(digest);
        Ok(fs::metadata(&path).context(|| format!("looking at {}", path.display()))?.len())
    }

    /// Removes a blob. One that is not there is gone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, digest: Digest) -> Result<(), Error> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(|| format!("removing {}", path.display())),
            _ => Ok(()),
        }
    }

    /// Reads a small blob, verified.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Corrupt`] when it is not what its digest says, and when it is larger than [`SMALL_BLOB_LIMIT`].
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader(digest)?;
        let mut bytes = Vec::new();
        let read = (&mut reader).take(SMALL_BLOB_LIMIT + 1).read_to_end(&mut bytes);
        read.context(|| format!("reading {}", self.path(digest).display()))?;
        if bytes.len() as u64 > SMALL_BLOB_LIMIT {
            return Err(Error::new(format!("blob {digest} is larger than {SMALL_BLOB_LIMIT} bytes, too large for what it should be")));
        }
        reader.finish()?;
        Ok(bytes)
    }

    /// Opens a blob for reading from its begin to its end. Whether it is what its digest says is known from [`VerifyingReader::finish`], not before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub fn reader(&self, digest: Digest) -> Result<VerifyingReader, Error> {
        let path = self.path(digest);
        let file = File::open(&path).context(|| format!("opening the blob {}", path.display()))?;
        Ok(VerifyingReader { file, hasher: Sha256::new(), expected: digest, path })
    }

    /// Reads a blob through and compares it with its digest.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Corrupt`] when it is not what its digest says.
    pub fn verify(&self, digest: Digest) -> Result<(), Error> {
        self.reader(digest)?.finish()
    }

    /// Removes blobs whose writing was broken off. Nobody may be writing one.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_unfinished(&self) -> Result<(), Error> {
        let folder = self.folder.join("incoming");
        let removing = || format!("removing unfinished blobs from {}", folder.display());
        for item in fs::read_dir(&folder).context(removing)? {
            fs::remove_file(item.context(removing)?.path()).context(removing)?;
        }
        Ok(())
    }

    fn incoming(&self) -> PathBuf {
        let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        self.folder.join("incoming").join(format!("{}-{number}", std::process::id()))
    }
}

/// A blob that is being read, and hashed on the way.
#[derive(Debug)]
pub struct VerifyingReader {
    file: File,
    hasher: Sha256,
    expected: Digest,
    path: PathBuf,
}

impl VerifyingReader {
    /// Reads what is left and compares the whole with the digest.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the content is not what the digest says.
    pub fn finish(mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 256 * 1024];
        while self.read(&mut buffer).context(|| format!("reading {}", self.path.display()))? > 0 {}
        let found = Digest(self.hasher.finalize().into());
        if found == self.expected { Ok(()) } else { Err(corrupt(&self.path, self.expected, found)) }
    }
}

impl Read for VerifyingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// A writer that hashes what passes.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> HashingWriter<W> {
    /// Around another writer.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The digest of all that passed, and the writer.
    pub fn finish(self) -> (Digest, W) {
        (Digest(self.hasher.finalize().into()), self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the folder cannot be opened or written.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|opened| opened.sync_all()).context(|| format!("syncing {}", folder.display()))
}

/// Writes a small file so that a reader sees the old or the new content, whole, also after a crash.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let writing = || format!("writing {}", path.display());
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let mut file = File::create(&temporary).context(writing)?;
    file.write_all(bytes).context(writing)?;
    file.sync_all().context(writing)?;
    fs::rename(&temporary, path).context(writing)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn corrupt(path: &Path, expected: Digest, found: Digest) -> Error {
    Error::new(format!("{} is corrupted: it should have the digest {expected} and has {}", path.display(), found.hex()))
        .kind(ErrorKind::Corrupt)
        .hint("remove this file and build the artifact again from its commit; check the disk if it happens again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path().join("blobs")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_blob_is_named_by_its_content() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(store.put_bytes(b"abc").unwrap(), digest);
        assert_eq!(store.read(digest).unwrap(), b"abc");
    }

    #[test]
    fn a_corrupted_blob_is_refused_with_place_and_hint() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        fs::write(store.path(digest), b"abd").unwrap();
        let error = store.read(digest).unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&digest.hex()), "{error}");
        assert!(error.hint_text().unwrap().contains("build the artifact again"));
    }

    #[test]
    fn a_corrupted_blob_is_replaced_when_the_content_is_put_again() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"abc").unwrap();
        fs::write(store.path(digest), b"abd").unwrap();
        store.put_bytes(b"abc").unwrap();
        assert_eq!(store.read(digest).unwrap(), b"abc");
    }

    #[test]
    fn a_missing_blob_is_not_found() {
        let (_folder, store) = store();
        assert_eq!(store.read(Digest([7; 32])).unwrap_err().error_kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_producer_that_fails_leaves_nothing() {
        let (folder, store) = store();
        assert!(store.put(|_| Err(Error::new("no"))).is_err());
        assert_eq!(fs::read_dir(folder.path().join("blobs/incoming")).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_is_adopted_only_when_it_is_whole() {
        let (_one, source) = store();
        let (_two, target) = store();
        let digest = source.put_bytes(b"abc").unwrap();
        target.adopt(&source, digest).unwrap();
        assert_eq!(target.read(digest).unwrap(), b"abc");
        let other = source.put_bytes(b"xyz").unwrap();
        fs::write(source.path(other), b"xyy").unwrap();
        assert_eq!(target.adopt(&source, other).unwrap_err().error_kind(), ErrorKind::Corrupt);
    }
}
