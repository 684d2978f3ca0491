//! The root file system of a machine: an overlay of read-only trees, topped by a small tree of its own with its name and its mount points.

use super::bundle::{Identity, Mount};
use super::file;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::OWNER_SHIFT;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

/// The kernel takes one page of mount options: what does not fit needs fewer layers or a shorter path.
const OPTIONS_LIMIT: usize = 4095;

/// The mode of a writable path that the image does not have: everybody's, as for `/tmp`.
const FREE_MODE: u32 = 0o1777;

/// The layers of an image, the lowest first.
pub struct Layers<'a>(pub &'a [PathBuf]);

impl Layers<'_> {
    /// A file of the image, as the topmost layer that has it gives it. Links are not followed.
    fn find(&self, path: &Path) -> Option<fs::Metadata> {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.0.iter().rev().find_map(|layer| fs::symlink_metadata(layer.join(path)).ok())
    }

    fn read(&self, path: &str) -> String {
        let path = path.trim_start_matches('/');
        self.0.iter().rev().find_map(|layer| fs::read_to_string(layer.join(path)).ok()).unwrap_or_default()
    }

    /// The numeric identity of `name`, `user` or `user:group` as the image knows it.
    ///
    /// # Errors
    /// When the image does not know the name.
    pub fn identity(&self, name: &str) -> Result<Identity, Error> {
        identity(name, &self.read("/etc/passwd"), &self.read("/etc/group"))
    }

    /// A writable path, with its owner and mode in the image.
    pub fn writable(&self, path: &Path) -> Mount {
        match self.find(path).filter(fs::Metadata::is_dir) {
            Some(found) => Mount::Writable {
                user: found.uid().saturating_sub(OWNER_SHIFT),
                group: found.gid().saturating_sub(OWNER_SHIFT),
                mode: found.permissions().mode() & 0o7777,
            },
            None => Mount::Writable { user: 0, group: 0, mode: FREE_MODE },
        }
    }
}

fn identity(name: &str, passwd: &str, group: &str) -> Result<Identity, Error> {
    if let Some((user, group)) = numeric(name) {
        return Ok(Identity { user, group, groups: Vec::new() });
    }
    let unknown = || {
        Error::new(format!("the image has no user `{name}`"))
            .kind(ErrorKind::Invalid)
            .hint("write a name of the image's /etc/passwd, or numbers: `33:33`")
    };
    let fields: Vec<&str> =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name).ok_or_else(unknown)?;
    let user = fields.get(2).and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
    let own = fields.get(3).and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
    let groups = group.lines().filter_map(|line| member_of(line, name)).collect();
    Ok(Identity { user, group: own, groups })
}

fn numeric(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Some((user.parse().ok()?, group.parse().ok()?))
}

fn member_of(line: &str, name: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split(':').collect();
    fields.get(3)?.split(',').any(|member| member == name).then(|| fields[2].parse().ok())?
}

/// What a machine is told about itself and its surroundings.
pub struct Surroundings<'a> {
    /// Its host name.
    pub hostname: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether it can ask name servers.
    pub outbound: bool,
}

/// Builds the machine's own top layer. Folders that the image has keep the image's owner and mode, because the topmost tree's count.
pub struct Skeleton<'a> {
    folder: PathBuf,
    layers: Layers<'a>,
}

impl<'a> Skeleton<'a> {
    /// An empty one in this folder; what was there is removed.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: PathBuf, layers: &'a [PathBuf]) -> Result<Self, Error> {
        file::remove_folder(&folder)?;
        file::make_folder(&folder, 0o755)?;
        let skeleton = Self { folder, layers: Layers(layers) };
        skeleton.dress(Path::new("/"))?;
        Ok(skeleton)
    }

    /// Its folder, the top layer.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Name, hosts and name servers. Without them Apache and sshd wait for seconds.
    pub fn surroundings(&self, surroundings: &Surroundings) -> Result<(), Error> {
        let name = surroundings.hostname;
        self.file("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
        let hosts = format!("127.0.0.1 localhost\n{} {name}\n::1 localhost ip6-localhost ip6-loopback\n", surroundings.address);
        self.file("/etc/hosts", hosts.as_bytes(), 0o644)?;
        let resolver = if surroundings.outbound { host_resolver() } else { String::new() };
        self.file("/etc/resolv.conf", resolver.as_bytes(), 0o644)
    }

    /// A file of the machine's root.
    pub fn file(&self, path: &str, content: &[u8], mode: u32) -> Result<(), Error> {
        let path = Path::new(path);
        self.parents(path)?;
        let place = self.inside(path);
        fs::write(&place, content).context(|| format!("writing {}", place.display()))?;
        own(&place, mode)
    }

    /// A mount point for a folder.
    pub fn folder_at(&self, path: &Path) -> Result<(), Error> {
        self.parents(path)?;
        self.make(path)
    }

    /// A copy of a file of the host, with its mode, owned by the machine's root.
    pub fn copy(&self, path: &Path, from: &Path) -> Result<PathBuf, Error> {
        let content = fs::read(from).context(|| format!("reading {}", from.display()))?;
        let mode = fs::metadata(from).context(|| format!("reading {}", from.display()))?.permissions().mode() & 0o7777;
        self.file(&path.to_string_lossy(), &content, mode)?;
        Ok(self.inside(path))
    }

    fn parents(&self, path: &Path) -> Result<(), Error> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
        above.reverse();
        above.into_iter().try_for_each(|folder| self.make(folder))
    }

    fn make(&self, path: &Path) -> Result<(), Error> {
        let place = self.inside(path);
        if fs::symlink_metadata(&place).is_err() {
            fs::DirBuilder::new().mode(0o755).create(&place).context(|| format!("making {}", place.display()))?;
        }
        self.dress(path)
    }

    /// Gives a folder the image's owner and mode. A link of the image (`/var/run`) is no folder: nothing may be put through it.
    fn dress(&self, path: &Path) -> Result<(), Error> {
        let place = self.inside(path);
        match self.layers.find(path) {
            Some(found) if found.is_dir() => {
                lchown(&place, Some(found.uid()), Some(found.gid())).context(|| format!("setting the owner of {}", place.display()))?;
                file::set_mode(&place, found.permissions().mode() & 0o7777)
            }
            Some(_) => Err(Error::new(format!("{} is no folder in the image", path.display()))
                .kind(ErrorKind::Invalid)
                .hint("name the folder itself, not a link to it: `/run`, not `/var/run`")),
            None => own(&place, 0o755),
        }
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn own(place: &Path, mode: u32) -> Result<(), Error> {
    lchown(place, Some(OWNER_SHIFT), Some(OWNER_SHIFT)).context(|| format!("setting the owner of {}", place.display()))?;
    file::set_mode(place, mode)
}

/// The host's name servers. systemd-resolved's stub listens on the host's loopback, which no machine reaches: then the real servers, which it lists beside.
fn host_resolver() -> String {
    const REAL: &str = "/run/systemd/resolve/resolv.conf";
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if text.lines().any(|line| line.trim_start().starts_with("nameserver 127.0.0.53")) {
        return fs::read_to_string(REAL).unwrap_or(text);
    }
    text
}

/// A path that is declared by a person: absolute, without `..`.
///
/// # Errors
/// When it is not.
pub fn declared_path(path: &Path) -> Result<(), Error> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.parent().is_some() {
        return Ok(());
    }
    Err(Error::new(format!("`{}` cannot be mounted in a node", path.display()))
        .kind(ErrorKind::Invalid)
        .hint("write an absolute path below `/`, without `..`"))
}

/// Mounts the overlay of these trees (the lowest first) at `place`; with `upper` and its work folder it is writable.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_overlay(place: &Path, trees: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<(), Error> {
    file::make_folder(place, 0o711)?;
    let lower: Vec<String> = trees.iter().rev().map(|tree| escaped(tree)).collect();
    // A folder's rename must be seen as what it is by whoever packs the upper tree, hence no redirects and no copies of metadata alone.
    let mut options = format!("lowerdir={},redirect_dir=off,index=off,metacopy=off", lower.join(":"));
    if let Some((upper, work)) = upper {
        // Volatile: what a build node changes is read once and thrown away, so no package's installation has to wait for the disk.
        options.push_str(&format!(",upperdir={},workdir={},volatile", escaped(upper), escaped(work)));
    }
    if options.len() > OPTIONS_LIMIT {
        return Err(Error::new(format!("{} layers do not fit into one mount", trees.len())).hint("use a state folder with a shorter path"));
    }
    let options = CString::new(options).map_err(|_| Error::new("a path holds a zero byte"))?;
    let flags = if upper.is_none() { MountFlags::RDONLY | MountFlags::NODEV } else { MountFlags::NODEV };
    mount("overlay", place, "overlay", flags, Some(options.as_c_str()))
        .map_err(std::io::Error::from)
        .context(|| format!("mounting the root file system at {}", place.display()))
}

/// Commas end an option and colons a layer; the kernel takes a backslash before them.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
}

/// Unmounts what is mounted at or below a folder, the deepest first, and removes the folder.
///
/// # Errors
/// When the folder cannot be removed.
pub fn unmount_all(folder: &Path) -> Result<(), Error> {
    for place in mounts_below(folder) {
        // Detached: a process that still holds it does not hinder; the mount goes with that process.
        let _ = unmount(&place, UnmountFlags::DETACH);
    }
    if let Some(place) = mounts_below(folder).first() {
        return Err(Error::new(format!("{} is still mounted", place.display())));
    }
    file::remove_folder(folder)
}

/// Where something is mounted at or below a folder, the deepest first.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| PathBuf::from(place.replace("\\040", " ")));
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    places.sort();
    places.reverse();
    places
}

/// Where the machine's own mounts go below its folder of mounts.
pub struct Places {
    /// The root file system.
    pub root: PathBuf,
    /// The sysfs.
    pub sys: PathBuf,
}

impl Places {
    /// The places in this folder. They may be entered, not listed, by the machine's user 0, as whom the runtime enters them.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(folder: &Path) -> Result<Self, Error> {
        unmount_all(folder)?;
        let places = Self { root: folder.join("root"), sys: folder.join("sys") };
        for place in [folder, &places.root, &places.sys] {
            file::make_folder(place, 0o711)?;
            file::set_mode(place, 0o711)?;
        }
        Ok(places)
    }
}

/// The mounts of a node's declared paths.
///
/// # Errors
/// When a path cannot be mounted.
pub fn declared_mounts(
    skeleton: &Skeleton,
    writable: &[PathBuf],
    volumes: &BTreeMap<PathBuf, PathBuf>,
) -> Result<BTreeMap<PathBuf, Mount>, Error> {
    let mut mounts = BTreeMap::new();
    for path in writable {
        declared_path(path)?;
        mounts.insert(path.clone(), skeleton.layers.writable(path));
    }
    for (path, source) in volumes {
        declared_path(path)?;
        mounts.insert(path.clone(), Mount::Bind { source: source.clone(), writable: true });
    }
    for path in mounts.keys() {
        // A mount point inside another mount is made by the runtime, in there.
        let inside_another = path.ancestors().skip(1).any(|above| mounts.contains_key(above));
        if !inside_another {
            skeleton.folder_at(path)?;
        }
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nssl-cert:x:110:www-data,postgres\n";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let found = identity("www-data", PASSWD, GROUP).unwrap();
        assert_eq!(found, Identity { user: 33, group: 33, groups: vec![110] });
        assert_eq!(identity("5:6", PASSWD, GROUP).unwrap(), Identity { user: 5, group: 6, groups: vec![] });
        assert_eq!(identity("nginx", PASSWD, GROUP).unwrap_err().error_kind(), ErrorKind::Invalid);
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escaped(Path::new("/a,b:c")), "/a\\,b\\:c");
    }

    #[test]
    fn only_plain_absolute_paths_are_mounted() {
        for wrong in ["run", "/", "/run/../etc", ""] {
            assert!(declared_path(Path::new(wrong)).is_err(), "{wrong}");
        }
        declared_path(Path::new("/run/apache2")).unwrap();
    }
}
