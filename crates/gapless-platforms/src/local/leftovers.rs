//! What is left on the host: everything that carries an installation's marks and that nothing alive explains. Found by looking at the host, never at memory.

use super::cgroup::{Cgroups, processes};
use super::helpers::{Helpers, end_processes};
use super::lease::Lease;
use super::names::{KEEPER, Key, Marks, NETWORK_NAMESPACES, RUNTIME_FOLDER};
use super::network::{self, Subnet};
use super::rootfs::{mounts_below, unmount_all};
use super::{file, node, platform_folder, task, workbench};
use gapless_engine::error::{Context, Error, ErrorKind};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// Processes in the installation's control groups; the name is the group's folder.
    Processes,
    /// The runtime's record of a container.
    Container,
    /// A mount, or a folder for mounts.
    Mount,
    /// A network namespace.
    NetworkNamespace,
    /// A link or a bridge.
    Interface,
    /// A table of nftables.
    Table,
    /// A control group.
    Cgroup,
    /// A folder in the installation's state.
    Folder,
}

impl fmt::Display for LeftoverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftoverKind::Processes => "processes",
            LeftoverKind::Container => "container",
            LeftoverKind::Mount => "mount",
            LeftoverKind::NetworkNamespace => "network namespace",
            LeftoverKind::Interface => "interface",
            LeftoverKind::Table => "nftables table",
            LeftoverKind::Cgroup => "control group",
            LeftoverKind::Folder => "folder",
        })
    }
}

/// Something that carries an installation's marks and that nothing alive explains.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Its name on the host.
    pub name: String,
    /// Why nothing explains it.
    pub why: String,
}

/// What is alive, and so explains what carries its marks.
struct Explained {
    /// The keys of machines whose lease is not over.
    keys: BTreeSet<String>,
    /// Their links.
    links: BTreeSet<String>,
    /// The installation has a network.
    open: bool,
}

/// Writes down which state folder an installation's marks belong to.
///
/// # Errors
/// When they belong to another one that is still there: what that one explains would be this one's leftovers. When it cannot be written.
pub fn claim(marks: &Marks, state: &Path) -> Result<(), Error> {
    let folder = marks.runtime_folder();
    let owner: Option<PathBuf> = file::read(&folder.join("state.json"))?;
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if let Some(owner) = owner.filter(|owner| real(owner) != real(state))
        && file::exists(&platform_folder(&owner))?
    {
        let (id, owner) = (marks.installation(), owner.display());
        return Err(Error::new(format!("installation {id} belongs to the state folder {owner} on this machine"))
            .kind(ErrorKind::Invalid)
            .hint(format!("{} is a copy of it: go on with the one, or remove the one that is not needed any more", state.display())));
    }
    file::make_folder(&folder, 0o711)?;
    // Whatever the process's mask is: the runtime goes through them as a machine's root.
    [Path::new(RUNTIME_FOLDER), &folder].into_iter().try_for_each(|folder| file::set_mode(folder, 0o711))?;
    file::write(&folder.join("state.json"), &state)
}

/// Removes what an earlier server of this installation left behind and nothing explains. What cannot be removed hinders nobody: it is told, and the doctor finds it again.
pub fn reap(installation: &str, state: &Path) {
    let reaped = Leftovers::of(installation, state).and_then(|leftovers| {
        let found = leftovers.find()?;
        found
            .iter()
            .for_each(|one| tracing::warn!(kind = %one.kind, name = one.name, why = one.why, "removing what an earlier server left"));
        leftovers.remove(&found)
    });
    if let Err(error) = reaped {
        tracing::warn!(%error, "something that an earlier server left cannot be removed; `gapless doctor` finds it");
    }
}

/// The leftovers of one installation.
#[derive(Clone, Debug)]
pub struct Leftovers {
    marks: Marks,
    state: PathBuf,
    cgroups: Cgroups,
    helpers: Helpers,
}

impl Leftovers {
    /// Of the installation with this id, whose state is in this folder.
    ///
    /// # Errors
    /// When the id is none.
    pub fn of(installation: &str, state: &Path) -> Result<Self, Error> {
        // Without a group for helpers: looking must not leave a mark itself.
        let helpers = Helpers::without_group();
        Ok(Self { marks: Marks::new(installation)?, state: state.to_path_buf(), cgroups: Cgroups::detect(), helpers })
    }

    /// The leftovers of installations whose state folder is gone. Where a server still runs, the folder was moved, or cannot be seen from here.
    ///
    /// # Errors
    /// When the host cannot be looked at.
    pub fn foreign() -> Result<Vec<Self>, Error> {
        let names = file::names(Path::new(RUNTIME_FOLDER))?;
        let mut gone = Vec::new();
        for name in names.iter().filter(|name| Marks::new(name).is_ok()) {
            let state: Option<PathBuf> = file::read(&Path::new(RUNTIME_FOLDER).join(name).join("state.json"))?;
            if let Some(state) = state
                && !file::exists(&platform_folder(&state))?
                && !Lease::is_held_by_another(&Marks::new(name)?)?
            {
                gone.push(Self::of(name, &state)?);
            }
        }
        Ok(gone)
    }

    /// The installation's id.
    #[must_use]
    pub fn installation(&self) -> &str {
        self.marks.installation()
    }

    /// Everything that nothing alive explains, in the order in which it is to be removed.
    ///
    /// # Errors
    /// When the host cannot be looked at.
    pub fn find(&self) -> Result<Vec<Leftover>, Error> {
        let mut found = self.all()?;
        // Read after the host was: what is made in between is not among what was found, and what was found has its record by now.
        let explained = self.explained()?;
        found.retain(|leftover| !self.is_explained(leftover, &explained));
        found.extend(self.folders()?);
        found.sort();
        Ok(found)
    }

    /// Removes these. Those that are gone already do no harm.
    ///
    /// # Errors
    /// When one cannot be removed; the others are.
    pub fn remove(&self, leftovers: &[Leftover]) -> Result<(), Error> {
        let mut ordered = leftovers.to_vec();
        ordered.sort();
        let results: Vec<Result<(), Error>> =
            ordered.iter().map(|one| self.remove_one(one).context(|| format!("removing the {} {}", one.kind, one.name))).collect();
        results.into_iter().collect()
    }

    /// Removes everything of the installation from the host, what is alive too. Its state folder stays, and is marked so that nothing in it is taken for alive.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_everything(&self) -> Result<(), Error> {
        let platform = platform_folder(&self.state);
        let subnet: Option<Subnet> = file::read(&platform.join("network.json"))?;
        self.remove(&self.all()?)?;
        network::remove(&self.marks, &self.helpers, subnet.as_ref())?;
        // The last installation takes what is above along.
        for group in [self.marks.cgroups().as_str(), "/gapless"] {
            self.cgroups.folders(group).iter().for_each(|folder| drop(fs::remove_dir(folder)));
        }
        ["nodes", "tasks", "benches", "runc"].iter().try_for_each(|name| file::remove_folder(&platform.join(name)))?;
        match fs::remove_file(platform.join("network.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| "removing the network's record".into()),
            _ => Ok(()),
        }
    }

    /// What is alive: nodes that have a record and no tombstone, tasks, and what the server that runs has open for builds.
    ///
    /// # Errors
    /// When something cannot be looked at: nothing is taken for a leftover then.
    fn explained(&self) -> Result<Explained, Error> {
        let platform = platform_folder(&self.state);
        let tombstones = platform.join("tombstones");
        let mut keys = BTreeSet::new();
        for (folder, record) in [("nodes", "node.json"), ("tasks", "task.json")] {
            for name in file::names(&platform.join(folder))? {
                if file::exists(&platform.join(folder).join(&name).join(record))? && !file::exists(&tombstones.join(&name))? {
                    keys.insert(name);
                }
            }
        }
        let life = Lease::latest(&self.marks)?;
        if !life.as_ref().is_some_and(Lease::is_held) {
            let over = task::over(&platform)?;
            keys.retain(|key| !over.contains(key));
        }
        keys.extend(workbench::leases(&platform, life.as_ref())?.0);
        let subnet: Option<Subnet> = file::read(&platform.join("network.json"))?;
        let links = self.links(&keys, subnet.as_ref())?;
        Ok(Explained { keys, links, open: subnet.is_some() })
    }

    /// Folders of what nobody answers for any more. A node without a record may be about to get it, as long as a server runs.
    fn folders(&self) -> Result<Vec<Leftover>, Error> {
        let platform = platform_folder(&self.state);
        let life = Lease::latest(&self.marks)?;
        let is_held = life.as_ref().is_some_and(Lease::is_held);
        let benches = workbench::leases(&platform, life.as_ref())?.1.into_iter().map(|name| platform.join("benches").join(name));
        let undecided = if is_held { Vec::new() } else { node::undecided(&platform.join("nodes"))? };
        let tasks = if is_held { Vec::new() } else { task::over(&platform)? };
        let tasks = tasks.into_iter().map(|name| platform.join("tasks").join(name));
        let leftover = |why: &'static str| {
            move |path: PathBuf| Leftover { kind: LeftoverKind::Folder, name: path.display().to_string(), why: why.to_string() }
        };
        let benches = benches.map(leftover("the server that built with it has ended"));
        let undecided = undecided.into_iter().map(leftover("the server ended before it decided what node this is"));
        let tasks = tasks.map(leftover("the task was never begun, or has ended"));
        Ok(benches.chain(undecided).chain(tasks).collect())
    }

    fn is_explained(&self, leftover: &Leftover, explained: &Explained) -> bool {
        let Explained { keys, links, open } = explained;
        let last = leftover.name.rsplit('/').next().unwrap_or_default();
        match leftover.kind {
            LeftoverKind::Container | LeftoverKind::NetworkNamespace => {
                self.marks.key_of(last).is_some_and(|key| keys.contains(key.as_str()))
            }
            LeftoverKind::Mount => keys.iter().any(|key| Path::new(&leftover.name).starts_with(self.marks.runtime_folder().join(key))),
            LeftoverKind::Processes | LeftoverKind::Cgroup => {
                keys.contains(last.strip_suffix(KEEPER).unwrap_or(last)) || *open && last == "helpers"
            }
            LeftoverKind::Interface => *open && last == self.marks.bridge() || links.contains(last),
            LeftoverKind::Table => *open,
            LeftoverKind::Folder => false,
        }
    }

    /// The links of the machines that have a record.
    fn links(&self, keys: &BTreeSet<String>, subnet: Option<&Subnet>) -> Result<BTreeSet<String>, Error> {
        let Some(subnet) = subnet else { return Ok(BTreeSet::new()) };
        let platform = platform_folder(&self.state);
        let mut links = BTreeSet::new();
        for key in keys {
            for (folder, record) in [("nodes", "node.json"), ("tasks", "task.json"), ("benches", "bench.json")] {
                let record: Option<serde_json::Value> = file::read(&platform.join(folder).join(key).join(record))?;
                let address = record.and_then(|record| record["address"].as_str()?.parse().ok());
                links.extend(address.map(|address| self.marks.link(subnet.offset(address))));
            }
        }
        Ok(links)
    }

    /// Everything that carries the marks.
    fn all(&self) -> Result<Vec<Leftover>, Error> {
        let mut found = Vec::new();
        let mut add = |kind, name: String, why: &str| found.push(Leftover { kind, name, why: why.to_string() });
        for folder in self.groups() {
            if !processes(&folder).is_empty() {
                add(LeftoverKind::Processes, folder.display().to_string(), "no node is on record that they belong to");
            }
            add(LeftoverKind::Cgroup, folder.display().to_string(), "no node is on record for it");
        }
        let runtime = platform_folder(&self.state).join("runc");
        for name in file::names(&runtime)?.into_iter().filter(|name| self.marks.key_of(name).is_some()) {
            add(LeftoverKind::Container, runtime.join(name).display().to_string(), "no node is on record for it");
        }
        let mounts = self.marks.runtime_folder();
        if file::exists(&mounts)? && !file::exists(&platform_folder(&self.state))? {
            add(LeftoverKind::Mount, mounts.display().to_string(), "its installation's state folder is gone");
        }
        let own = |name: &String| Key::parse(name).is_some();
        let folders = file::names(&mounts)?.into_iter().filter(own).map(|name| mounts.join(name));
        for place in folders.chain(mounts_below(&mounts)?).collect::<BTreeSet<PathBuf>>() {
            add(LeftoverKind::Mount, place.display().to_string(), "no node is on record for it");
        }
        for name in file::names(Path::new(NETWORK_NAMESPACES))?.into_iter().filter(|name| self.marks.key_of(name).is_some()) {
            add(
                LeftoverKind::NetworkNamespace,
                Path::new(NETWORK_NAMESPACES).join(name).display().to_string(),
                "no node is on record for it",
            );
        }
        for name in
            file::names(Path::new("/sys/class/net"))?.into_iter().filter(|name| self.marks.is_link(name) || *name == self.marks.bridge())
        {
            add(LeftoverKind::Interface, name, "no node is on record for it");
        }
        if network::has_table(&self.marks, &self.helpers) {
            add(LeftoverKind::Table, self.marks.table(), "the installation has no network on record");
        }
        Ok(found)
    }

    /// The control groups of machines and helpers, in every hierarchy.
    fn groups(&self) -> Vec<PathBuf> {
        let roots = self.cgroups.folders(&self.marks.cgroups());
        let below = |root: PathBuf| file::names(&root).unwrap_or_default().into_iter().map(move |name| root.join(name));
        roots.into_iter().flat_map(below).filter(|path| path.is_dir()).collect()
    }

    fn remove_one(&self, leftover: &Leftover) -> Result<(), Error> {
        let path = Path::new(&leftover.name);
        match leftover.kind {
            LeftoverKind::Processes => end_processes(&[path.to_path_buf()]).map(drop),
            LeftoverKind::Container => file::remove_folder(path),
            LeftoverKind::Mount => unmount_all(path),
            LeftoverKind::NetworkNamespace => network::remove_namespace(path),
            LeftoverKind::Interface => network::remove_links(&self.helpers, std::slice::from_ref(&leftover.name)),
            LeftoverKind::Table => network::remove_table(&self.marks, &self.helpers),
            LeftoverKind::Cgroup => self.remove_group(path),
            LeftoverKind::Folder => workbench::remove_folders(path),
        }
    }

    fn remove_group(&self, folder: &Path) -> Result<(), Error> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        self.cgroups.remove(&format!("{}/{name}", self.marks.cgroups()));
        if folder.exists() { Err(Error::new("it still has processes")) } else { Ok(()) }
    }
}
