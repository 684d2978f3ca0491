//! How the machines of a release are set up: its nodes, and the one-off nodes of its tasks, which differ in what they run and in nothing else.

use super::bundle::Confinement;
use super::file;
use super::machine::{Ground, MachineRequest, Root};
use super::names::Key;
use super::rootfs::{Layers, Skeleton, Surroundings, declared_mounts};
use gapless_core::node::GroupId;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error};
use gapless_engine::images::{OWNER_SHIFT, UnpackedImage};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// Where programs are looked for when the declaration does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What all machines of a release have in common.
#[derive(Clone, Copy)]
pub struct Blueprint<'a> {
    /// What all machines share.
    pub ground: &'a Ground,
    /// How they run.
    pub declaration: &'a ServiceDeclaration,
    /// What they boot.
    pub image: &'a UnpackedImage,
    /// The folder of all volumes.
    pub volumes: &'a Path,
}

/// One machine.
pub struct Planned<'a> {
    /// Its key.
    pub key: Key,
    /// The group that it belongs to.
    pub group: GroupId,
    /// Its name inside the service: `r7-i12-n0`.
    pub name: String,
    /// The folder of its records.
    pub folder: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// The program and its arguments.
    pub command: &'a [String],
    /// Where its output goes.
    pub log: PathBuf,
}

impl Blueprint<'_> {
    /// Writes the machine's own small tree, and says how it is to be made.
    ///
    /// # Errors
    /// When the declaration does not fit the image, or something cannot be written.
    pub fn request(&self, planned: Planned) -> Result<MachineRequest, Error> {
        let settings = &self.declaration.node;
        let hostname = format!("{}-{}", self.declaration.service.service(), planned.name);
        let skeleton = Skeleton::new(planned.folder.join("skeleton"), &self.image.layers)?;
        skeleton.surroundings(&Surroundings { hostname: &hostname, address: planned.address, outbound: settings.outbound })?;
        let identity = Layers(&self.image.layers).identity(&settings.user)?;
        let volumes = self.make_volumes(OWNER_SHIFT + identity.user, OWNER_SHIFT + identity.group)?;
        let mounts = declared_mounts(&skeleton, &settings.writable, &volumes)?;
        let mut trees = self.image.layers.clone();
        trees.push(skeleton.folder().to_path_buf());
        Ok(MachineRequest {
            log: planned.log,
            folder: planned.folder.join("bundle"),
            key: planned.key,
            address: planned.address,
            root: Root::Overlay { trees, upper: None },
            confinement: Confinement::Node,
            environment: self.environment(planned.group, &hostname),
            hostname,
            command: planned.command.to_vec(),
            working_directory: settings.working_directory.clone(),
            identity,
            mounts,
            owner_shift: OWNER_SHIFT,
            memory_bytes: Some(settings.memory_bytes),
            cpu_millicores: Some(settings.cpu_millicores),
        })
    }

    fn environment(&self, group: GroupId, hostname: &str) -> BTreeMap<String, String> {
        let service = self.declaration.service.service();
        let own = [
            ("PATH", DEFAULT_PATH.to_string()),
            ("GAPLESS_RELEASE", format!("{service}-{}", group.release)),
            ("GAPLESS_NODE", hostname.to_string()),
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
}
