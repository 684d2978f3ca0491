//! Reading commits and making application layers of them.

use gapless_engine::error::ErrorKind;
use gapless_engine::images::OWNER_SHIFT;
use gapless_images::application;
use gapless_images::blob::BlobStore;
use gapless_images::commit::{Commit, CommitFile};
use gapless_images::spec::ApplicationSpec;
use gapless_images::unpack::Trees;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "-q"]);
        repository
    }

    fn git(&self, arguments: &[&str]) {
        let settings =
            ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"];
        let output = Command::new("git").arg("-C").arg(self.0.path()).args(settings).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn write(&self, path: &str, content: &str) {
        let place = self.0.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    fn commit(&self) -> Commit {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "change"]);
        Commit::find(self.0.path(), "HEAD").unwrap()
    }
}

fn spec(source: &str, owner: &str) -> ApplicationSpec {
    ApplicationSpec { source: source.into(), destination: "/srv/app".into(), owner: owner.into() }
}

fn blobs() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(folder.path().join("blobs")).unwrap();
    (folder, blobs)
}

#[test]
fn what_is_read_is_the_commit_and_not_the_working_tree() {
    let repository = Repository::new();
    repository.write("app/page", "committed");
    repository.write("app/run", "#!/bin/sh\n");
    fs::set_permissions(repository.0.path().join("app/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("page", repository.0.path().join("app/link")).unwrap();
    repository.write("other/file", "not asked for");
    let commit = repository.commit();
    repository.write("app/page", "changed since");
    repository.write("app/new", "not committed");
    let files = commit.files(&["app", "not-there"]).unwrap();
    let file = |executable, content: &str| CommitFile::File { executable, content: content.into() };
    let expected = [
        ("app/link", CommitFile::Link { target: "page".into() }),
        ("app/page", file(false, "committed")),
        ("app/run", file(true, "#!/bin/sh\n")),
    ];
    assert_eq!(files, expected.map(|(path, file)| (path.to_owned(), file)).into());
    assert!(commit.files(&["not-there"]).unwrap().is_empty());
}

#[test]
fn a_repository_of_another_user_and_a_bare_one_are_read() {
    let repository = Repository::new();
    repository.write("app/page", "committed");
    let commit = repository.commit();
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare.git");
    assert!(Command::new("git").args(["clone", "-q", "--bare"]).arg(repository.0.path()).arg(&bare).status().unwrap().success());
    assert!(Command::new("chown").args(["-R", "4242:4242"]).arg(repository.0.path()).status().unwrap().success());
    assert_eq!(commit.files(&["app"]).unwrap().len(), 1);
    assert_eq!(Commit::find(&bare, commit.id()).unwrap().files(&["app"]).unwrap().len(), 1);
}

#[test]
fn what_is_no_commit_is_said_to_be_none() {
    let repository = Repository::new();
    repository.write("app/page", "committed");
    repository.commit();
    for revision in ["no-such-branch", "--upload-pack=id", "HEAD:app", ""] {
        let error = Commit::find(repository.0.path(), revision).unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{revision}");
    }
    assert!(Commit::find(Path::new("/proc"), "HEAD").is_err());
}

#[test]
fn the_same_files_are_the_same_layer_whatever_else_changed() {
    let repository = Repository::new();
    let (_folder, blobs) = blobs();
    repository.write("app/page", "one");
    let first = application::build(&blobs, &repository.commit(), &spec("app", "root"), &[]).unwrap();
    repository.write("README", "about");
    let second = application::build(&blobs, &repository.commit(), &spec("app", "root"), &[]).unwrap();
    assert_eq!(first, second);
    repository.write("app/page", "two");
    assert_ne!(application::build(&blobs, &repository.commit(), &spec("app", "root"), &[]).unwrap(), first);
}

#[test]
fn the_layer_has_the_owner_and_keeps_the_folders_on_the_way() {
    let repository = Repository::new();
    let (folder, blobs) = blobs();
    repository.write("site/html/page", "one");
    repository.write("site/run", "#!/bin/sh\n");
    fs::set_permissions(repository.0.path().join("site/run"), fs::Permissions::from_mode(0o755)).unwrap();
    let below = folder.path().join("below");
    fs::create_dir_all(below.join("etc")).unwrap();
    fs::create_dir(below.join("srv")).unwrap();
    fs::write(below.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nhello:x:999:998::/:/bin/sh\n").unwrap();
    fs::set_permissions(below.join("srv"), fs::Permissions::from_mode(0o2750)).unwrap();
    chown(below.join("srv"), Some(OWNER_SHIFT + 3), Some(OWNER_SHIFT + 4)).unwrap();
    let commit = repository.commit();
    let layer = application::build(&blobs, &commit, &spec("site", "hello"), std::slice::from_ref(&below)).unwrap();
    // Accounts that are a link to the host's are none of the image's.
    let linked = folder.path().join("linked");
    fs::create_dir_all(linked.join("etc")).unwrap();
    symlink("/etc/passwd", linked.join("etc/passwd")).unwrap();
    assert!(application::build(&blobs, &commit, &spec("site", "daemon"), &[linked]).is_err());
    let tree = Trees::open(folder.path().join("trees"), OWNER_SHIFT).unwrap().tree(&blobs, layer).unwrap();
    let attributes = |path: &str| {
        let metadata = fs::metadata(tree.join(path)).unwrap();
        (metadata.uid() - OWNER_SHIFT, metadata.gid() - OWNER_SHIFT, metadata.mode() & 0o7777)
    };
    assert_eq!(attributes("srv"), (3, 4, 0o2750));
    assert_eq!(attributes("srv/app"), (999, 998, 0o755));
    assert_eq!(attributes("srv/app/html/page"), (999, 998, 0o644));
    assert_eq!(attributes("srv/app/run"), (999, 998, 0o755));
    let changed = commit.last_change("site").unwrap();
    assert_eq!(u64::try_from(fs::metadata(tree.join("srv/app/html/page")).unwrap().mtime()).unwrap(), changed);
}

#[test]
fn a_missing_folder_or_user_is_said_with_a_hint() {
    let repository = Repository::new();
    let (_folder, blobs) = blobs();
    repository.write("app/page", "one");
    let commit = repository.commit();
    let none: [PathBuf; 0] = [];
    for spec in [
        spec("apps", "root"),
        spec("app", "nobody-here"),
        spec("../app", "root"),
        ApplicationSpec { destination: "/".into(), ..spec("app", "root") },
    ] {
        let error = application::build(&blobs, &commit, &spec, &none).unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{spec:?}: {error}");
    }
    let error = application::build(&blobs, &commit, &spec("app", "nobody-here"), &none).unwrap_err();
    assert!(error.hint_text().unwrap().contains("Puppet"));
}
