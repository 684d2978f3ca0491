//! The base layer: a minimal Debian or Ubuntu, made by mmdebstrap, kept in a cache that installations share.

use crate::blob::{BlobStore, write_atomically};
use crate::input::Inputs;
use crate::layer;
use crate::lock;
use crate::packages;
use crate::progress::{Listener, Phase};
use crate::spec::{BaseSpec, HOST_SUITE};
use crate::unpack::Trees;
use crate::view::View;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::OWNER_SHIFT;
use gapless_engine::workbench::Workbench;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Counted up when the way a base is made changes, so that older ones in a cache are not used.
const BASE_VERSION: u32 = 1;

/// These three belong to a running node, which gets its own; the host's must not be in the image. Removed first: a package may have put a link there, which outside of the
/// new system leads to the host's own file.
const NODE_FILES: &str = r#"set -eu; cd "$1/etc"; rm -f resolv.conf hostname hosts
: > resolv.conf; echo localhost > hostname; echo 127.0.0.1 localhost > hosts"#;

/// How often apt asks a mirror again, and after how many silent seconds it gives up an answer: a mirror that hangs must not hang a build.
const APT_OPTIONS: [&str; 3] = [r#"Acquire::Retries "3""#, r#"Acquire::http::Timeout "20""#, r#"Acquire::https::Timeout "20""#];

/// The cache of base systems and build tools.
#[derive(Clone, Debug)]
pub struct BaseCache {
    /// Where it is.
    pub folder: PathBuf,
    /// Its layers.
    pub blobs: BlobStore,
    /// The trees of its layers, for build nodes.
    pub trees: Trees,
    keeper: Keeper,
}

/// Who ends the programs that a killed server leaves.
#[derive(Clone, Default)]
struct Keeper(Option<Arc<dyn Workbench>>);

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Keeper" } else { "no Keeper" })
    }
}

/// A base system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Such as `bookworm`.
    pub suite: String,
    layer: String,
    /// `name version` of each installed package: the base is pinned by this list.
    pub packages: Vec<String>,
}

impl Base {
    /// Its layer.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the cache's record is damaged.
    pub fn layer(&self) -> Result<Digest, Error> {
        self.layer.parse().map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt))
    }
}

impl BaseCache {
    /// Opens the cache in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let blobs = BlobStore::open(folder.join("blobs"))?;
        let trees = Trees::open(folder.join("trees"), OWNER_SHIFT)?;
        Ok(Self { folder: folder.into(), blobs, trees, keeper: Keeper::default() })
    }

    /// The same; the programs that make bases become this workbench's helpers, so that they end when the server was killed.
    pub(crate) fn kept_by(mut self, workbench: Arc<dyn Workbench>) -> Self {
        self.keeper = Keeper(Some(workbench));
        self
    }

    /// The base that `spec` asks for, and whether it was there already. Blocks the thread, for some 15 seconds when it has to be made.
    ///
    /// # Errors
    /// When mmdebstrap is missing or fails, in its own words.
    pub fn base(&self, spec: &BaseSpec, listener: &Listener) -> Result<(Base, bool), Error> {
        let suite = if spec.suite == HOST_SUITE { host_suite()? } else { spec.suite.clone() };
        check_arguments(&suite, spec)?;
        let key = key(&suite, spec);
        let _lock = lock::take(&self.folder.join(format!("base-{}.lock", key.hex())))?;
        if let Some(base) = self.record::<Base>("base", key)?
            && self.blobs.contains(base.layer()?)
        {
            return Ok((base, true));
        }
        let base = self.in_scratch(&format!("base-{}", key.hex()), |scratch| self.make(scratch, &suite, spec, listener))?;
        self.keep_record("base", key, &base)?;
        Ok((base, false))
    }

    fn make(&self, scratch: &Path, suite: &str, spec: &BaseSpec, listener: &Listener) -> Result<Base, Error> {
        let root = scratch.join("root");
        let mut command = mmdebstrap(scratch, "minbase");
        let mut packages = vec!["ca-certificates"];
        packages.extend(spec.packages.iter().map(String::as_str));
        command.arg(format!("--include={}", packages.join(",")));
        command.args(APT_OPTIONS.map(|option| format!("--aptopt={option}")));
        command.arg(format!("--customize-hook={NODE_FILES}"));
        command.arg(suite).arg(&root).args(mirror(suite, spec));
        self.run(command, Phase::Base, listener)?;
        let packages = packages::installed(&root)?;
        let system = View::of(&[&root], 0)?;
        let difference = system.difference(&View::default())?;
        let layer = self.blobs.put(|writer| layer::pack(&difference, writer)).context(|| "keeping the base layer".into())?;
        Ok(Base { suite: suite.into(), layer: layer.to_string(), packages })
    }

    /// Runs mmdebstrap to its end, telling each line.
    pub(crate) fn run(&self, mut command: Command, phase: Phase, listener: &Listener) -> Result<(), Error> {
        if let Some(workbench) = &self.keeper.0 {
            workbench.adopt(&mut command)?;
        }
        run(command, phase, listener)
    }

    /// Lets `work` use an empty folder that is gone afterwards.
    pub(crate) fn in_scratch<T>(&self, name: &str, work: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        let scratch = self.folder.join("scratch").join(name);
        let preparing = || format!("preparing {}", scratch.display());
        if scratch.exists() {
            fs::remove_dir_all(&scratch).context(preparing)?;
        }
        fs::create_dir_all(&scratch).context(preparing)?;
        let done = work(&scratch);
        let removed = fs::remove_dir_all(&scratch).context(|| format!("removing {}", scratch.display()));
        done.and_then(|value| removed.map(|()| value))
    }

    pub(crate) fn record<T: for<'a> Deserialize<'a>>(&self, kind: &str, key: Digest) -> Result<Option<T>, Error> {
        read_record(&self.folder, kind, key)
    }

    pub(crate) fn keep_record<T: Serialize>(&self, kind: &str, key: Digest, record: &T) -> Result<(), Error> {
        keep_record(&self.folder, kind, key, record)
    }
}

/// What was made of the inputs with this key, if it was. A record that cannot be read counts as none: it is made again.
pub(crate) fn read_record<T: for<'a> Deserialize<'a>>(folder: &Path, kind: &str, key: Digest) -> Result<Option<T>, Error> {
    let path = folder.join(format!("{kind}-{}.json", key.hex()));
    match fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("reading {}", path.display())),
    }
}

/// Remembers what was made of the inputs with this key.
pub(crate) fn keep_record<T: Serialize>(folder: &Path, kind: &str, key: Digest, record: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(record).map_err(|error| Error::new(format!("writing JSON: {error}")))?;
    write_atomically(&folder.join(format!("{kind}-{}.json", key.hex())), &text)
}

fn key(suite: &str, spec: &BaseSpec) -> Digest {
    let mut inputs = Inputs::new("base", BASE_VERSION);
    inputs.add("architecture", std::env::consts::ARCH.as_bytes());
    inputs.add("suite", suite.as_bytes());
    inputs.add("mirror", spec.mirror.as_deref().unwrap_or("").as_bytes());
    inputs.add("snapshot", spec.snapshot.as_deref().unwrap_or("").as_bytes());
    spec.packages.iter().for_each(|package| inputs.add("package", package.as_bytes()));
    inputs.key()
}

/// The suite of the distribution that this host runs.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it is neither Debian nor Ubuntu.
pub fn host_suite() -> Result<String, Error> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    suite_of(&text).ok_or_else(|| {
        Error::new(format!("{path} names no suite of Debian or Ubuntu"))
            .kind(ErrorKind::Invalid)
            .hint("set `suite` and `mirror` in the image's `base` block, such as suite = \"bookworm\"")
    })
}

fn suite_of(os_release: &str) -> Option<String> {
    let field =
        |name: &str| os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'));
    matches!(field("ID")?, "debian" | "ubuntu").then(|| field("VERSION_CODENAME").map(str::to_owned))?
}

/// Where packages come from; nothing: from where the host's own come, which is mmdebstrap's way.
fn mirror(suite: &str, spec: &BaseSpec) -> Vec<String> {
    let Some(mirror) = &spec.mirror else { return Vec::new() };
    match &spec.snapshot {
        Some(snapshot) => vec![format!("deb [check-valid-until=no] {}/{snapshot}/ {suite} main", mirror.trim_end_matches('/'))],
        None => vec![mirror.clone()],
    }
}

/// Whatever becomes an argument of mmdebstrap must not look like an option or a command.
fn check_arguments(suite: &str, spec: &BaseSpec) -> Result<(), Error> {
    let plain = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let refuse = |what: &str, text: &str| Err(Error::new(format!("`{text}` is no {what}")).kind(ErrorKind::Invalid));
    if !plain(suite, "-.") {
        return refuse("suite", suite);
    }
    if let Some(package) = spec.packages.iter().find(|package| !plain(package, "+-.:")) {
        return refuse("package", package);
    }
    if let Some(snapshot) = spec.snapshot.as_ref().filter(|snapshot| !plain(snapshot, "-.")) {
        return refuse("snapshot", snapshot);
    }
    if spec.snapshot.is_some() && spec.mirror.is_none() {
        return Err(Error::new("the image's `base` block names a snapshot, but no mirror that keeps it")
            .kind(ErrorKind::Invalid)
            .hint("add the mirror that keeps it: mirror = \"http://…\", for Debian the address of its snapshot archive"));
    }
    match spec.mirror.as_ref().filter(|mirror| !mirror.contains("://") || !plain(mirror, ":/.-_~+%")) {
        Some(mirror) => refuse("mirror", mirror),
        None => Ok(()),
    }
}

/// mmdebstrap as root, with a folder as its result. Its own scratch is in `scratch`, so that whatever a killed one leaves is found.
pub(crate) fn mmdebstrap(scratch: &Path, variant: &str) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--format=directory"]).arg(format!("--variant={variant}"));
    command.env("TMPDIR", scratch).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs it to its end, telling each line.
fn run(mut command: Command, phase: Phase, listener: &Listener) -> Result<(), Error> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let error_text = Error::new(format!("starting mmdebstrap: {error}"));
        if error.kind() == std::io::ErrorKind::NotFound { error_text.hint("install it: apt-get install mmdebstrap") } else { error_text }
    })?;
    let mut said = Vec::new();
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            listener.line(phase, line.clone());
            said.push(line);
            if said.len() > REPORTED_LINES {
                said.remove(0);
            }
        }
    }
    let status = child.wait().context(|| "waiting for mmdebstrap".into())?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("mmdebstrap failed ({status}):\n{}", said.join("\n")))
        .hint("see whether the mirror can be reached and has the suite and the packages"))
}

/// How many of the last lines of a failed program are shown: enough to hold its reason.
const REPORTED_LINES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_the_hosts_own() {
        assert_eq!(suite_of("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(suite_of("VERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n").as_deref(), Some("noble"));
        assert_eq!(suite_of("ID=\"fedora\"\nVERSION_CODENAME=\"\"\n"), None);
    }

    #[test]
    fn a_link_to_a_file_of_the_host_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (root, host) = (folder.path().join("root"), folder.path().join("host"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(&host, "the host's").unwrap();
        for name in ["resolv.conf", "hostname", "hosts"] {
            std::os::unix::fs::symlink(&host, root.join("etc").join(name)).unwrap();
        }
        assert!(Command::new("sh").args(["-c", NODE_FILES, "hook"]).arg(&root).status().unwrap().success());
        assert_eq!(fs::read_to_string(&host).unwrap(), "the host's");
        assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(fs::read_to_string(root.join("etc/resolv.conf")).unwrap(), "");
    }

    #[test]
    fn what_looks_like_an_option_is_refused() {
        let with = |change: fn(&mut BaseSpec)| {
            let mut spec = BaseSpec::default();
            change(&mut spec);
            check_arguments("bookworm", &spec)
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|spec| spec.packages = vec!["nginx-light".into(), "libc6:amd64".into()]).is_ok());
        assert!(with(|spec| spec.packages = vec!["--setup-hook=id".into()]).is_err());
        assert!(with(|spec| spec.packages = vec!["a,b".into()]).is_err());
        assert!(with(|spec| spec.mirror = Some("http://deb.example.org/debian".into())).is_ok());
        assert!(with(|spec| spec.mirror = Some("copy:///etc x".into())).is_err());
        assert!(with(|spec| spec.snapshot = Some("20250520T000000Z".into())).is_err());
        assert!(check_arguments("-x", &BaseSpec::default()).is_err());
    }

    #[test]
    fn each_input_changes_the_key() {
        let plain = BaseSpec::default();
        let keys = [
            key("bookworm", &plain),
            key("trixie", &plain),
            key("bookworm", &BaseSpec { packages: vec!["curl".into()], ..plain.clone() }),
            key("bookworm", &BaseSpec { mirror: Some("http://x/".into()), ..plain.clone() }),
            key("bookworm", &BaseSpec { snapshot: Some("1".into()), ..plain.clone() }),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(key("bookworm", &plain), keys[0]);
    }
}
