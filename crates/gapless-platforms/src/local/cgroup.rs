//! Which control groups the host has. Version 1, version 2 and both at once (hybrid) occur.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The hierarchies of the host, as far as gapless uses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Where version 2 is mounted.
    pub unified: Option<PathBuf>,
    /// Where version 1 is mounted, by controller.
    pub controllers: BTreeMap<String, PathBuf>,
    /// The controllers that version 2 offers.
    pub unified_controllers: Vec<String>,
}

impl Cgroups {
    /// What is mounted on this host.
    #[must_use]
    pub fn detect() -> Self {
        let mut found = Self::parse(&super::file::mountinfo().unwrap_or_default());
        if let Some(unified) = &found.unified {
            let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
            found.unified_controllers = controllers.split_whitespace().map(str::to_string).collect();
        }
        found
    }

    /// Reads `mountinfo` (proc(5)). Of several mounts of the same hierarchy the first is taken.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(place) = before.split(' ').nth(4) else { continue };
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") => {
                    found.unified.get_or_insert_with(|| place.into());
                }
                Some("cgroup") => {
                    for option in after.nth(1).unwrap_or_default().split(',') {
                        found.controllers.entry(option.to_string()).or_insert_with(|| place.into());
                    }
                }
                _ => {}
            }
        }
        for no_controller in ["rw", "ro", "name=systemd"] {
            found.controllers.remove(no_controller);
        }
        found
    }

    /// Whether the runtime can limit this (`memory`, `cpu`, `pids`).
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains_key(controller) || self.unified_controllers.iter().any(|name| name == controller)
    }

    /// The folder of a group (a path from the hierarchy's root) in every hierarchy, whether it exists or not.
    #[must_use]
    pub fn folders(&self, group: &str) -> Vec<PathBuf> {
        let group = group.trim_start_matches('/');
        let mut roots: Vec<&Path> = self.controllers.values().chain(&self.unified).map(PathBuf::as_path).collect();
        let systemd = Path::new("/sys/fs/cgroup/systemd");
        if systemd.is_dir() {
            roots.push(systemd);
        }
        roots.sort_unstable();
        roots.dedup();
        roots.into_iter().map(|root| root.join(group)).collect()
    }

    /// What is free again when a group of the memory controller is gone, in bytes: all that its processes hold, in swap too, but pages of files, which the kernel takes back at
    /// any time. `None` where the host does not tell.
    #[must_use]
    pub fn memory_held(&self, group: &str) -> Option<u64> {
        let group = group.trim_start_matches('/');
        let (folder, names) = match (self.controllers.get("memory"), &self.unified) {
            (Some(root), _) => (root.join(group), VERSION_1),
            (None, Some(root)) => (root.join(group), VERSION_2),
            (None, None) => return None,
        };
        if !folder.is_dir() {
            return Some(0);
        }
        let used = fs::read_to_string(folder.join(names.used)).ok()?.trim().parse().ok()?;
        let swap = names.swap_file.and_then(|file| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok());
        let parts = fs::read_to_string(folder.join("memory.stat")).ok()?;
        Some(names.held(used, swap, &parts))
    }

    /// Makes a group in every hierarchy where that is possible: as long as it is there, nobody who removes the group beside it takes those above away, just when the runtime makes
    /// one below.
    pub fn make(&self, group: &str) {
        for folder in self.folders(group) {
            // Where it is not possible, the runtime says so when it comes to it.
            let _ = make_folder(&folder);
        }
    }

    /// Removes a group and those below it from every hierarchy. Groups with processes stay.
    pub fn remove(&self, group: &str) {
        for folder in self.folders(group) {
            remove_group(&folder);
        }
    }
}

/// Where a version of the memory controller tells what.
#[derive(Clone, Copy)]
struct MemoryNames {
    used: &'static str,
    /// A file of its own.
    swap_file: Option<&'static str>,
    /// Parts of `memory.stat`.
    swap: Option<&'static str>,
    files: [&'static str; 2],
}

const VERSION_1: MemoryNames = MemoryNames {
    used: "memory.usage_in_bytes",
    swap_file: None,
    swap: Some("total_swap"),
    files: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: MemoryNames =
    MemoryNames { used: "memory.current", swap_file: Some("memory.swap.current"), swap: None, files: ["inactive_file", "active_file"] };

impl MemoryNames {
    fn held(&self, used: u64, swap: Option<u64>, parts: &str) -> u64 {
        let part = |name: &str| {
            let line = parts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let files = self.files.iter().map(|name| part(name)).fold(0, u64::saturating_add);
        used.saturating_sub(files).saturating_add(swap.unwrap_or_else(|| self.swap.map_or(0, part)))
    }
}

/// How often a group is made again whose parent another installation removed in between: each time one has to have ended just then.
const MAKE_TRIES: u32 = 10;

/// Makes a group's folder and those above it.
///
/// # Errors
/// When the host refuses.
pub fn make_folder(folder: &Path) -> std::io::Result<()> {
    let vanished = |result: &std::io::Result<()>| result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let mut made = fs::create_dir_all(folder);
    for _ in 1..MAKE_TRIES {
        if !vanished(&made) {
            break;
        }
        made = fs::create_dir_all(folder);
    }
    made
}

/// A group's folder holds files that cannot be removed: only folders are, the deepest first.
fn remove_group(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The processes of a group and of those below it.
pub fn processes(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    let Ok(entries) = fs::read_dir(folder) else { return pids };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_hierarchies_are_told_apart() {
        let hybrid = "30 20 0:25 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      31 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 20 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      33 20 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup rw\n";
        let found = Cgroups::parse(hybrid);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert!(found.has("memory") && found.has("cpu") && !found.has("pids") && !found.has("name=systemd"));
        let pure = Cgroups::parse("33 20 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(pure.unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert!(pure.controllers.is_empty());
    }

    #[test]
    fn pages_of_files_are_not_held_and_swap_is() {
        let first = "cache 70\nrss 30\nshmem 10\nswap 1\ninactive_file 1\ntotal_inactive_file 20\ntotal_active_file 40\ntotal_swap 5\n";
        assert_eq!(VERSION_1.held(100, None, first), 45);
        let second = "anon 30\nfile 70\nshmem 10\ninactive_anon 10\ninactive_file 20\nactive_file 40\n";
        assert_eq!(VERSION_2.held(100, Some(7), second), 47);
        assert_eq!(VERSION_2.held(10, None, second), 0, "figures that were read one after the other may not fit");
    }

    #[test]
    fn a_group_that_is_gone_holds_nothing_and_a_host_without_the_controller_does_not_tell() {
        assert_eq!(Cgroups::default().memory_held("/none"), None);
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        let host = Cgroups { unified: Some(root.clone()), ..Cgroups::default() };
        assert_eq!(host.memory_held("/gapless/none"), Some(0));
        fs::create_dir_all(root.join("gapless/node")).unwrap();
        assert_eq!(host.memory_held("/gapless/node"), None, "the controller is not on for it");
        fs::write(root.join("gapless/node/memory.current"), "100\n").unwrap();
        fs::write(root.join("gapless/node/memory.stat"), "anon 60\ninactive_file 40\n").unwrap();
        assert_eq!(host.memory_held("/gapless/node"), Some(60));
    }
}
