//! The installation's network on this host: one bridge, a subnet of its own, and rules of its own in nftables.
//!
//! Machines reach outward through the host, if they may, and answer the host; they do not reach each other (their ports are isolated, and nothing is
//! forwarded from the bridge back to it), nor the host's services, and nothing outside reaches them.

use super::helpers::Helpers;
use super::names::{Key, Marks, NETWORK_NAMESPACES, RUNTIME_FOLDER};
use super::{file, rootfs};
use gapless_engine::error::{Context, Error};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Subnets are taken out of 10.208.0.0/12, a part of the private 10.0.0.0/8 (RFC 1918) that other software seldom takes.
const RANGE: Ipv4Addr = Ipv4Addr::new(10, 208, 0, 0);

/// The length of that range's prefix, in bits.
const RANGE_PREFIX: u32 = 12;

/// The length of an installation's prefix, in bits: 2,048 addresses, half of them for machines that reach outward.
const PREFIX: u32 = 21;

/// The addresses of an installation.
const ADDRESSES: u32 = 1 << (32 - PREFIX);

/// Not part of the IPv4 range that a machine may reach: link-local addresses, where clouds serve credentials to whoever asks from the host.
const LINK_LOCAL: &str = "169.254.0.0/16";

/// The frame size where the host has no way out that tells another, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// The network of an installation, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Whether the host did not forward packets before.
    #[serde(default)]
    pub switched_forwarding_on: bool,
}

impl Subnet {
    /// The host's own address in it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The address at a place.
    #[must_use]
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + offset)
    }

    /// The place of an address.
    #[must_use]
    pub fn offset(&self, address: Ipv4Addr) -> u32 {
        u32::from(address).wrapping_sub(u32::from(self.network))
    }

    fn text(&self) -> String {
        format!("{}/{PREFIX}", self.network)
    }

    /// The half whose machines may reach outward.
    fn outbound(&self) -> String {
        format!("{}/{}", self.network, PREFIX + 1)
    }
}

/// Which addresses are in use. The next one is always the one after the last, so that an address rests as long as possible before it is used again.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    taken: BTreeSet<Ipv4Addr>,
    last: [u32; 2],
}

impl Addresses {
    /// Marks an address as in use.
    pub fn take(&mut self, address: Ipv4Addr) {
        self.taken.insert(address);
    }

    /// Marks an address as free.
    pub fn free(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// A free address, none of `not`.
    ///
    /// # Errors
    /// When all are in use.
    pub fn next(&mut self, subnet: &Subnet, outbound: bool, not: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let (first, count) = half(outbound);
        let last = &mut self.last[usize::from(outbound)];
        for _ in 0..count {
            *last = (*last + 1) % count;
            let address = subnet.at(first + *last);
            if !not.contains(&address) && self.taken.insert(address) {
                return Ok(address);
            }
        }
        Err(Error::new(format!("all {count} addresses of {} are in use", subnet.text()))
            .hint("destroy nodes, or look for leftovers with `gapless doctor`"))
    }

    /// How many addresses are free, none of `not` among them.
    pub fn free_count(&self, subnet: &Subnet, outbound: bool, not: &BTreeSet<Ipv4Addr>) -> u32 {
        let (first, count) = half(outbound);
        let used = |address: &&Ipv4Addr| (first..first + count).contains(&subnet.offset(**address));
        let used = self.taken.union(not).filter(used).count();
        count.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }
}

/// An address that is written down nowhere yet: when its holder comes to nothing, it is free again.
#[derive(Debug)]
pub struct Reserved<'a> {
    addresses: &'a Mutex<Addresses>,
    address: Ipv4Addr,
    is_kept: AtomicBool,
}

impl<'a> Reserved<'a> {
    /// Takes the next free address, none of `not`.
    ///
    /// # Errors
    /// When all are in use.
    pub fn next(addresses: &'a Mutex<Addresses>, subnet: &Subnet, outbound: bool, not: &BTreeSet<Ipv4Addr>) -> Result<Self, Error> {
        let address = addresses.lock().unwrap_or_else(PoisonError::into_inner).next(subnet, outbound, not)?;
        Ok(Self { addresses, address, is_kept: AtomicBool::new(false) })
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address stays in use if this record of it was written, or may have been: a write that fails at its very end can be read all the same.
    ///
    /// # Errors
    /// The write's.
    pub fn keep_if<T>(&self, written: Result<(), Error>, record: impl FnOnce() -> Result<Option<T>, Error>) -> Result<(), Error> {
        let is_absent = || matches!(record(), Ok(None));
        self.is_kept.store(written.is_ok() || !is_absent(), Ordering::Relaxed);
        written
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner).free(self.address);
        }
    }
}

/// The place of the first address of a half, and how many it has. The first two and the last address of the subnet are the network's, the host's and the broadcast's.
fn half(outbound: bool) -> (u32, u32) {
    const HALF: u32 = ADDRESSES / 2;
    if outbound { (2, HALF - 2) } else { (HALF, HALF - 1) }
}

/// The network of an installation, ready for machines.
#[derive(Clone, Debug)]
pub struct Network {
    /// The marks of the installation.
    marks: Marks,
    /// Its addresses.
    pub subnet: Subnet,
    /// The frame size in bytes: the uplink's, because the bridge's must not exceed it.
    pub mtu: u32,
}

impl Network {
    /// Makes what is missing of the installation's network; what is kept is in this file.
    ///
    /// # Errors
    /// When no subnet is free, or the host refuses.
    pub fn open(marks: &Marks, helpers: &Helpers, kept: &Path) -> Result<Self, Error> {
        file::make_folder(Path::new(RUNTIME_FOLDER), 0o711)?;
        // Held until the bridge has its address: two installations that open at once must not choose the same subnet.
        let lock = File::create(Path::new(RUNTIME_FOLDER).join("network.lock")).context(|| "opening the lock of the networks".into())?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .context(|| "waiting for the lock of the networks".into())?;
        let known = file::read::<Subnet>(kept)?;
        let mut subnet = match known.clone() {
            Some(subnet) => subnet,
            None => Subnet { network: choose(marks, &occupied(helpers)?)?, switched_forwarding_on: false },
        };
        subnet.switched_forwarding_on |= !forwards()?;
        // Before it is done, or a server that is killed in between would leave the host changed. What is known is not written again: a server must start on a full
        // disk, too.
        if known.as_ref() != Some(&subnet) {
            file::write(kept, &subnet)?;
        }
        switch_forwarding(true)?;
        let network = Self { marks: marks.clone(), subnet, mtu: uplink_mtu(helpers) };
        network.make_bridge(helpers)?;
        helpers.run(Command::new("nft").args(["-f", "-"]), &network.rules()).context(|| "loading the installation's rules".into())?;
        prepare_namespaces_folder()?;
        Ok(network)
    }

    /// Makes the bridge, or finishes one that an earlier server only began.
    fn make_bridge(&self, helpers: &Helpers) -> Result<(), Error> {
        let bridge = self.marks.bridge();
        let (mtu, gateway) = (self.mtu, self.subnet.gateway());
        let mut commands = String::new();
        if !Path::new("/sys/class/net").join(&bridge).exists() {
            // With a hardware address of its own. Otherwise it has its ports' lowest, which changes when machines come and go: then those that stay would send to
            // nobody until they ask again, and the host forgets the ways to all of them.
            let own = hardware(gateway);
            let _ =
                writeln!(commands, "link add {bridge} address {own} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        }
        let _ = writeln!(commands, "link set {bridge} mtu {mtu}\naddr replace {gateway}/{PREFIX} dev {bridge}\nlink set {bridge} up");
        helpers.run(Command::new("ip").args(["-batch", "-"]), &commands).map(drop).context(|| format!("making the bridge {bridge}"))
    }

    /// The rules, as one transaction that replaces those of an earlier start. Connections between the host and its machines are not tracked: they are many, short
    /// and few words suffice for them, and a full table of connections would lose requests.
    fn rules(&self) -> String {
        let (table, bridge) = (self.marks.table(), self.marks.bridge());
        let (gateway, subnet, outbound) = (self.subnet.gateway(), self.subnet.text(), self.subnet.outbound());
        format!(
            r#"table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip saddr {subnet} ip daddr {gateway} notrack
  }}
  chain untracked_out {{
    type filter hook output priority raw; policy accept;
    oifname "{bridge}" ip saddr {gateway} ip daddr {subnet} notrack
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{bridge}" ip saddr {subnet} fib saddr type != local drop
    iifname "{bridge}" ip saddr {subnet} ip daddr {gateway} tcp flags & (ack | rst) != 0 accept
    iifname "{bridge}" ip saddr {subnet} ip daddr {gateway} icmp type {{ echo-reply, destination-unreachable, time-exceeded }} accept
    iifname "{bridge}" drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname "{bridge}" drop
    iifname "{bridge}" ip daddr {LINK_LOCAL} drop
    iifname "{bridge}" ip saddr {outbound} accept
    iifname "{bridge}" drop
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
}}
"#
        )
    }

    /// A machine's network namespace, with a sysfs that shows only its own interfaces mounted at `sys`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_namespace(&self, key: &Key, sys: &Path) -> Result<(), Error> {
        let place = self.marks.network_namespace(key);
        remove_namespace(&place)?;
        File::create(&place).context(|| format!("making {}", place.display()))?;
        let sys = sys.to_path_buf();
        // A thread of its own enters the new namespace and ends there: no other code ever runs in it.
        let made = std::thread::spawn(move || enter_new_namespace(&place, &sys)).join();
        made.unwrap_or_else(|_| Err(Error::new("the thread that makes it panicked")))
            .context(|| format!("making the network namespace of {key}"))
    }

    /// The commands that make a machine's link, for `ip -batch` on the host. The host knows the way to the machine for good: no answer of another one to "who has
    /// this address" counts (and none could be forged: machines have no raw sockets, as their network namespace belongs to the host's user namespace).
    pub fn link_commands(&self, key: &Key, address: Ipv4Addr) -> String {
        let link = self.marks.link(self.subnet.offset(address));
        let (bridge, namespace, mtu) = (self.marks.bridge(), self.marks.machine(key), self.mtu);
        let (hardware, alias) = (hardware(address), self.marks.alias(key));
        format!(
            "link add {link} mtu {mtu} type veth peer name eth0 mtu {mtu} address {hardware} netns {namespace}\n\
             link set {link} alias {alias}\n\
             link set {link} master {bridge}\nlink set {link} type bridge_slave isolated on\nlink set {link} up\n\
             neigh replace {address} lladdr {hardware} dev {bridge} nud permanent\n"
        )
    }

    /// The commands that a machine's interface needs, for `ip -n NAMESPACE -batch`.
    pub fn interface_commands(&self, address: Ipv4Addr) -> String {
        let gateway = self.subnet.gateway();
        let hardware = hardware(gateway);
        format!(
            "link set lo up\naddr add {address}/{PREFIX} dev eth0\nlink set eth0 up\nroute add default via {gateway}\n\
             neigh replace {gateway} lladdr {hardware} dev eth0 nud permanent\n"
        )
    }

    /// Links two machines with each other alone: `sandbox` reaches the address of `bench`, and nothing else.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn link_sandbox(&self, helpers: &Helpers, sandbox: (&Key, Ipv4Addr), bench: (&Key, Ipv4Addr)) -> Result<(), Error> {
        let (inside, outside) = (self.marks.machine(sandbox.0), self.marks.machine(bench.0));
        let (own, other, mtu) = (sandbox.1, bench.1, self.mtu);
        let end = format!("sb{:04x}", self.subnet.offset(own));
        let here = format!(
            "link set lo up\nlink add eth0 mtu {mtu} type veth peer name {end} mtu {mtu} netns {outside}\n\
             addr add {own}/32 dev eth0\nlink set eth0 up\nroute add {other}/32 dev eth0\n"
        );
        in_namespace(helpers, &inside, &here)?;
        in_namespace(helpers, &outside, &format!("link set {end} up\nroute add {own}/32 dev {end}\n"))
    }

    /// The addresses whose links are there.
    ///
    /// # Errors
    /// When the host's links cannot be listed.
    pub fn linked(&self) -> Result<Vec<Ipv4Addr>, Error> {
        let names = file::names(Path::new("/sys/class/net"))?;
        let offsets = names.iter().filter_map(|name| self.marks.link_offset(name)).filter(|offset| *offset < ADDRESSES);
        Ok(offsets.map(|offset| self.subnet.at(offset)).collect())
    }

    /// The namespace's name, for `ip -n`.
    pub fn namespace(&self, key: &Key) -> String {
        self.marks.machine(key)
    }

    /// Removes the links of these addresses in one go: one at a time, each would wait for the kernel's readers by itself.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn remove_links(&self, helpers: &Helpers, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        let offsets = addresses.iter().map(|address| self.subnet.offset(*address));
        let links: Vec<String> = offsets.map(|offset| self.marks.link(offset)).collect();
        let bridge = self.marks.bridge();
        // Not `neigh del`: it ends the whole batch where there is nothing to delete, `-force` or not.
        let forget: String = addresses.iter().map(|address| format!("neigh flush to {address} dev {bridge} nud permanent\n")).collect();
        remove_links_and(helpers, &links, &forget)
    }
}

/// The hardware address of whoever has this address: locally administered (its first byte), and made of the address, so that what is known of an address stays right
/// when it is used again.
fn hardware(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:67:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Removes links of the host, those of them that are there.
///
/// # Errors
/// When the host refuses.
pub fn remove_links(helpers: &Helpers, links: &[String]) -> Result<(), Error> {
    remove_links_and(helpers, links, "")
}

/// As [`remove_links`]; then runs these commands of `ip`, which may fail.
fn remove_links_and(helpers: &Helpers, links: &[String], then: &str) -> Result<(), Error> {
    let present = |link: &&String| Path::new("/sys/class/net").join(link).exists();
    let links: Vec<&String> = links.iter().filter(present).collect();
    let Some(first) = links.first() else { return Ok(()) };
    let group = link_group(first);
    let mut commands = String::new();
    for link in &links {
        let _ = writeln!(commands, "link set dev {link} group {group}");
    }
    let _ = write!(commands, "link del group {group}\n{then}");
    let result = helpers.run(Command::new("ip").args(["-force", "-batch", "-"]), &commands);
    if links.iter().any(present) { result.map(drop).context(|| format!("removing {links:?}")) } else { Ok(()) }
}

/// A group number that no other removal uses at the same time: it is made of the name of a link that is removed once.
fn link_group(link: &str) -> u32 {
    let hash = link.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash & 0x3fff_ffff | 0x4000_0000
}

/// Runs commands of `ip` inside a namespace.
///
/// # Errors
/// When one fails.
pub fn in_namespace(helpers: &Helpers, namespace: &str, commands: &str) -> Result<(), Error> {
    helpers
        .run(Command::new("ip").args(["-n", namespace, "-batch", "-"]), commands)
        .map(drop)
        .context(|| format!("setting up the network of {namespace}"))
}

/// Removes a network namespace's name; the namespace goes with its last process.
///
/// # Errors
/// When the name cannot be removed.
pub fn remove_namespace(place: &Path) -> Result<(), Error> {
    while unmount(place, UnmountFlags::DETACH).is_ok() {}
    match fs::remove_file(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("removing {}", place.display())),
    }
}

fn enter_new_namespace(place: &Path, sys: &Path) -> Result<(), Error> {
    let at = |what: &'static str| move || what.to_string();
    // SAFETY: only the network namespace of this thread changes; no descriptor or folder is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(std::io::Error::from).context(at("leaving the host's"))?;
    mount_bind("/proc/thread-self/ns/net", place).map_err(std::io::Error::from).context(at("naming it"))?;
    // A namespace takes the host's forwarding over at its beginning.
    for (setting, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let path = Path::new("/proc/sys/net").join(setting);
        if path.exists() {
            fs::write(&path, value).context(|| format!("writing {}", path.display()))?;
        }
    }
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sysfs", sys, "sysfs", flags, None).map_err(std::io::Error::from).context(at("mounting its sysfs"))
}

/// Does what `ip netns add` does for its first namespace: without it, that command would later bind the folder over itself and hide our names.
fn prepare_namespaces_folder() -> Result<(), Error> {
    let folder = Path::new(NETWORK_NAMESPACES);
    file::make_folder(folder, 0o755)?;
    let lock = File::open(folder).context(|| format!("opening {}", folder.display()))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from).context(|| format!("locking {}", folder.display()))?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(folder, shared).is_ok() {
        return Ok(());
    }
    mount_bind_recursive(folder, folder)
        .and_then(|()| mount_change(folder, shared))
        .map_err(std::io::Error::from)
        .context(|| format!("making {} a mount of its own", folder.display()))
}

/// Whether the host forwards packets between its networks.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn forwards() -> Result<bool, Error> {
    Ok(fs::read_to_string(FORWARDING).context(|| format!("reading {FORWARDING}"))?.trim() == "1")
}

fn switch_forwarding(on: bool) -> Result<(), Error> {
    // A write that changes nothing may be refused where the setting is right already, as in a container.
    if forwards()? == on {
        return Ok(());
    }
    fs::write(FORWARDING, if on { "1" } else { "0" }).context(|| format!("writing {FORWARDING}"))
}

/// The IPv4 networks that the host has or knows a way to, as first address and prefix length.
fn occupied(helpers: &Helpers) -> Result<Vec<(u32, u32)>, Error> {
    let routes = helpers
        .run(Command::new("ip").args(["-j", "-4", "route", "show", "table", "all"]), "")
        .context(|| "listing the host's routes".into())?;
    Ok(destinations(&routes))
}

fn destinations(routes: &str) -> Vec<(u32, u32)> {
    let routes: Vec<serde_json::Value> = serde_json::from_str(routes).unwrap_or_default();
    routes.iter().filter_map(|route| network(route["dst"].as_str()?)).collect()
}

fn network(text: &str) -> Option<(u32, u32)> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    Some((u32::from(address), prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
}

/// The first free subnet, beginning at a place that follows from the installation's id, so that two installations seldom try the same.
fn choose(marks: &Marks, occupied: &[(u32, u32)]) -> Result<Ipv4Addr, Error> {
    let count = 1_u32 << (PREFIX - RANGE_PREFIX);
    let begin = u32::from_str_radix(marks.installation(), 16).unwrap_or(0);
    let candidates = (0..count).map(|step| u32::from(RANGE) + ((begin.wrapping_add(step)) % count) * ADDRESSES);
    let free = |network: &u32| !occupied.iter().any(|other| overlap((*network, PREFIX), *other));
    candidates.into_iter().find(free).map(Ipv4Addr::from).ok_or_else(|| {
        Error::new(format!("no network is free in {RANGE}/{RANGE_PREFIX}"))
            .hint("the host has a route to each of them: see `ip route`; `gapless doctor` finds leftovers of other installations")
    })
}

fn overlap(one: (u32, u32), other: (u32, u32)) -> bool {
    let prefix = one.1.min(other.1);
    // The default route covers everything and occupies nothing.
    if other.1 == 0 {
        return false;
    }
    let shift = 32 - prefix;
    one.0 >> shift == other.0 >> shift
}

fn uplink_mtu(helpers: &Helpers) -> u32 {
    let routes = helpers.run(Command::new("ip").args(["-j", "-4", "route", "show", "default"]), "").unwrap_or_default();
    let routes: Vec<serde_json::Value> = serde_json::from_str(&routes).unwrap_or_default();
    let devices = routes.iter().filter_map(|route| route["dev"].as_str());
    let mtus =
        devices.filter_map(|device| fs::read_to_string(Path::new("/sys/class/net").join(device).join("mtu")).ok()?.trim().parse().ok());
    mtus.min().unwrap_or(DEFAULT_MTU)
}

/// Chains of others that drop what is forwarded: with one of them (Docker's, a firewall's), nodes reach nothing outside, whatever our rules accept.
#[must_use]
pub fn foreign_forward_policies(helpers: &Helpers) -> Vec<String> {
    let chains = helpers.run(Command::new("nft").args(["-j", "list", "chains"]), "").unwrap_or_default();
    let chains: serde_json::Value = serde_json::from_str(&chains).unwrap_or_default();
    let chains = chains["nftables"].as_array().cloned().unwrap_or_default();
    let dropping = chains.iter().map(|entry| &entry["chain"]).filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
    dropping.map(|chain| format!("{} {} {}", text(&chain["family"]), text(&chain["table"]), text(&chain["name"]))).collect()
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// Removes the bridge, the rules and what else of the network the host still has. Switches forwarding off again if this installation had switched it on and
/// no other one is there.
///
/// # Errors
/// When the host refuses.
pub fn remove(marks: &Marks, helpers: &Helpers, subnet: Option<&Subnet>) -> Result<(), Error> {
    let links = file::names(Path::new("/sys/class/net"))?;
    let own: Vec<String> = links.iter().filter(|link| marks.is_link(link) || **link == marks.bridge()).cloned().collect();
    remove_links(helpers, &own)?;
    remove_table(marks, helpers)?;
    rootfs::unmount_all(&marks.runtime_folder())?;
    let others = file::names(Path::new(RUNTIME_FOLDER))?.iter().any(|name| Marks::new(name).is_ok());
    if subnet.is_some_and(|subnet| subnet.switched_forwarding_on) && !others {
        switch_forwarding(false).context(|| "switching forwarding off again".into())?;
    }
    Ok(())
}

/// Removes the installation's rules, if they are loaded.
///
/// # Errors
/// When the host refuses.
pub fn remove_table(marks: &Marks, helpers: &Helpers) -> Result<(), Error> {
    if has_table(marks, helpers) {
        helpers
            .run(Command::new("nft").args(["delete", "table", "inet", &marks.table()]), "")
            .context(|| "removing the installation's rules".into())?;
    }
    Ok(())
}

/// Whether the installation's rules are loaded.
pub fn has_table(marks: &Marks, helpers: &Helpers) -> bool {
    helpers
        .run(Command::new("nft").args(["list", "tables"]), "")
        .is_ok_and(|tables| tables.lines().any(|line| line == format!("table inet {}", marks.table())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet { network: Ipv4Addr::new(10, 208, 8, 0), switched_forwarding_on: false }
    }

    #[test]
    fn a_subnet_avoids_what_the_host_knows() {
        let marks = Marks::new("000000").unwrap();
        assert_eq!(choose(&marks, &[]).unwrap(), Ipv4Addr::new(10, 208, 0, 0));
        let occupied = destinations(r#"[{"dst":"default"},{"dst":"10.208.0.0/20"},{"dst":"10.208.16.7"},{"dst":"0.0.0.0/0"}]"#);
        assert_eq!(choose(&marks, &occupied).unwrap(), Ipv4Addr::new(10, 208, 24, 0));
        assert!(choose(&marks, &[(u32::from(Ipv4Addr::new(10, 0, 0, 0)), 8)]).is_err());
    }

    #[test]
    fn an_address_rests_before_it_is_used_again() {
        let mut addresses = Addresses::default();
        let none = BTreeSet::new();
        let first = addresses.next(&subnet(), true, &none).unwrap();
        addresses.free(first);
        let listed = BTreeSet::from([first]);
        assert_eq!(addresses.free_count(&subnet(), true, &listed), 1021);
        assert_eq!(addresses.free_count(&subnet(), false, &listed), 1023);
        let mut later = Vec::new();
        for _ in 0..1021 {
            later.push(addresses.next(&subnet(), true, &listed).unwrap());
        }
        assert!(!later.contains(&first));
        assert_eq!((addresses.free_count(&subnet(), true, &listed), addresses.free_count(&subnet(), true, &none)), (0, 1));
        assert!(addresses.next(&subnet(), true, &listed).is_err(), "a listed address is not used although it is free");
        assert_eq!(addresses.next(&subnet(), true, &none).unwrap(), first);
    }

    #[test]
    fn the_halves_of_a_subnet_are_apart() {
        let mut addresses = Addresses::default();
        let none = BTreeSet::new();
        let outbound = subnet().offset(addresses.next(&subnet(), true, &none).unwrap());
        let inward = subnet().offset(addresses.next(&subnet(), false, &none).unwrap());
        assert!((2..1024).contains(&outbound), "{outbound}");
        assert!((1024..2047).contains(&inward), "{inward}");
    }

    #[test]
    fn an_address_of_which_nothing_was_written_down_is_free_again() {
        let addresses = Mutex::new(Addresses::default());
        let next = || Reserved::next(&addresses, &subnet(), true, &BTreeSet::new()).unwrap();
        let free = || addresses.lock().unwrap().free_count(&subnet(), true, &BTreeSet::new());
        let failed = || Err(Error::new("the disk is full"));
        let all = free();
        drop(next());
        assert_eq!(free(), all);
        assert!(next().keep_if(failed(), || Ok(None::<()>)).is_err());
        assert_eq!(free(), all);
        assert!(next().keep_if(failed(), || Ok(Some(()))).is_err());
        assert_eq!(free(), all - 1, "it can be read all the same");
        assert!(next().keep_if(failed(), || Err::<Option<()>, _>(Error::new("unreadable"))).is_err());
        assert_eq!(free(), all - 2, "nobody knows whether it is there");
        next().keep_if(Ok(()), || Ok(None::<()>)).unwrap();
        assert_eq!(free(), all - 3);
    }
}
