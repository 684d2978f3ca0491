//! Reading files below a folder whose content somebody else decides on: a node, a sandboxed program, an image.
//!
//! As root, an ordinary `read` would follow a link of theirs to any file of the host, wait for ever at a pipe, or fill the memory from a device. The kernel itself resolves
//! these paths (`openat2`, Linux 5.6), so that nothing can be exchanged between a look and the opening.

use crate::error::{Context, Error, ErrorKind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How often an opening is tried again that the kernel gave up because something was renamed meanwhile; more is not chance but an attack.
const ATTEMPTS: usize = 16;

/// The whole content of the file `path` (a leading slash means `root`) as the tree at `root` has it: links count, but lead nowhere outside of `root`, just as after a
/// `chroot`. At most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such file; [`ErrorKind::Invalid`] when it is no regular file or has more than `limit` bytes; when it cannot be read.
pub fn read(root: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let reading = || format!("reading {} in {}", path.display(), root.display());
    let file = open(root, path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).context(reading)?;
    content(file, limit).context(reading)
}

/// As [`read`], for text. What is not UTF-8 is replaced, and no part of the content gets into an error.
///
/// # Errors
/// As for [`read`].
pub fn read_text(root: &Path, path: &Path, limit: u64) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&read(root, path, limit)?).into_owned())
}

/// The whole content of a file that the host's user `owner` made below `root`, and nobody else: no link on the way, no second name of another's file. At most `limit` bytes.
///
/// # Errors
/// As for [`read`]; [`ErrorKind::Invalid`] also when there is a link on the way or the file belongs to somebody else.
pub fn read_own(root: &Path, path: &Path, owner: u32, limit: u64) -> Result<Vec<u8>, Error> {
    let reading = || format!("reading {} in {}", path.display(), root.display());
    let file = open(root, path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).context(reading)?;
    if file.metadata().context(reading)?.uid() != owner {
        return Err(refused("it belongs to somebody else").context(reading()));
    }
    content(file, limit).context(reading)
}

fn open(root: &Path, path: &Path, resolve: ResolveFlags) -> Result<File, Error> {
    let folder = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .context(|| "opening the folder".into())?;
    // Not waiting: the opening of a named pipe would end when somebody writes into it, which may be never.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match opened(&folder, path, flags, resolve) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP) => Err(refused("there is a symbolic link on the way")),
        Err(Errno::XDEV) => Err(refused("it leads out of the folder")),
        Err(Errno::NXIO | Errno::NODEV) => Err(refused("it is no regular file")),
        Err(error) => Err(io::Error::from(error)).context(|| "opening it".into()),
    }
}

fn opened(folder: &OwnedFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => {}
            other => return other,
        }
    }
}

fn content(file: File, limit: u64) -> Result<Vec<u8>, Error> {
    let metadata = file.metadata().context(|| "looking at it".into())?;
    if !metadata.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits, also when it grows meanwhile.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).context(|| "reading its content".into())?;
    if bytes.len() as u64 > limit {
        return Err(refused(&format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn refused(why: &str) -> Error {
    Error::new(why)
        .kind(ErrorKind::Invalid)
        .hint("gapless runs as root and reads only ordinary files there; see what in the image, the template or its scripts made this one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, mknodat};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const LIMIT: u64 = 8;

    /// A folder of this test alone, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("gapless-inside-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("root/etc")).unwrap();
            fs::write(folder.join("secret"), "secret").unwrap();
            Self(folder)
        }

        fn root(&self) -> PathBuf {
            self.0.join("root")
        }

        fn refuses(&self, path: &str, why: &str) {
            for read in [read(&self.root(), Path::new(path), LIMIT), read_own(&self.root(), Path::new(path), self.owner(), LIMIT)] {
                let error = read.expect_err(path);
                assert!(error.to_string().contains(why), "{path}: {error}");
            }
        }

        fn owner(&self) -> u32 {
            fs::metadata(&self.0).unwrap().uid()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_stay_inside_of_the_tree() {
        let scratch = Scratch::new("links");
        let root = scratch.root();
        fs::write(root.join("etc/real"), "inner").unwrap();
        symlink("/etc/real", root.join("absolute")).unwrap();
        symlink("../../../../../../etc/real", root.join("etc/upward")).unwrap();
        symlink(scratch.0.join("secret"), root.join("out")).unwrap();
        symlink("../secret", root.join("above")).unwrap();
        for path in ["etc/real", "/etc/real", "absolute", "etc/upward", "../../etc/real"] {
            assert_eq!(read(&root, Path::new(path), LIMIT).unwrap(), b"inner", "{path}");
        }
        for path in ["out", "above", "../secret", "missing"] {
            assert_eq!(read(&root, Path::new(path), LIMIT).unwrap_err().error_kind(), ErrorKind::NotFound, "{path}");
        }
        for path in ["absolute", "etc/upward", "out", "above", "../secret", "/etc/real"] {
            let error = read_own(&root, Path::new(path), scratch.owner(), LIMIT).unwrap_err();
            assert_eq!(error.error_kind(), ErrorKind::Invalid, "{path}: {error}");
        }
        symlink("/proc/self/root/etc/hostname", root.join("magic")).unwrap();
        assert!(read(&root, Path::new("magic"), LIMIT).is_err());
    }

    #[test]
    fn only_ordinary_files_of_a_bounded_size_are_read() {
        let scratch = Scratch::new("kinds");
        let root = scratch.root();
        mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // /dev/zero.
        mknodat(CWD, root.join("zero"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5)).unwrap();
        fs::write(root.join("fits"), [b'x'; LIMIT as usize]).unwrap();
        fs::write(root.join("long"), [b'x'; LIMIT as usize + 1]).unwrap();
        for path in ["pipe", "zero", "etc"] {
            scratch.refuses(path, "no regular file");
        }
        scratch.refuses("long", "more than 8 bytes");
        assert_eq!(read(&root, Path::new("fits"), LIMIT).unwrap().len(), LIMIT as usize);
        assert_eq!(read_own(&root, Path::new("fits"), scratch.owner(), LIMIT).unwrap().len(), LIMIT as usize);
        let error = read_own(&root, Path::new("fits"), scratch.owner() + 1, LIMIT).unwrap_err();
        assert!(error.to_string().contains("belongs to somebody else"), "{error}");
    }
}
