//! The root file system of a machine: an overlay of read-only trees, topped by a small tree of its own with its name and its mount points.

use super::bundle::{Identity, Mount};
use super::file;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::{OWNER_COUNT, OWNER_SHIFT};
use gapless_engine::inside;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a check that was just being started when its machine ended may go on writing: its runtime fails within milliseconds.
const WRITER_DEADLINE: Duration = Duration::from_secs(2);

/// After that it is tried again; nobody tells when such a one has ended.
const WRITER_PAUSE: Duration = Duration::from_millis(10);

/// The kernel takes one page of mount options: what does not fit needs fewer layers or a shorter path.
const OPTIONS_LIMIT: usize = 4095;

/// The mode of a writable path that the image does not have: everybody's, as for `/tmp`.
const FREE_MODE: u32 = 0o1777;

/// The most bytes of an image's list of users or groups: ten thousands of them fit, and it is held in memory.
const ACCOUNTS_BYTES: u64 = 4 * 1024 * 1024;

/// The layers of an image, the lowest first.
pub struct Layers<'a>(pub &'a [PathBuf]);

impl Layers<'_> {
    /// A file of the image, as the topmost layer that has it gives it. Links are not followed, neither at the end nor on the way: whoever made the image must not
    /// be able to point at something of the host.
    fn find(&self, path: &Path) -> Option<fs::Metadata> {
        let found = self.0.iter().rev().find_map(|layer| entry(layer, path))?;
        // A layer's word for "no longer there" in the kernel's overlay.
        let whiteout = found.file_type().is_char_device() && found.rdev() == 0;
        (!whiteout).then_some(found)
    }

    /// A file's text, as the topmost layer that has it gives it; none is empty.
    fn read(&self, path: &Path) -> Result<String, Error> {
        for layer in self.0.iter().rev() {
            match inside::read_text(layer, path, ACCOUNTS_BYTES) {
                Err(error) if error.error_kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Ok(String::new())
    }

    /// The numeric identity of `name`, `user` or `user:group` as the image knows it.
    ///
    /// # Errors
    /// When the image does not know the name.
    pub fn identity(&self, name: &str) -> Result<Identity, Error> {
        let found = match numeric(name) {
            Some((user, group)) => Identity { user, group, groups: Vec::new() },
            None => named(name, &self.read(Path::new("/etc/passwd"))?, &self.read(Path::new("/etc/group"))?)?,
        };
        within_a_node(name, found)
    }

    /// A writable path, with its owner and mode in the image.
    pub fn writable(&self, path: &Path) -> Mount {
        match self.find(path).filter(fs::Metadata::is_dir) {
            Some(found) => {
                Mount::Writable { user: shown(found.uid()), group: shown(found.gid()), mode: found.permissions().mode() & 0o7777 }
            }
            None => Mount::Writable { user: 0, group: 0, mode: FREE_MODE },
        }
    }
}

/// What a layer has at a path, if no link is on the way to it.
fn entry(layer: &Path, path: &Path) -> Option<fs::Metadata> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let folder = openat(CWD, layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat2(folder, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).ok()?;
    fs::File::from(found).metadata().ok()
}

/// An owner on the host as the node sees it. An id that no node has counts as root's.
fn shown(owner: u32) -> u32 {
    owner.checked_sub(OWNER_SHIFT).filter(|id| *id < OWNER_COUNT).unwrap_or(0)
}

/// Only the ids of a node's own range: beyond it they would be other users of the host, those of sandboxes among them.
fn within_a_node(name: &str, identity: Identity) -> Result<Identity, Error> {
    let mut ids = [identity.user, identity.group].into_iter().chain(identity.groups.iter().copied());
    match ids.find(|id| *id >= OWNER_COUNT) {
        None => Ok(identity),
        Some(id) => Err(Error::new(format!("`{name}` has the id {id}, and a node has only the ids below {OWNER_COUNT}"))
            .kind(ErrorKind::Invalid)
            .hint("take another user, or give it and its groups lower numbers in the image")),
    }
}

fn named(name: &str, passwd: &str, group: &str) -> Result<Identity, Error> {
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
    // A build node's scripts may need programs that change the user; a node never may, nor may anybody who finds the way to its files.
    let flags = if upper.is_none() { MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID } else { MountFlags::NODEV };
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
    for place in mounts_below(folder)? {
        // Detached: a process that still holds it does not hinder; the mount goes with that process.
        let _ = unmount(&place, UnmountFlags::DETACH);
    }
    if let Some(place) = mounts_below(folder)?.first() {
        return Err(Error::new(format!("{} is still mounted", place.display())));
    }
    remove_written(folder)
}

/// Removes a folder in which a check may still write that was just being started when its machine ended.
fn remove_written(folder: &Path) -> Result<(), Error> {
    let end = Instant::now() + WRITER_DEADLINE;
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && Instant::now() < end => std::thread::sleep(WRITER_PAUSE),
            removed => return removed.context(|| format!("removing {}", folder.display())),
        }
    }
}

/// Where something is mounted at or below a folder, the deepest first.
///
/// # Errors
/// When nobody can know.
pub fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let text = file::mountinfo()?;
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| PathBuf::from(place.replace("\\040", " ")));
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    places.sort();
    places.reverse();
    Ok(places)
}

/// Where the machine's own mounts go below its folder of mounts.
pub struct Places {
    /// The root file system.
    pub root: PathBuf,
    /// The sysfs.
    pub sys: PathBuf,
}

impl Places {
    /// The places in this folder. It may be entered, not listed, by the machine's root alone (this id on the host), as whom the runtime enters it: the application's
    /// files, and programs that would run as a user of the node, are nothing for other users of the host.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(folder: &Path, machine_root: u32) -> Result<Self, Error> {
        unmount_all(folder)?;
        let places = Self { root: folder.join("root"), sys: folder.join("sys") };
        file::make_folder(folder, 0o700)?;
        for place in [&places.root, &places.sys] {
            file::make_folder(place, 0o711)?;
            file::set_mode(place, 0o711)?;
        }
        chown(folder, Some(0), Some(machine_root)).context(|| format!("setting the group of {}", folder.display()))?;
        file::set_mode(folder, 0o710)?;
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

    /// A layer of an image with these files.
    fn layer(passwd: &str, group: &str) -> tempfile::TempDir {
        let layer = tempfile::tempdir().unwrap();
        fs::create_dir(layer.path().join("etc")).unwrap();
        fs::write(layer.path().join("etc/passwd"), passwd).unwrap();
        fs::write(layer.path().join("etc/group"), group).unwrap();
        layer
    }

    fn identity(name: &str, passwd: &str, group: &str) -> Result<Identity, Error> {
        let layer = layer(passwd, group);
        Layers(&[layer.path().to_path_buf()]).identity(name)
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let found = identity("www-data", PASSWD, GROUP).unwrap();
        assert_eq!(found, Identity { user: 33, group: 33, groups: vec![110] });
        assert_eq!(identity("5:6", PASSWD, GROUP).unwrap(), Identity { user: 5, group: 6, groups: vec![] });
        assert_eq!(identity("nginx", PASSWD, GROUP).unwrap_err().error_kind(), ErrorKind::Invalid);
    }

    #[test]
    fn ids_beyond_those_of_a_node_are_refused() {
        assert_eq!(identity("65535:65535", PASSWD, GROUP).unwrap().user, 65_535);
        // The second would be a sandbox's root, the third wraps around to the host's.
        for user in ["65536", "100000", "4294867296", "0:65536"] {
            assert_eq!(identity(user, PASSWD, GROUP).unwrap_err().error_kind(), ErrorKind::Invalid, "{user}");
        }
        assert!(identity("far", "far:x:4294867296:0::/:/bin/sh\n", "").is_err());
        assert!(identity("far", "far:x:1:4294867296::/:/bin/sh\n", "").is_err());
        assert!(identity("far", "far:x:1:1::/:/bin/sh\n", "host:x:4294867296:far\n").is_err());
        assert_eq!([100_033, 99_999, 165_535, 165_536, 0].map(shown), [33, 0, 65_535, 0, 0]);
    }

    #[test]
    fn an_image_cannot_make_the_host_read_something_else() {
        use rustix::fs::{FileType, makedev, mknodat};
        use std::os::unix::fs::symlink;
        let lower = layer(PASSWD, GROUP);
        let upper = layer("", "");
        let layers = [lower.path().to_path_buf(), upper.path().to_path_buf()];
        let passwd = upper.path().join("etc/passwd");
        let refused = |make: &dyn Fn(&Path)| {
            fs::remove_file(&passwd).unwrap();
            make(&passwd);
            let error = Layers(&layers).identity("www-data").unwrap_err();
            assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
        };
        refused(&|at| mknodat(CWD, at, FileType::Fifo, Mode::RUSR, 0).unwrap());
        refused(&|at| mknodat(CWD, at, FileType::CharacterDevice, Mode::RUSR, makedev(1, 5)).unwrap());
        refused(&|at| {
            mknodat(CWD, upper.path().join("zero"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 5)).unwrap();
            symlink("/zero", at).unwrap();
        });
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("accounts"), "www-data:x:7:7::/:/bin/sh\n").unwrap();
        fs::remove_file(&passwd).unwrap();
        symlink(host.path().join("accounts"), &passwd).unwrap();
        assert_eq!(Layers(&layers).identity("www-data").unwrap().user, 33, "the link leads nowhere in the image: the layer below counts");
    }

    #[test]
    fn a_link_of_the_image_shows_nothing_of_the_host() {
        let layer = layer(PASSWD, GROUP);
        let host = tempfile::tempdir().unwrap();
        fs::create_dir(host.path().join("inner")).unwrap();
        std::os::unix::fs::symlink(host.path(), layer.path().join("out")).unwrap();
        let layers = [layer.path().to_path_buf()];
        let layers = Layers(&layers);
        assert!(layers.find(Path::new("/")).unwrap().is_dir() && layers.find(Path::new("/etc")).unwrap().is_dir());
        assert!(layers.find(Path::new("/out")).unwrap().is_symlink());
        assert!(layers.find(Path::new("/out/inner")).is_none(), "a folder of the host is taken for one of the image");
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
