//! Making the nodes of a group, all at the same time: the work is mostly waiting for other programs.

use super::bundle::Confinement;
use super::machine::{Ground, MachineRemains, MachineRequest, Root, Start, on_threads};
use super::names::Key;
use super::node::{Exit, NodeRecord, Nodes};
use super::process::Process;
use super::rootfs::{Skeleton, Surroundings, declared_mounts};
use super::{file, network};
use gapless_core::node::NodeId;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error};
use gapless_engine::images::{OWNER_SHIFT, UnpackedImage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where programs are looked for when the declaration does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Nodes of one declaration that are to be made.
pub struct Making<'a> {
    /// What all machines share.
    pub ground: &'a Ground,
    /// The nodes' folders.
    pub nodes: &'a Nodes,
    /// How they run.
    pub declaration: &'a ServiceDeclaration,
    /// What they boot.
    pub image: &'a UnpackedImage,
    /// The folder of all volumes.
    pub volumes: &'a Path,
    /// Addresses that some proxy still knows under the name of an earlier node.
    pub listed: &'a BTreeSet<Ipv4Addr>,
}

/// What a node will be.
struct Decision {
    node: NodeId,
    record: NodeRecord,
    /// It was written down by an earlier try.
    is_written: bool,
}

/// What came of making nodes.
pub struct Made {
    /// Those that run, also when others could not be made.
    pub running: Vec<(Key, Process)>,
    /// The first error. A node that could not be made is made anew at the next try, as it never ran.
    pub result: Result<(), Error>,
}

impl Making<'_> {
    /// Makes and starts these nodes.
    pub fn make(&self, nodes: &[NodeId]) -> Made {
        let started = match self.prepare_all(nodes) {
            Ok(requests) => on_threads(&requests, |request| self.start(request)),
            Err(error) => vec![Err(error)],
        };
        let mut made = Made { running: Vec::new(), result: Ok(()) };
        for one in started {
            match one {
                Ok(running) => made.running.extend(running),
                Err(error) => made.result = made.result.and(Err(error)),
            }
        }
        made
    }

    /// Everything but the start.
    fn prepare_all(&self, nodes: &[NodeId]) -> Result<Vec<MachineRequest>, Error> {
        let wanted = nodes.iter().map(|node| self.decide(*node)).collect::<Result<Vec<_>, Error>>()?;
        let prepared = on_threads(&wanted, |decision| self.prepare(decision));
        let requests = prepared.into_iter().collect::<Result<Vec<_>, Error>>()?;
        let links: String = requests.iter().map(|request| self.ground.network.link_commands(&request.key, request.address)).collect();
        if !links.is_empty() {
            self.ground
                .helpers
                .run(Command::new("ip").args(["-batch", "-"]), &links)
                .context(|| "linking the nodes to the bridge".into())?;
        }
        Ok(requests)
    }

    /// Gives the node its address. One whose making was broken off keeps its address; what there is of it is removed.
    fn decide(&self, node: NodeId) -> Result<Decision, Error> {
        let key = Key::node(&self.declaration.service, node);
        if let Some(record) = self.nodes.record(&key)? {
            let remains = MachineRemains { key, address: Some(record.address), grace: Duration::ZERO };
            self.ground.remove(&[remains]).into_iter().collect::<Result<(), Error>>()?;
            self.ground.addresses().take(record.address);
            let record = NodeRecord { image: self.image.image.to_string(), ..record };
            return Ok(Decision { node, record, is_written: true });
        }
        let record = NodeRecord {
            image: self.image.image.to_string(),
            address: self.ground.next_address(self.declaration.node.outbound, self.listed)?,
            port: self.declaration.node.port.unwrap_or_default(),
            check: self.declaration.health.path().to_string(),
        };
        Ok(Decision { node, record, is_written: false })
    }

    /// Writes the decision down before anything of the node exists, and makes everything that needs no other node.
    fn prepare(&self, Decision { node, record, is_written }: &Decision) -> Result<MachineRequest, Error> {
        if !is_written {
            self.nodes.write_record(&Key::node(&self.declaration.service, *node), record)?;
        }
        let request = self.request(*node, record).context(|| format!("preparing {node}"))?;
        self.ground.prepare(&request).context(|| format!("preparing {node}"))?;
        Ok(request)
    }

    fn request(&self, node: NodeId, record: &NodeRecord) -> Result<MachineRequest, Error> {
        let key = Key::node(&self.declaration.service, node);
        let folder = self.nodes.folder(&key);
        let settings = &self.declaration.node;
        let hostname = format!("{}-{node}", self.declaration.service.service());
        let skeleton = Skeleton::new(folder.join("skeleton"), &self.image.layers)?;
        skeleton.surroundings(&Surroundings { hostname: &hostname, address: record.address, outbound: settings.outbound })?;
        let identity = super::rootfs::Layers(&self.image.layers).identity(&settings.user)?;
        let volumes = self.make_volumes(OWNER_SHIFT + identity.user, OWNER_SHIFT + identity.group)?;
        let mounts = declared_mounts(&skeleton, &settings.writable, &volumes)?;
        let mut trees = self.image.layers.clone();
        trees.push(skeleton.folder().to_path_buf());
        Ok(MachineRequest {
            log: self.nodes.log(&key),
            folder: folder.join("bundle"),
            key,
            address: record.address,
            root: Root::Overlay { trees, upper: None },
            confinement: Confinement::Node,
            hostname,
            command: settings.command.clone(),
            working_directory: settings.working_directory.clone(),
            identity,
            environment: self.environment(node),
            mounts,
            owner_shift: OWNER_SHIFT,
            memory_bytes: Some(settings.memory_bytes),
            cpu_millicores: Some(settings.cpu_millicores),
        })
    }

    fn environment(&self, node: NodeId) -> BTreeMap<String, String> {
        let service = self.declaration.service.service();
        let own = [
            ("PATH", DEFAULT_PATH.to_string()),
            ("GAPLESS_RELEASE", format!("{service}-{}", node.group.release)),
            ("GAPLESS_NODE", format!("{service}-{node}")),
        ];
        let mut environment: BTreeMap<String, String> = own.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        environment.extend(self.declaration.node.environment.clone());
        environment
    }

    /// The volumes' folders, by path in the node. A new one belongs to the command's user. One that belongs to the host's root was never given to a node: its making was
    /// broken off.
    fn make_volumes(&self, user: u32, group: u32) -> Result<BTreeMap<PathBuf, PathBuf>, Error> {
        let mut volumes = BTreeMap::new();
        for (name, path) in &self.declaration.node.volumes {
            let folder = self.volumes.join(self.declaration.service.project()).join(name);
            file::make_folder(&folder, 0o755)?;
            if fs::metadata(&folder).context(|| format!("looking at the volume {}", folder.display()))?.uid() == 0 {
                chown(&folder, Some(user), Some(group)).context(|| format!("setting the owner of the volume {}", folder.display()))?;
            }
            volumes.insert(path.clone(), folder);
        }
        Ok(volumes)
    }

    fn start(&self, request: &MachineRequest) -> Result<Option<(Key, Process)>, Error> {
        let ground = self.ground;
        network::in_namespace(
            &ground.helpers,
            &ground.network.namespace(&request.key),
            &ground.network.interface_commands(request.address),
        )?;
        match ground.start(request)? {
            Start::Running(process) => {
                self.nodes.write_running(&request.key, &process)?;
                Ok(Some((request.key.clone(), process)))
            }
            Start::Refused(reason) => {
                self.nodes.write_exit(&request.key, &Exit { code: None, output: reason })?;
                Ok(None)
            }
        }
    }
}
