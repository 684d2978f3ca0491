//! What this host must have, and what to do where it has not.

use super::cgroup::Cgroups;
use super::helpers::Helpers;
use super::network::foreign_forward_policies;
use super::sandbox::SANDBOX_SHIFT;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::images::{OWNER_COUNT, OWNER_SHIFT};
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Something that this host lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// What it is needed for.
    pub needed_for: String,
    /// What to do.
    pub hint: String,
    /// Whether nothing goes without; otherwise something is done less well.
    pub essential: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, needed for {}: {}", self.what, self.needed_for, self.hint)
    }
}

/// Programs that nodes need: name, package of Debian and Ubuntu, purpose.
const FOR_NODES: [(&str, &str, &str); 2] = [("ip", "iproute2", "the nodes' network"), ("nft", "nftables", "the nodes' network")];

/// Programs that builds need besides.
const FOR_BUILDS: [(&str, &str, &str); 5] = [
    ("mmdebstrap", "mmdebstrap", "base images"),
    ("packer", "packer", "provisioning images"),
    ("ssh-keygen", "openssh-client", "Packer's way into a build node"),
    ("git", "git", "reading commits"),
    ("tar", "tar", "reading commits"),
];

/// Everything that this host lacks, for nodes and for builds.
#[must_use]
pub fn check(runtime: &str) -> Vec<Missing> {
    let mut missing = for_nodes(runtime);
    missing.extend(FOR_BUILDS.iter().filter_map(|(program, package, purpose)| missing_program(program, package, purpose)));
    missing.extend(foreign_forward_policies(&Helpers::without_group()).iter().map(|chain| blocked_by(chain)));
    missing
}

fn blocked_by(chain: &str) -> Missing {
    Missing {
        what: format!("a way through the firewall's chain `{chain}`"),
        needed_for: "nodes that reach outward, and builds".to_string(),
        hint: "it drops what it does not know: let it accept what comes from and goes to the bridges named `gl` and six digits".to_string(),
        essential: false,
    }
}

/// Everything that this host lacks for nodes.
#[must_use]
pub fn for_nodes(runtime: &str) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push(essential("root", "nodes, their network and their file systems", "run it again as root, with `sudo`"));
    }
    missing.extend(missing_program(runtime, if runtime == "runc" { "runc" } else { runtime }, "nodes"));
    missing.extend(FOR_NODES.iter().filter_map(|(program, package, purpose)| missing_program(program, package, purpose)));
    missing.extend(missing_kernel_parts());
    missing.extend(missing_limits(&Cgroups::detect()));
    for file in ["/etc/subuid", "/etc/subgid"] {
        missing.extend(lent(&fs::read_to_string(file).unwrap_or_default()).iter().map(|line| lent_ids(file, line)));
    }
    missing
}

/// The entries (subuid(5)) that lend a user of the host ids of nodes or sandboxes. Debian's and Ubuntu's first user has such an entry by default.
fn lent(table: &str) -> Vec<&str> {
    let own = [OWNER_SHIFT, SANDBOX_SHIFT].map(|shift| (u64::from(shift), u64::from(shift) + u64::from(OWNER_COUNT)));
    let is_own = |line: &&str| {
        let mut numbers = line.split(':').skip(1).map(|text| text.trim().parse::<u64>().ok());
        let (Some(Some(first)), Some(Some(count))) = (numbers.next(), numbers.next()) else { return false };
        own.iter().any(|(begin, end)| first < *end && *begin < first.saturating_add(count))
    };
    table.lines().filter(is_own).collect()
}

fn lent_ids(file: &str, line: &str) -> Missing {
    Missing {
        what: "user and group ids of its own for nodes".to_string(),
        needed_for: "keeping the host's users out of nodes".to_string(),
        hint: format!(
            "{file} lends them to a user, who may take part in nodes as their root: remove the line `{line}`, or let it begin at {}",
            SANDBOX_SHIFT + OWNER_COUNT
        ),
        essential: false,
    }
}

/// An error that names everything essential that is missing for nodes.
///
/// # Errors
/// When something is.
pub fn check_for_nodes(runtime: &str) -> Result<(), Error> {
    let missing: Vec<Missing> = for_nodes(runtime).into_iter().filter(|missing| missing.essential).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|missing| missing.what.as_str()).collect();
    let hints: Vec<&str> = missing.iter().map(|missing| missing.hint.as_str()).collect();
    Err(Error::new(format!("this host lacks {}", names.join(", "))).kind(ErrorKind::Invalid).hint(hints.join("; ")))
}

fn essential(what: &str, needed_for: &str, hint: &str) -> Missing {
    Missing { what: what.to_string(), needed_for: needed_for.to_string(), hint: hint.to_string(), essential: true }
}

fn missing_program(program: &str, package: &str, purpose: &str) -> Option<Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = Path::new(program).is_absolute() && is_program(Path::new(program))
        || std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)));
    (!found).then(|| {
        essential(&format!("the program `{program}`"), purpose, &format!("install the package {package}: `apt-get install {package}`"))
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn missing_kernel_parts() -> Vec<Missing> {
    let mut missing = Vec::new();
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        missing.push(essential(
            "the file system `overlay`",
            "the nodes' root file systems",
            "load the kernel's module: `modprobe overlay`",
        ));
    }
    for (setting, what) in [("user/max_user_namespaces", "user namespaces"), ("user/max_net_namespaces", "network namespaces")] {
        let path = format!("/proc/sys/{setting}");
        let most: u64 = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if most == 0 {
            missing.push(essential(what, "keeping nodes apart", &format!("allow them: `sysctl -w {}=10000`", setting.replace('/', "."))));
        }
    }
    missing
}

fn missing_limits(cgroups: &Cgroups) -> Vec<Missing> {
    const HINT: &str = "mount the control groups: systemd does it at start, elsewhere `mount -t cgroup2 none /sys/fs/cgroup`";
    if cgroups.unified.is_none() && cgroups.controllers.is_empty() {
        return vec![essential("control groups", "limits, and ending what a dead server left", HINT)];
    }
    let mut missing = Vec::new();
    for (controller, purpose) in
        [("memory", "the nodes' memory limit"), ("cpu", "the nodes' CPU limit"), ("pids", "the limit on processes")]
    {
        if !cgroups.has(controller) {
            missing.push(Missing { essential: false, ..essential(&format!("the control group `{controller}`"), purpose, HINT) });
        }
    }
    if cgroups.unified.is_none() {
        missing.push(Missing { essential: false, ..essential("control groups of version 2", "ending the helpers of a dead server", HINT) });
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let missing = missing_program("no-such-program", "some-package", "nothing").unwrap();
        assert_eq!(
            missing.to_string(),
            "the program `no-such-program`, needed for nothing: install the package some-package: `apt-get install some-package`"
        );
        assert_eq!(missing_program("sh", "dash", "shells"), None);
        assert_eq!(missing_program("/bin/sh", "dash", "shells"), None);
    }

    #[test]
    fn ids_of_nodes_that_are_lent_to_a_user_are_found() {
        let table = "ann:100000:65536\nbob:165536:34464\ncarl:265536:65536\ndora:34465:65536\neve:200001:1\n# none\nfred:x:7\n";
        assert_eq!(lent(table), ["ann:100000:65536", "dora:34465:65536", "eve:200001:1"]);
        assert!(lent_ids("/etc/subuid", "ann:100000:65536").hint.contains("265536"));
    }

    #[test]
    fn a_host_without_control_groups_is_told_so() {
        let missing = missing_limits(&Cgroups::default());
        assert_eq!(missing.len(), 1);
        assert!(missing[0].essential);
    }
}
