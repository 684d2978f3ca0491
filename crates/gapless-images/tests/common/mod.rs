//! An installation of a test: a repository, images, the local platform's workbench, a builder. Everything on the host is gone when it is dropped.

use async_trait::async_trait;
use gapless_engine::error::Error;
use gapless_engine::workbench::{Bench, BenchRequest, SandboxEnd, SandboxRequest, Workbench};
use gapless_images::base::BaseCache;
use gapless_images::build::{Builder, Built};
use gapless_images::commit::Commit;
use gapless_images::progress::{Listener, Step};
use gapless_images::spec::{ImageSpec, PackerSpec};
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

pub struct Site {
    pub images: ImageStore,
    pub runtime: tokio::runtime::Runtime,
    pub bench: Arc<Recording>,
    builder: Builder,
    id: String,
    folder: tempfile::TempDir,
}

/// The platform's workbench, remembering what was run in sandboxes.
pub struct Recording {
    platform: LocalPlatform,
    commands: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl Workbench for Recording {
    async fn open(&self, request: BenchRequest) -> Result<Bench, Error> {
        self.platform.open(request).await
    }

    async fn close(&self, name: &str) -> Result<(), Error> {
        self.platform.close(name).await
    }

    async fn run(&self, request: SandboxRequest) -> Result<SandboxEnd, Error> {
        self.commands.lock().unwrap().push(request.command.clone());
        self.platform.run(request).await
    }
}

/// Base systems are kept beside the build, so that a second run of the tests needs no mirror for them.
fn cache() -> BaseCache {
    BaseCache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("images-cache")).unwrap()
}

/// 6 hexadecimal digits that follow from a folder's random name.
fn id_of(folder: &Path) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = folder.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:06x}", (hash >> 20) & 0xff_ffff)
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("images-")
            .disable_cleanup(std::env::var_os("GAPLESS_TEST_KEEP").is_some())
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        let images = ImageStore::open(&state.join("images")).unwrap();
        let id = id_of(folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = LocalOptions::new(state.clone(), id.clone(), Vec::new(), Arc::new(images.clone()));
        let platform = runtime.block_on(LocalPlatform::open(options)).unwrap();
        let bench = Arc::new(Recording { platform, commands: Mutex::default() });
        let builder = Builder::open(images.clone(), cache(), &state.join("builds"), bench.clone()).unwrap();
        let site = Self { images, runtime, bench, builder, id, folder };
        fs::create_dir(site.repository()).unwrap();
        git(&site.repository(), &["init", "-q"]);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn write(&self, path: &str, content: &str) {
        let place = self.repository().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    pub fn commit(&self) -> Commit {
        git(&self.repository(), &["add", "-A"]);
        git(&self.repository(), &["commit", "-q", "-m", "change"]);
        Commit::find(&self.repository(), "HEAD").unwrap()
    }

    pub fn build(&self, spec: &ImageSpec, name: &str) -> Result<Built, Error> {
        let listener = Listener::new(|step| match step {
            Step::Line(..) => {}
            other => eprintln!("{other:?}"),
        });
        self.runtime.block_on(self.builder.build(&self.commit(), spec, &self.path("logs").join(name), &listener))
    }

    /// How often `packer build` was started.
    pub fn packer_runs(&self) -> usize {
        self.bench.commands.lock().unwrap().iter().filter(|command| command.get(1).is_some_and(|argument| argument == "build")).count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let removed = Leftovers::of(&self.id, &self.path("state")).and_then(|leftovers| leftovers.remove_everything());
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let settings =
        ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"];
    let output = Command::new("git").arg("-C").arg(folder).args(settings).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image that a template provisions, without an application.
pub fn provisioned() -> ImageSpec {
    ImageSpec { packer: Some(PackerSpec { template: "packer/web.json".into(), ..PackerSpec::default() }), ..ImageSpec::default() }
}

/// A template for the `null` builder.
pub fn template(provisioners: &str) -> String {
    format!(r#"{{ "builders": [{{ "type": "null" }}], "provisioners": [{provisioners}] }}"#)
}

/// The provisioner that applies `puppet/site.pp`.
pub const PUPPET: &str = r#"{ "type": "puppet-masterless", "manifest_file": "puppet/site.pp" }"#;
