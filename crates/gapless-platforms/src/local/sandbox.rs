//! The root of a sandbox: the host's programs and libraries, only read, and a small `/etc` of its own. Nothing else of the host is there to be found.

use super::bundle::Mount;
use super::file;
use gapless_engine::error::{Context, Error};
use gapless_engine::images::OWNER_COUNT;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};

/// The host's id of a sandbox's user 0: beyond all that nodes have.
pub const SANDBOX_SHIFT: u32 = 200_000;

/// The ordinary user that a sandboxed program is.
pub const SANDBOX_USER: u32 = 1000;

const _: () = assert!(SANDBOX_USER < OWNER_COUNT);

/// Programs and libraries. On most hosts all but the first are links into it.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs need of the host's `/etc`: where libraries are, which of several programs is meant, whom to trust. No keys and no accounts.
const SETTINGS: [&str; 5] = ["/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/ca-certificates", "/etc/localtime"];

/// The tree that a sandbox sees, without what is mounted over it.
///
/// # Errors
/// When it cannot be written.
pub fn build_tree(root: &Path, mount_points: &[PathBuf]) -> Result<(), Error> {
    file::set_mode(root, 0o755)?;
    for folder in ["etc", "etc/ssl", "proc", "dev", "sys", "tmp", "run", "var", "home"] {
        file::make_folder(&root.join(folder), 0o755)?;
    }
    for path in PROGRAMS.map(Path::new) {
        if let Ok(target) = fs::read_link(path) {
            symlink(target, inside(root, path)).context(|| format!("linking {}", path.display()))?;
        }
    }
    let accounts = format!("root:x:0:0:root:/root:/usr/sbin/nologin\nbuilder:x:{SANDBOX_USER}:{SANDBOX_USER}:builder:/home:/bin/sh\n");
    let files = [
        ("passwd", accounts.as_str()),
        ("group", "root:x:0:\nbuilder:x:1000:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("resolv.conf", ""),
    ];
    for (name, text) in files {
        fs::write(root.join("etc").join(name), text).context(|| format!("writing /etc/{name} of a sandbox"))?;
    }
    host_mounts().keys().chain(mount_points).try_for_each(|path| mount_point(root, path))
}

fn mount_point(root: &Path, path: &Path) -> Result<(), Error> {
    let place = inside(root, path);
    if place.exists() {
        return Ok(());
    }
    if path.is_file() && SETTINGS.iter().any(|setting| path == Path::new(setting)) {
        return fs::write(&place, "").context(|| format!("making {}", place.display()));
    }
    file::make_folder(&place, 0o755)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What of the host is mounted into every sandbox.
pub fn host_mounts() -> BTreeMap<PathBuf, Mount> {
    let real = PROGRAMS.iter().map(Path::new).filter(|path| path.is_dir() && fs::read_link(path).is_err());
    let settings = SETTINGS.iter().map(Path::new).filter(|path| path.exists());
    let bind = |path: &Path| {
        (path.to_path_buf(), Mount::Bind { source: fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()), writable: false })
    };
    real.chain(settings).map(bind).collect()
}

/// Makes a folder and all in it the sandboxed user's own. Links are not followed.
///
/// # Errors
/// When an owner cannot be set.
pub fn give(path: &Path) -> Result<(), Error> {
    let owner = Some(SANDBOX_SHIFT + SANDBOX_USER);
    lchown(path, owner, owner).context(|| format!("giving {} to the sandbox", path.display()))?;
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if !is_folder {
        return Ok(());
    }
    file::names(path)?.iter().try_for_each(|name| give(&path.join(name)))
}
