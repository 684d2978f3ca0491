//! What the local platform's tests share: an installation of its own for each test.

use crate::service::OneTree;
use gapless_engine::images::{Images, OWNER_SHIFT};
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// An installation of a test. Dropping it removes everything from the host and checks that nothing is left.
pub struct Installation {
    pub folder: tempfile::TempDir,
    pub id: String,
}

impl Installation {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("local-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let installation = Self { id: id_of(folder.path()), folder };
        make_image(&installation.image());
        fs::create_dir(installation.state()).unwrap();
        fs::set_permissions(installation.state(), fs::Permissions::from_mode(0o700)).unwrap();
        installation
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// A file of the volume that the tests' nodes have.
    pub fn in_volume(&self, name: &str) -> PathBuf {
        self.state().join("volumes/hello/kept").join(name)
    }

    /// Puts a file into the volume.
    pub fn put(&self, name: &str) {
        fs::create_dir_all(self.in_volume("")).unwrap();
        fs::write(self.in_volume(name), "").unwrap();
    }

    /// How many lines a file of the volume has; none if it is not there.
    pub fn lines(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.in_volume(name)).unwrap_or_default();
        u32::try_from(text.lines().count()).unwrap()
    }

    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(&self.id, &self.state()).unwrap()
    }

    pub async fn open(&self) -> LocalPlatform {
        self.open_with(Vec::new()).await
    }

    pub async fn open_with(&self, proxies: Vec<PathBuf>) -> LocalPlatform {
        self.open_from(proxies, Arc::new(OneTree(self.image()))).await
    }

    pub async fn open_from(&self, proxies: Vec<PathBuf>, images: Arc<dyn Images>) -> LocalPlatform {
        LocalPlatform::open(LocalOptions::new(self.state(), self.id.clone(), proxies, images))
            .await
            .unwrap_or_else(|error| panic!("{error} ({:?})", error.hint_text()))
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::env::var_os("GAPLESS_TEST_KEEP").is_some() {
            std::mem::forget(std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()));
            return;
        }
        let removed = self.leftovers().remove_everything();
        if !std::thread::panicking() {
            removed.unwrap();
            assert_eq!(marks_on_host(&self.id), Vec::<String>::new(), "something is left on the host");
        }
    }
}

/// Everything on the host whose name carries the installation's id, looked for without the platform's own code.
pub fn marks_on_host(id: &str) -> Vec<String> {
    let output =
        |program: &str, arguments: &[&str]| String::from_utf8(Command::new(program).args(arguments).output().unwrap().stdout).unwrap();
    let sources = [
        fs::read_to_string("/proc/self/mountinfo").unwrap(),
        output("ip", &["-br", "link"]),
        output("ip", &["netns"]),
        output("nft", &["list", "tables"]),
        output("find", &["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{id}*")]),
        output("ls", &["/run/gapless"]),
        processes(),
    ];
    sources.iter().flat_map(|text| text.lines()).filter(|line| line.contains(id)).map(str::to_string).collect()
}

/// The control groups of all processes that run. One that ended and that nobody has waited for yet has no command line any more.
fn processes() -> String {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    let running = pids.filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty()));
    running.map(|entry| fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default()).collect()
}

/// An id that follows from a folder's random name.
fn id_of(folder: &Path) -> String {
    let hash = folder
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:06x}", (hash >> 20) & 0xff_ffff)
}

/// A tree with the program and what a system has around it, owned by the nodes' root.
fn make_image(tree: &Path) {
    for folder in ["", "etc", "proc", "dev", "sys", "tmp", "run", "data", "root", "var"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();
    fs::copy(program(), tree.join("program")).unwrap();
    own(tree);
    // A folder of the image that belongs to somebody else than root: as a writable path it must stay so.
    lchown(tree.join("data"), Some(OWNER_SHIFT + 33), Some(OWNER_SHIFT + 33)).unwrap();
    fs::set_permissions(tree.join("data"), fs::Permissions::from_mode(0o750)).unwrap();
}

fn own(path: &Path) {
    lchown(path, Some(OWNER_SHIFT), Some(OWNER_SHIFT)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| own(&entry.path()));
    }
}

/// The program, compiled once for all tests; they may run at the same time.
pub fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/local/program.rs");
    let built = folder.join("node-program");
    let lock = fs::File::create(folder.join("node-program.lock")).unwrap();
    lock.lock().unwrap();
    let newer =
        |one: &Path, other: &Path| fs::metadata(one).unwrap().modified().unwrap() > fs::metadata(other).unwrap().modified().unwrap();
    if !built.exists() || newer(&source, &built) {
        let unfinished = folder.join("node-program.new");
        let arguments = ["--edition", "2021", "--crate-type", "bin", "-C", "opt-level=1", "-C", "target-feature=+crt-static", "-o"];
        assert!(Command::new("rustc").args(arguments).arg(&unfinished).arg(&source).status().unwrap().success());
        fs::rename(&unfinished, &built).unwrap();
    }
    built
}
