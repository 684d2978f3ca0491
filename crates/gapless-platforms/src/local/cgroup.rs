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
        let mut found = Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
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

    /// Removes a group and those below it from every hierarchy. Groups with processes stay.
    pub fn remove(&self, group: &str) {
        for folder in self.folders(group) {
            remove_group(&folder);
        }
    }
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
}
