//! A full disk: what is new is refused, what is live goes on, and room is all that is needed.

use crate::fault::{SERVICE, assert_says, first_version, go_live, leaves_nothing, next_version, serving, under_load};
use crate::installation::{Installation, ServerSettings, assert_no_failure, unique_folder};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const RATE: u32 = 150;

/// A small file system in memory, unmounted when it is dropped.
pub struct SmallDisk {
    pub path: PathBuf,
}

impl SmallDisk {
    pub fn mount(size: &str) -> SmallDisk {
        let path = unique_folder("small-disk");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "gapless-test"]).arg(&path).status();
        assert!(mounted.expect("running mount").success(), "mounting a small file system needs root");
        SmallDisk { path }
    }

    /// Takes all the room; gives it back when the guard is dropped.
    pub fn fill(&self) -> Filler {
        let path = self.path.join("filler");
        let mut file = File::create(&path).expect("making a file that fills the disk");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![1; size];
            let refused = std::iter::repeat_with(|| file.write_all(&piece)).find_map(Result::err).expect("an end of the disk");
            assert_eq!(refused.kind(), ErrorKind::StorageFull);
        }
        Filler(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status().is_ok_and(|status| status.success());
        if !unmounted {
            eprintln!("the small file system at {} is still in use; it goes when that ends", self.path.display());
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

pub struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let removed = std::fs::remove_file(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "giving the room back: {removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_and_room_is_all_it_needs() {
    let disk = SmallDisk::mount("1g");
    let mut installation = Installation::start_with_state("disk", disk.path.join("state"), &ServerSettings::default()).await;
    let project = first_version(&installation).await;
    let witness = installation.witness("localhost", RATE).await;
    let before = serving(&installation, 3).await;
    let built = next_version(&project, 2);
    installation.build(&project, &built).await;
    next_version(&project, 3);

    let filler = disk.fill();
    // An artifact is there: its nodes have no room. None is there: the build has none. Nothing has to be made: the journal has none.
    refused(&installation, &project.path, "deploy", &["--commit", &built], "the disk of the state folder has 0 MiB free");
    refused(&installation, &project.path, "deploy", &["--commit", "HEAD"], "full");
    refused(&installation, &project.path, "scale", &["4"], "full");
    under_load(&witness, 300).await;
    let status = installation.status(SERVICE).await;
    assert_eq!(status.live.map(|release| release.name).as_deref(), Some("web-r1"));
    assert_eq!(serving(&installation, 3).await, before, "the live nodes were touched");

    drop(filler);
    for (commit, release) in [(built.as_str(), "web-r2"), ("HEAD", "web-r3")] {
        let (status, printed, said) = installation.run(&project.path, "deploy", &["--commit", commit]);
        assert_eq!(status, 0, "with room again, {commit}:\n{printed}{said}");
        assert!(printed.starts_with("live "), "{printed}");
        let live = installation.status(SERVICE).await.live.map(|release| release.name);
        assert_eq!(live.as_deref(), Some(release), "the same deploy, without a restart");
    }

    let filler = disk.fill();
    installation.kill_server();
    installation.start_server(&ServerSettings::default()).await;
    let live = installation.status(SERVICE).await.live.map(|release| release.name);
    assert_eq!(live.as_deref(), Some("web-r3"), "a server that begins on a full disk knows what was decided");
    drop(filler);
    let commit = next_version(&project, 4);
    go_live(&installation, &project, &commit).await;
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 600);
    leaves_nothing(installation);
}

fn refused(installation: &Installation, project: &Path, command: &str, arguments: &[&str], why: &str) {
    let (status, printed, said) = installation.run(project, command, arguments);
    assert_eq!(status, 1, "{command} on a full disk:\n{printed}{said}");
    assert_says(&said, &[why, "hint: make room on the disk of the server's state folder"]);
}
