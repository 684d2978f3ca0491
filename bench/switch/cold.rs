//! The cold start: one node from nothing to its first 200, made by the same platform code and asked directly.

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_engine::platform::Platform;
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use gapless_server::project::Project;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two tries to reach the node: the error of what is measured.
const AGAIN: Duration = Duration::from_millis(1);

/// How long a try to connect waits. Before the node has its link nobody refuses, and the kernel would wait for seconds.
const CONNECT_WITHIN: Duration = Duration::from_millis(2);

/// Only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A platform of its own, without a proxy, on the images of the installation.
pub struct Cold {
    platform: LocalPlatform,
    project: Project,
    id: String,
    state: PathBuf,
    instance: u64,
}

/// A node that answered.
pub struct Started {
    /// From nothing to the first 200.
    pub took: Duration,
    /// Until the platform said that its command was started.
    pub made: Duration,
}

impl Cold {
    /// Opens the platform; its state is in `root`.
    pub async fn open(root: &Path, images: &Path, project: &Path) -> Cold {
        let text = std::fs::read_to_string(project.join("gapless.hcl")).expect("reading gapless.hcl");
        let project = Project::parse("gapless.hcl", &text).expect("the project's settings");
        let id = format!("{:06x}", std::process::id() & 0xff_ffff);
        let state = root.join("cold");
        let images = Arc::new(ImageStore::open(images).expect("opening the images"));
        let options = LocalOptions::new(state.clone(), id.clone(), Vec::new(), images);
        let platform = LocalPlatform::open(options).await.expect("opening the platform for cold starts");
        Cold { platform, project, id, state, instance: 0 }
    }

    /// Makes a node of this image, waits for its first 200, and removes it.
    pub async fn start(&mut self, image: Digest) -> Started {
        self.instance += 1;
        let group = GroupId { release: ReleaseNumber(1), instance: InstanceId(self.instance) };
        let (name, settings) = self.project.services.first_key_value().expect("a service");
        let declared = settings.declaration(&self.project.name, name, ArtifactVersion(1), image);
        let declaration = Arc::new(declared.expect("the project's service has a name"));
        let service: ServiceName = declaration.service.clone();
        let node = group.node(0);
        let (platform, asked) = (self.platform.clone(), service.clone());
        let begun = Instant::now();
        // From the beginning: the node may answer before the platform has written down that it runs.
        let asking = tokio::task::spawn_blocking(move || ask_until_200(|| platform.address(&asked, node), begun));
        self.platform.ensure_group(declaration, group, 1).await.expect("making one node");
        let made = begun.elapsed();
        let took = asking.await.expect("asking the node");
        self.platform.destroy_nodes(&service, &BTreeSet::from([node])).await.expect("removing the node");
        Started { took, made }
    }

    /// Removes everything of the platform.
    pub async fn close(self) {
        drop(self.platform);
        let removed = Leftovers::of(&self.id, &self.state).and_then(|leftovers| leftovers.remove_everything());
        removed.expect("removing the platform for cold starts");
    }
}

/// How long it took until the node answered 200.
fn ask_until_200(address: impl Fn() -> Option<SocketAddr>, begun: Instant) -> Duration {
    while !address().is_some_and(|address| answers_200(address).unwrap_or(false)) {
        assert!(begun.elapsed() < PATIENCE, "the node does not answer");
        std::thread::sleep(AGAIN);
    }
    begun.elapsed()
}

fn answers_200(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /check.txt HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
