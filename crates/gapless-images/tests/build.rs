//! From a commit to an image with the real tools: mmdebstrap, Packer, Puppet. Needs root, runc, git and a package mirror.

mod common;

use common::TestBench;
use gapless_engine::error::ErrorKind;
use gapless_images::base::BaseCache;
use gapless_images::build::{Builder, Built};
use gapless_images::commit::Commit;
use gapless_images::progress::{Listener, Phase, Step};
use gapless_images::spec::{ApplicationSpec, ImageSpec, PackerSpec};
use gapless_images::unpack::ImageStore;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

struct Site {
    folder: tempfile::TempDir,
    images: ImageStore,
    bench: Arc<TestBench>,
    builder: Builder,
}

/// Base systems are kept beside the build, so that a second run of the tests needs no mirror for them.
fn cache() -> BaseCache {
    let target = std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    BaseCache::open(&target.join("images-cache")).unwrap()
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("gapless-images-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let images = ImageStore::open(&folder.path().join("images")).unwrap();
        let bench = Arc::new(TestBench::new(&folder.path().join("bench")));
        let builder = Builder::open(images.clone(), cache(), &folder.path().join("builds"), bench.clone()).unwrap();
        let repository = folder.path().join("repository");
        fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "-q"]);
        Self { folder, images, bench, builder }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn write(&self, path: &str, content: &str) {
        let place = self.repository().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    fn commit(&self) -> Commit {
        git(&self.repository(), &["add", "-A"]);
        git(&self.repository(), &["commit", "-q", "-m", "change"]);
        Commit::find(&self.repository(), "HEAD").unwrap()
    }

    fn build(&self, spec: &ImageSpec, name: &str) -> Result<Built, gapless_engine::error::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = Listener::new(|step| match step {
            Step::Line(..) => {}
            other => eprintln!("{other:?}"),
        });
        runtime.block_on(self.builder.build(&self.commit(), spec, &self.folder.path().join("logs").join(name), &listener))
    }

    fn packer_runs(&self) -> usize {
        self.bench.commands.lock().unwrap().iter().filter(|command| command.get(1).is_some_and(|argument| argument == "build")).count()
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn hello() -> ImageSpec {
    ImageSpec {
        packer: Some(PackerSpec { template: "packer/hello.json".into(), variables: Default::default() }),
        application: Some(ApplicationSpec { source: "app".into(), destination: "/srv/app".into(), owner: "root".into() }),
        ..ImageSpec::default()
    }
}

fn copy_hello(site: &Site) {
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hello");
    let status = Command::new("cp").arg("-r").arg(format!("{}/.", hello.display())).arg(site.repository()).status().unwrap();
    assert!(status.success());
}

fn layer(built: &Built, phase: Phase) -> gapless_core::digest::Digest {
    built.layers.iter().find(|layer| layer.phase == phase).unwrap().digest
}

#[test]
fn hello_is_built_once_and_then_only_what_changed() {
    let site = Site::new();
    copy_hello(&site);
    let first = site.build(&hello(), "first").unwrap();
    assert!(first.changes.contains(&"Package[apache2]".to_owned()), "{:?}", first.changes);
    assert_eq!(site.packer_runs(), 1);

    site.write("app/public/version", "2\n");
    let second = site.build(&hello(), "second").unwrap();
    assert_eq!(site.packer_runs(), 1, "Packer was started for a change of the application alone");
    assert_eq!(layer(&first, Phase::Base), layer(&second, Phase::Base));
    assert_eq!(layer(&first, Phase::Provision), layer(&second, Phase::Provision));
    assert_ne!(layer(&first, Phase::Application), layer(&second, Phase::Application));
    assert_ne!(first.image, second.image);
    assert_eq!(first.changes, second.changes);

    site.write("README", "changes nothing that is in the image\n");
    assert_eq!(site.build(&hello(), "third").unwrap().image, second.image);
    assert!(site.images.examine().unwrap().is_empty());
}

#[test]
fn a_build_whose_second_puppet_run_changes_something_is_rejected() {
    let site = Site::new();
    site.write("packer/web.json", r#"{ "builders": [{ "type": "null" }], "provisioners": [{ "type": "puppet-masterless", "manifest_file": "puppet/site.pp" }] }"#);
    site.write("puppet/site.pp", "exec { '/usr/bin/touch /srv/again': }\nfile { '/srv/once': ensure => file }\n");
    let spec = ImageSpec { packer: Some(PackerSpec { template: "packer/web.json".into(), ..Default::default() }), ..ImageSpec::default() };
    let error = site.build(&spec, "twice").unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("Exec[/usr/bin/touch /srv/again]") && text.contains("site.pp:1"), "{text}");
    assert!(!text.contains("/srv/once"), "{text}");
}
