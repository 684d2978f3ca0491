//! Nodes up and down, and what they may do.

use crate::service::{PORT, declaration, group, serving};
use crate::support::Installation;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::observation::Condition;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::platform::Platform;
use gapless_platforms::local::LocalPlatform;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn service() -> ServiceName {
    "hello/web".parse().unwrap()
}

/// Asks a node until it answers.
fn answer(address: SocketAddr) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            return answer;
        }
        assert!(Instant::now() < end, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a node to its end and gives what it wrote.
async fn run(platform: &LocalPlatform, declaration: ServiceDeclaration, instance: u64) -> (Option<i32>, String) {
    let node = group(instance).node(0);
    platform.ensure_group(Arc::new(declaration), group(instance), 1).await.unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = platform.observe(&service()).await.unwrap();
        if let Condition::Exited { code, .. } = seen.nodes[&node].condition {
            return (code, std::fs::read_to_string(platform.output(&service(), node).unwrap()).unwrap());
        }
        assert!(Instant::now() < end, "the command does not end: {seen:?}");
        platform.changed(&service(), Duration::from_secs(1)).await;
    }
}

async fn probe(platform: &LocalPlatform, instance: u64, probes: &[&str]) -> Vec<String> {
    let arguments: Vec<&str> = ["probe"].iter().chain(probes).copied().collect();
    let (code, output) = run(platform, declaration(&arguments), instance).await;
    assert_eq!(code, Some(0), "{output}");
    output.lines().map(|line| line.split_once(" -> ").unwrap().1.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_up_serve_and_go() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let begun = Instant::now();
    platform.ensure_group(Arc::new(serving()), group(1), 3).await.unwrap();
    let made = begun.elapsed();
    let nodes: BTreeSet<NodeId> = (0..3).map(|ordinal| group(1).node(ordinal)).collect();
    for node in &nodes {
        let address = platform.address(&service(), *node).unwrap();
        assert_eq!(address.port(), PORT);
        assert!(answer(address).ends_with("ok"));
    }
    let seen = platform.observe(&service()).await.unwrap();
    assert!(seen.nodes.values().all(|node| node.condition == Condition::Running), "{seen:?}");
    assert_eq!(seen.nodes.keys().copied().collect::<BTreeSet<_>>(), nodes);
    assert_eq!(installation.leftovers().find().unwrap(), vec![], "what lives is no leftover");
    let begun = Instant::now();
    platform.destroy_nodes(&service(), &nodes).await.unwrap();
    println!("3 nodes: made in {made:?}, destroyed in {:?}", begun.elapsed());
    assert!(platform.observe(&service()).await.unwrap().nodes.is_empty());
    assert_eq!(installation.leftovers().find().unwrap(), vec![], "something of a destroyed node is left");
    assert!(platform.output(&service(), group(1).node(0)).unwrap().exists(), "the output outlives the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_writes_only_where_it_was_declared() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut settings = declaration(&[
        "probe",
        "write:/etc/x",
        "write:/run/x",
        "write:/data/x",
        "write:/var/new/x",
        "write:/sys/x",
        "write:/proc/sys/kernel/hostname",
        "write:/volume/x",
        "list:/sys/class/net",
        "read:/etc/hostname",
    ]);
    settings.node.volumes.insert("kept".to_string(), "/volume".into());
    let (_, output) = run(&platform, settings, 1).await;
    let results: Vec<&str> = output.lines().map(|line| line.split_once(" -> ").unwrap().1).collect();
    let read_only = "refused (ReadOnlyFilesystem)";
    assert_eq!(&results[..4], [read_only, "done", "done", "done"], "{output}");
    assert!(results[4].starts_with("refused") && results[5].starts_with("refused"), "{output}");
    assert_eq!(&results[6..], ["done", "eth0 lo", "web-r1-i1-n0"], "{output}");
    let kept = installation.state().join("volumes/hello/kept/x");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "x", "a volume outlives the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writable_path_keeps_the_owner_it_has_in_the_image() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut settings = declaration(&["probe", "write:/data/x", "write:/etc/x"]);
    settings.node.user = "www-data".to_string();
    let (_, output) = run(&platform, settings, 1).await;
    assert!(output.starts_with("write:/data/x -> done"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_neither_each_other_nor_the_host() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let other = platform.address(&service(), group(1).node(0)).unwrap();
    answer(other);
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let std::net::IpAddr::V4(other_ip) = other.ip() else { unreachable!("the network is IPv4") };
    let gateway = std::net::Ipv4Addr::from(u32::from(other_ip) & !0x7ff | 1);
    assert!(TcpStream::connect((gateway, port)).is_ok(), "the host itself reaches its service at the bridge");
    let outside = Outside::new(&installation.id, 4);
    let mut probes = vec![format!("connect:{other}"), format!("connect:{gateway}:{port}"), format!("connect:{}:{port}", uplink())];
    probes.extend([format!("connect:{}", outside.serve()), "raw".to_string()]);
    let results = probe(&platform, 2, &probes.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(results[..3].iter().all(|result| result.starts_with("refused")), "{results:?}");
    assert_eq!(results[3], "reached", "the node that asks reaches nothing at all: what it did not reach proves nothing");
    assert_eq!(results[4], "refused (PermissionDenied)", "a node could forge whose address is whose");
    assert_eq!(TcpStream::connect(other).map(drop).map_err(|error| error.kind()), Ok(()), "the other node did not serve meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_and_nodes_know_the_way_to_each_other_for_good() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let bridge = format!("gl{}", installation.id);
    let hardware = || std::fs::read_to_string(format!("/sys/class/net/{bridge}/address")).unwrap();
    let before = hardware();
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    let known = || String::from_utf8(ip(&["neigh", "show", "dev", &bridge]).stdout).unwrap();
    let nodes: BTreeSet<NodeId> = (0..2).map(|ordinal| group(1).node(ordinal)).collect();
    for node in &nodes {
        let address = platform.address(&service(), *node).unwrap();
        answer(address);
        let begin = format!("{} lladdr 02:67:", address.ip());
        assert!(known().lines().any(|line| line.starts_with(&begin) && line.contains("PERMANENT")), "{}", known());
    }
    let _again = installation.open().await;
    assert!(nodes.iter().all(|node| known().contains(&format!("{} ", platform.address(&service(), *node).unwrap().ip()))), "{}", known());
    platform.destroy_nodes(&service(), &nodes).await.unwrap();
    assert!(!known().contains("PERMANENT"), "{}", known());
    assert_eq!(hardware(), before, "the bridge has another address with other machines: those that stay lose it");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_node_says_whose_it_is() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(7), 1).await.unwrap();
    let (id, key) = (&installation.id, "hello.web.r1-i7-n0");
    let runtime = installation.state().join("platform/runc");
    let container = format!("gl{id}.{key}");
    let state = Command::new("runc").arg("--root").arg(&runtime).args(["state", &container]).output().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
    let expected = serde_json::json!({
        "gapless.installation": id, "gapless.machine": key, "gapless.project": "hello", "gapless.service": "hello/web",
        "gapless.release": "web-r1", "gapless.lease": "group r1-i7",
    });
    assert_eq!(state["annotations"], expected);
    let links = std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|entry| entry.path());
    let link = links.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("gv{id}"))).unwrap();
    assert_eq!(std::fs::read_to_string(link.join("ifalias")).unwrap().trim(), format!("gapless:{id}:{key}"));
    assert!(std::path::Path::new("/run/netns").join(&container).exists());
}

fn ip(arguments: &[&str]) -> Output {
    Command::new("ip").args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_of_the_host_find_no_way_into_a_node() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let root = format!("/run/gapless/{}/hello.web.r1-i1-n0/root", installation.id);
    let file = format!("{root}/etc/passwd");
    let reads = |user: u32, group: u32, file: &str| {
        let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
        Command::new("setpriv").args([&user, &group, "--clear-groups", "cat", file]).output().unwrap().status.success()
    };
    assert!(reads(65_534, 65_534, "/proc/version"), "this user reads nothing at all: what it does not read proves nothing");
    assert!(reads(0, 0, &file), "there is no such file: that nobody reads it proves nothing");
    assert!(!reads(65_534, 65_534, &file), "any user of the host reads the application's files");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(&root)).unwrap();
    assert!(mount.split(' ').nth(5).unwrap().split(',').any(|option| option == "nosuid"), "{mount}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_was_only_begun_is_finished() {
    let installation = Installation::new();
    drop(installation.open().await);
    let bridge = format!("gl{}", installation.id);
    // As a server leaves it that is killed right after it made the bridge.
    for command in [vec!["addr", "flush", "dev", &bridge], vec!["link", "set", &bridge, "down"]] {
        assert!(ip(&command).status.success(), "{command:?}");
    }
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    assert!(answer(platform.address(&service(), group(1).node(0)).unwrap()).ends_with("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_only_begun_is_given_to_the_node() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let volume = installation.state().join("volumes/hello/kept");
    std::fs::create_dir_all(&volume).unwrap();
    let mut settings = declaration(&["probe", "write:/volume/x"]);
    settings.node.user = "www-data".to_string();
    settings.node.volumes.insert("kept".to_string(), "/volume".into());
    let (_, output) = run(&platform, settings, 1).await;
    assert!(output.starts_with("write:/volume/x -> done"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_watched_although_its_sibling_could_not_be_made() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let nodes = installation.state().join("platform/nodes");
    // Where the second node's start is to be written down, there is something else.
    let obstacle = nodes.join("hello.web.r1-i1-n1/running.json.new");
    std::fs::create_dir_all(&obstacle).unwrap();
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap_err();
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes[&group(1).node(0)].condition, Condition::Running, "{seen:?}");
    let begun = Instant::now();
    kill(&nodes.join("hello.web.r1-i1-n0/bundle/pid"));
    platform.changed(&service(), Duration::from_secs(10)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "noticed after {:?}", begun.elapsed());
    std::fs::remove_dir(&obstacle).unwrap();
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes[&group(1).node(1)].condition, Condition::Running, "{seen:?}");
}

/// Kills the process that a file names.
fn kill(pid_file: &std::path::Path) {
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burial_that_was_broken_off_is_finished_at_the_next_start() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let node = group(1).node(0);
    platform.destroy_nodes(&service(), &BTreeSet::from([node])).await.unwrap();
    drop(platform);
    // As a server leaves it that is killed right after it wrote the tombstone.
    let folder = installation.state().join("platform/nodes/hello.web.r1-i1-n0");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("output.log"), "last words").unwrap();
    let platform = installation.open().await;
    assert!(!folder.exists(), "the folder of a destroyed node stays for ever");
    assert_eq!(std::fs::read_to_string(platform.output(&service(), node).unwrap()).unwrap(), "last words");
}

/// An address of the host that is not the bridge's.
fn uplink() -> std::net::IpAddr {
    // A datagram socket that is connected sends nothing; it only chooses the way.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.200:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_not_reached_from_another_network() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let node = platform.address(&service(), group(1).node(0)).unwrap();
    answer(node);
    let outside = Outside::new(&installation.id, 0);
    assert!(!outside.reaches(node), "a machine outside reaches a node through the host");
    let listener = std::net::TcpListener::bind("198.18.0.1:0").unwrap();
    assert!(outside.reaches(listener.local_addr().unwrap()), "the machine outside reaches nothing at all: the check above proves nothing");
}

/// A machine outside: a network namespace that has the host as its way to everything.
struct Outside {
    name: String,
    link: String,
    address: String,
    server: Mutex<Option<Child>>,
}

impl Outside {
    /// With the four addresses at `place` in 198.18.0.0/24, which is for measurements of networks (RFC 2544); tests that run at the same time need different ones.
    fn new(id: &str, place: u8) -> Self {
        let (name, link) = (format!("out{id}"), format!("o{id}"));
        let (host, own) = (format!("198.18.0.{}", place + 1), format!("198.18.0.{}", place + 2));
        let commands = format!(
            "netns add {name}\nlink add {link} type veth peer name eth0 netns {name}\naddr add {host}/30 dev {link}\nlink set {link} up\n\
             -n {name} addr add {own}/30 dev eth0\n-n {name} link set eth0 up\n-n {name} route add default via {host}\n"
        );
        let outside = Self { name, link, address: own, server: Mutex::default() };
        for line in commands.lines() {
            let made = ip(&line.split_whitespace().collect::<Vec<_>>());
            assert!(made.status.success(), "ip {line}");
        }
        outside
    }

    fn reaches(&self, address: SocketAddr) -> bool {
        let probe = format!("connect:{address}");
        String::from_utf8(self.command(&["probe", &probe]).output().unwrap().stdout).unwrap().contains("reached")
    }

    /// Serves there, and says where.
    fn serve(&self) -> String {
        let mut server = self.command(&["serve", "80"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "serving\n");
        *self.server.lock().unwrap() = Some(server);
        format!("{}:80", self.address)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(crate::support::program()).args(arguments);
        command
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.lock().ok().and_then(|mut server| server.take()) {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = ip(&["link", "del", &self.link]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_more_memory_than_it_may_is_ended() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let (code, output) = run(&platform, declaration(&["probe", "take:16000000", "take:100000000"]), 1).await;
    assert!(output.contains("took "), "less than the limit is not refused: {output}");
    assert_eq!(code, Some(128 + 9), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_in_the_image_is_seen_exited_with_the_reason() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut settings = serving();
    settings.node.command = vec!["/no/such/program".to_string()];
    platform.ensure_group(Arc::new(settings), group(1), 1).await.unwrap();
    let seen = platform.observe(&service()).await.unwrap();
    let Condition::Exited { code: None, output } = &seen.nodes[&group(1).node(0)].condition else { panic!("{seen:?}") };
    assert!(output.contains("/no/such/program"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_is_noticed_at_once() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let node = group(1).node(0);
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    // Its last words are written by then.
    answer(platform.address(&service(), node).unwrap());
    platform.observe(&service()).await.unwrap();
    kill(&installation.state().join("platform/nodes/hello.web.r1-i1-n0/bundle/pid"));
    let begun = Instant::now();
    platform.changed(&service(), Duration::from_secs(10)).await;
    let took = begun.elapsed();
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes[&node].condition, Condition::Exited { code: Some(128 + 9), output: "serving".to_string() });
    assert!(took < Duration::from_secs(2), "noticed after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_outlive_their_platform_and_no_helper_group_holds_them() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    let address = platform.address(&service(), group(1).node(1)).unwrap();
    answer(address);
    drop(platform);
    // Opening ends all helpers: a node among them would be gone.
    let next = installation.open().await;
    assert!(answer(address).ends_with("ok"));
    let seen = next.observe(&service()).await.unwrap();
    assert!(seen.nodes.len() == 2 && seen.nodes.values().all(|node| node.condition == Condition::Running), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_found_and_removed() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    drop(platform);
    // Without its record, nothing explains the node any more.
    std::fs::remove_file(installation.state().join("platform/nodes/hello.web.r1-i1-n0/node.json")).unwrap();
    let leftovers = installation.leftovers();
    let found = leftovers.find().unwrap();
    let kinds: BTreeSet<String> = found.iter().map(|leftover| leftover.kind.to_string()).collect();
    let expected = ["container", "control group", "interface", "mount", "network namespace", "processes"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{found:?}");
    assert!(found.iter().all(|leftover| !leftover.name.contains("n1")), "a node that is on record is no leftover: {found:?}");
    leftovers.remove(&found).unwrap();
    assert_eq!(leftovers.find().unwrap(), vec![]);
    let next = installation.open().await;
    let seen = next.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes[&group(1).node(1)].condition, Condition::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_at_makes_nothing_a_leftover() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
    let folder = installation.state().join("platform");
    for name in ["nodes/hello.web.r1-i1-n0", "nodes", "tombstones", "network.json"] {
        let (place, aside) = (folder.join(name), folder.join("aside"));
        std::fs::rename(&place, &aside).unwrap();
        // A file instead of a folder, and the other way round, is what a look fails at.
        if aside.is_dir() {
            std::fs::write(&place, "").unwrap()
        } else {
            std::fs::create_dir(&place).unwrap()
        }
        let found = installation.leftovers().find();
        if place.is_dir() {
            std::fs::remove_dir(&place).unwrap()
        } else {
            std::fs::remove_file(&place).unwrap()
        }
        std::fs::rename(&aside, &place).unwrap();
        assert!(found.is_err(), "{name}: {found:?}");
    }
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
}
