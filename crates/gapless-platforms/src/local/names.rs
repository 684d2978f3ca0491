//! The marks of an installation: everything on the host that belongs to it carries its id in its name, so that it can be found again after any crash.

use super::lease::Lease;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_engine::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many hexadecimal digits name an installation: with them the names of interfaces stay below the kernel's 15 bytes (IFNAMSIZ).
pub const INSTALLATION_DIGITS: usize = 6;

/// Where mounts and other things that do not outlive the machine's start are kept. It may be entered by anybody and listed only by root: the runtime goes through it as
/// the node's own (unprivileged) root. A machine's own folder in it lets nobody else in.
pub const RUNTIME_FOLDER: &str = "/run/gapless";

/// Where iproute2 keeps network namespaces.
pub const NETWORK_NAMESPACES: &str = "/run/netns";

/// Which installation something belongs to, and the names that follow from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marks {
    installation: String,
}

impl Marks {
    /// The marks of an installation.
    ///
    /// # Errors
    /// When the id is not 6 lower-case hexadecimal digits.
    pub fn new(installation: &str) -> Result<Self, Error> {
        let valid =
            installation.len() == INSTALLATION_DIGITS && installation.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !valid {
            return Err(Error::new(format!("`{installation}` is not an installation's id"))
                .kind(ErrorKind::Invalid)
                .hint("it has 6 hexadecimal digits, such as 09fa3c"));
        }
        Ok(Self { installation: installation.to_string() })
    }

    /// The installation's id.
    #[must_use]
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// The bridge that the installation's machines are attached to.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("gl{}", self.installation)
    }

    /// The table of nftables, family `inet`.
    #[must_use]
    pub fn table(&self) -> String {
        format!("gapless_{}", self.installation)
    }

    /// The host's end of a machine's link; `offset` is the place of its address in the installation's network.
    #[must_use]
    pub fn link(&self, offset: u32) -> String {
        format!("{}{offset:04x}", self.link_prefix())
    }

    /// Where in the subnet the address lies whose link has this name, if it is one of this installation's.
    #[must_use]
    pub fn link_offset(&self, name: &str) -> Option<u32> {
        u32::from_str_radix(name.strip_prefix(&self.link_prefix())?, 16).ok()
    }

    /// How the names of all such links begin.
    fn link_prefix(&self) -> String {
        format!("gv{}", self.installation)
    }

    /// Whether an interface is the host's end of a link of this installation: not one whose name only begins alike.
    #[must_use]
    pub fn is_link(&self, name: &str) -> bool {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        name.strip_prefix(&self.link_prefix()).is_some_and(|place| place.len() == 4 && place.bytes().all(digit))
    }

    /// What a link tells about itself, as its alias.
    #[must_use]
    pub fn alias(&self, key: &Key) -> String {
        format!("gapless:{}:{key}", self.installation)
    }

    /// The machine whose container or network namespace has this name, if it is one of this installation's.
    #[must_use]
    pub fn key_of(&self, name: &str) -> Option<Key> {
        Key::parse(name.strip_prefix(&self.machine_prefix())?)
    }

    /// What a container tells about itself, as its annotations: whose it is, and who answers for it.
    #[must_use]
    pub fn annotations(&self, key: &Key, life: &Lease) -> BTreeMap<String, String> {
        let mut tags = vec![("installation", self.installation.clone()), ("machine", key.to_string())];
        match key.names() {
            Some(Named::Node(service, NodeId { group, .. }) | Named::Task(service, group, _)) => tags.extend([
                ("project", service.project().to_string()),
                ("service", service.to_string()),
                ("release", format!("{}-{}", service.service(), group.release)),
                ("lease", format!("group {group}")),
            ]),
            Some(Named::Bench(_) | Named::Sandbox(_)) | None => tags.push(("lease", life.to_string())),
        }
        tags.into_iter().map(|(name, value)| (format!("gapless.{name}"), value)).collect()
    }

    /// The container and the network namespace of a machine.
    #[must_use]
    pub fn machine(&self, key: &Key) -> String {
        format!("{}{key}", self.machine_prefix())
    }

    /// How the names of all containers and network namespaces begin.
    fn machine_prefix(&self) -> String {
        format!("gl{}.", self.installation)
    }

    /// The network namespace of a machine, as a file.
    #[must_use]
    pub fn network_namespace(&self, key: &Key) -> PathBuf {
        Path::new(NETWORK_NAMESPACES).join(self.machine(key))
    }

    /// The installation's folder of mounts.
    #[must_use]
    pub fn runtime_folder(&self) -> PathBuf {
        Path::new(RUNTIME_FOLDER).join(&self.installation)
    }

    /// A machine's folder of mounts.
    #[must_use]
    pub fn mounts(&self, key: &Key) -> PathBuf {
        self.runtime_folder().join(key.as_str())
    }

    /// The group of the installation in every hierarchy of control groups, from the hierarchy's root.
    #[must_use]
    pub fn cgroups(&self) -> String {
        format!("/gapless/{}", self.installation)
    }

    /// The group of a machine, likewise.
    #[must_use]
    pub fn cgroup(&self, key: &Key) -> String {
        format!("{}/{key}", self.cgroups())
    }

    /// The group of a task's keeper.
    #[must_use]
    pub fn keeper_cgroup(&self, key: &Key) -> String {
        format!("{}{KEEPER}", self.cgroup(key))
    }
}

/// Ends the name of the control group of a task's keeper.
pub const KEEPER: &str = ".keeper";

/// Names a machine of any kind inside an installation: `hello.web.r1-i1-n0` a node, `hello.web.r1-i1-task-release-command` a task's node, `bench.x` a build
/// node, `sandbox.x` a sandbox. The dot is in no other name, so keys cannot be mistaken for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A node.
    Node(ServiceName, NodeId),
    /// The one-off node of a task.
    Task(ServiceName, GroupId, Task),
    /// A build node.
    Bench(String),
    /// A sandbox.
    Sandbox(String),
}

impl Key {
    /// The key of a node.
    #[must_use]
    pub fn node(service: &ServiceName, node: NodeId) -> Self {
        Self(format!("{}{node}", Self::service_prefix(service)))
    }

    /// The key of a task's node.
    #[must_use]
    pub fn task(service: &ServiceName, group: GroupId, task: Task) -> Self {
        Self(format!("{}{}", Self::service_prefix(service), task_node(group, task)))
    }

    /// How the keys of all nodes of a service begin.
    #[must_use]
    pub fn service_prefix(service: &ServiceName) -> String {
        format!("{}.{}.", service.project(), service.service())
    }

    /// The key of a build node.
    ///
    /// # Errors
    /// When the name is not lower-case letters, digits and dashes, at most 32.
    pub fn bench(name: &str) -> Result<Self, Error> {
        Self::named("bench", name)
    }

    /// The key of a sandbox.
    ///
    /// # Errors
    /// As for [`Self::bench`].
    pub fn sandbox(name: &str) -> Result<Self, Error> {
        Self::named("sandbox", name)
    }

    fn named(kind: &str, name: &str) -> Result<Self, Error> {
        const LIMIT: usize = 32;
        let valid = (1..=LIMIT).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !valid {
            return Err(Error::new(format!("`{name}` cannot name a {kind}"))
                .kind(ErrorKind::Invalid)
                .hint("use at most 32 lower-case letters, digits and dashes"));
        }
        Ok(Self(format!("{kind}.{name}")))
    }

    /// The service and the node that a key names, if it names a node.
    #[must_use]
    pub fn parse_node(text: &str) -> Option<(ServiceName, NodeId)> {
        match Self::parse(text)?.names()? {
            Named::Node(service, node) => Some((service, node)),
            _ => None,
        }
    }

    /// A key as it is written; `None` for every other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = Self(text.to_string());
        let again = match key.names()? {
            Named::Node(service, node) => Self::node(&service, node),
            Named::Task(service, group, task) => Self::task(&service, group, task),
            Named::Bench(name) => Self::bench(&name).ok()?,
            Named::Sandbox(name) => Self::sandbox(&name).ok()?,
        };
        // Numbers can be written in more than one way; names are made in one.
        (again == key).then_some(again)
    }

    /// What it names. Every key that was made here names something.
    #[must_use]
    pub fn names(&self) -> Option<Named> {
        let parts: Vec<&str> = self.0.splitn(3, '.').collect();
        match parts[..] {
            ["bench", name] => Some(Named::Bench(name.to_string())),
            ["sandbox", name] => Some(Named::Sandbox(name.to_string())),
            [project, service, machine] => {
                let service = ServiceName::new(project, service).ok()?;
                match machine.split_once(TASK) {
                    Some((group, name)) => {
                        let task = Task::ALL.into_iter().find(|task| task.name() == name)?;
                        Some(Named::Task(service, group.parse().ok()?, task))
                    }
                    None => Some(Named::Node(service, machine.parse().ok()?)),
                }
            }
            _ => None,
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Between the group and the task in the name of a task's node.
const TASK: &str = "-task-";

/// The name of a task's node inside its service: `r7-i12-task-release-command`.
#[must_use]
pub fn task_node(group: GroupId, task: Task) -> String {
    format!("{group}{TASK}{task}")
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel() {
        let marks = Marks::new("09fa3c").unwrap();
        assert_eq!(marks.link(0x7fe), "gv09fa3c07fe");
        assert!(marks.link(0xffff).len() <= 15);
        assert_eq!(marks.bridge(), "gl09fa3c");
    }

    #[test]
    fn an_installation_is_named_by_six_digits() {
        for wrong in ["", "09fa3", "09FA3C", "09fa3cd", "09fa3/"] {
            assert!(Marks::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_key_is_read_back() {
        let service: ServiceName = "hello/web".parse().unwrap();
        let node: NodeId = "r7-i12-n0".parse().unwrap();
        let key = Key::node(&service, node);
        assert_eq!(key.as_str(), "hello.web.r7-i12-n0");
        assert_eq!(Key::parse_node(key.as_str()), Some((service, node)));
        assert_eq!(Key::parse_node("bench.hello"), None);
    }

    #[test]
    fn the_key_of_a_task_is_no_nodes() {
        let service: ServiceName = "hello/web".parse().unwrap();
        let group: GroupId = "r7-i12".parse().unwrap();
        let key = Key::task(&service, group, Task::ReleaseCommand);
        assert_eq!(key.as_str(), "hello.web.r7-i12-task-release-command");
        assert_eq!(key.names(), Some(Named::Task(service, group, Task::ReleaseCommand)));
        assert_eq!(Key::parse_node(key.as_str()), None);
    }

    #[test]
    fn only_names_that_this_installation_gives_are_its_own() {
        let marks = Marks::new("09fa3c").unwrap();
        for own in ["hello.web.r7-i12-n0", "hello.web.r7-i12-task-after-shift", "bench.build-1", "sandbox.x"] {
            assert_eq!(marks.key_of(&format!("gl09fa3c.{own}")).unwrap().as_str(), own);
            for other in ["gl09fa3d.", "gl09fa3c", "gl09fa3c..", "xgl09fa3c.", "gv09fa3c."] {
                assert_eq!(marks.key_of(&format!("{other}{own}")), None, "{other}{own}");
            }
        }
        for foreign in ["", "mine", "bench.", "bench.A", "hello.web", "hello.web.x", "hello.web.r07-i12-n0", "hello.web.r7-i12-task-other"]
        {
            assert_eq!(marks.key_of(&format!("gl09fa3c.{foreign}")), None, "{foreign}");
        }
        assert!(marks.is_link("gv09fa3c07fe") && marks.is_link(&marks.link(2)));
        for foreign in ["gv09fa3c", "gv09fa3c07f", "gv09fa3c07fe0", "gv09fa3cwxyz", "gv09fa3d07fe", "gl09fa3c07fe"] {
            assert!(!marks.is_link(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_bench_cannot_be_named_out_of_its_folder() {
        for wrong in ["", "../x", "A", "a.b", &"x".repeat(33)] {
            assert!(Key::bench(wrong).is_err(), "{wrong}");
        }
    }
}
