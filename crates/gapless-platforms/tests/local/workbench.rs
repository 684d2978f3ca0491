//! Build nodes and sandboxes.

use crate::service::PROGRAM;
use crate::support::Installation;
use gapless_engine::workbench::{BenchRequest, SandboxEnd, SandboxRequest, Workbench};
use gapless_platforms::local::LocalPlatform;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn bench(installation: &Installation, command: &[&str]) -> BenchRequest {
    let upper = installation.folder.path().join("upper");
    fs::create_dir_all(&upper).unwrap();
    let key = installation.folder.path().join("key");
    fs::write(&key, "secret of the build").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    BenchRequest {
        name: "build-1".to_string(),
        layers: vec![installation.image()],
        upper,
        command: [PROGRAM].iter().chain(command).map(|part| (*part).to_string()).collect(),
        files: BTreeMap::from([(PathBuf::from("/root/.ssh/key"), key)]),
        log: installation.folder.path().join("bench.log"),
    }
}

fn sandbox(installation: &Installation, name: &str, script: &str) -> SandboxRequest {
    let writable = installation.folder.path().join("writable");
    fs::create_dir_all(&writable).unwrap();
    SandboxRequest {
        name: name.to_string(),
        command: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
        environment: BTreeMap::from([("GREETING".to_string(), "hello".to_string())]),
        readable: BTreeMap::from([(PathBuf::from("/image"), installation.image())]),
        writable: BTreeMap::from([(PathBuf::from("/made"), writable)]),
        working_directory: PathBuf::from("/made"),
        bench: None,
        log: installation.folder.path().join(format!("{name}.log")),
        deadline: Duration::from_secs(20),
    }
}

async fn run(platform: &LocalPlatform, request: SandboxRequest) -> (SandboxEnd, String) {
    let log = request.log.clone();
    let end = platform.run(request).await.unwrap();
    (end, fs::read_to_string(log).unwrap())
}

/// Waits until a file holds a text.
fn holds(path: &std::path::Path, text: &str) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let content = fs::read_to_string(path).unwrap_or_default();
        if content.contains(text) {
            return content;
        }
        assert!(Instant::now() < end, "{} never held `{text}`: {content}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_node_changes_its_upper_tree_alone() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let request = bench(
        &installation,
        &["probe", "write:/etc/new", "read:/root/.ssh/key", "write:/root/.ssh/key", "write:/tmp/x", "list:/run", "stay"],
    );
    let (upper, log) = (request.upper.clone(), request.log.clone());
    platform.open(request.clone()).await.unwrap();
    assert!(platform.open(request).await.is_err(), "a name that is in use is refused");
    let output = holds(&log, "list:/run");
    let results: Vec<&str> = output.lines().map(|line| line.split_once(" -> ").unwrap().1).collect();
    assert_eq!(results[..4], ["done", "secret of the build", "refused (ReadOnlyFilesystem)", "done"], "{output}");
    assert!(results[4].contains("sshd") && results[4].contains("lock"), "{output}");
    platform.close("build-1").await.unwrap();
    platform.close("build-1").await.unwrap();
    let new = fs::metadata(upper.join("etc/new")).unwrap();
    assert_eq!(new.uid(), 100_000, "what the node's root wrote belongs to its id on the host");
    let changed: Vec<_> = fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(changed, ["etc"], "nothing but what the command changed is in the upper tree");
    assert_eq!(
        fs::read_dir(upper.join("etc")).unwrap().count(),
        1,
        "neither the host's name servers nor the node's name are in the upper tree"
    );
    assert!(!upper.with_extension("work").exists());
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
}

/// A limit of a machine's control group, of version 1 or 2.
fn limit(installation: &Installation, controller: &str, files: [&str; 2], machine: &str) -> u64 {
    let group = format!("gapless/{}/{machine}", installation.id);
    let folders = [format!("/sys/fs/cgroup/{controller}/{group}"), format!("/sys/fs/cgroup/{group}")];
    let paths = folders.iter().flat_map(|folder| files.map(|file| format!("{folder}/{file}")));
    let text = paths.into_iter().find_map(|path| fs::read_to_string(path).ok()).expect("the control group is there");
    text.trim().parse().unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_cannot_take_all_of_the_host() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.open(bench(&installation, &["serve", "22"])).await.unwrap();
    let request = sandbox(&installation, "limits", "echo began; sleep 600");
    let log = request.log.clone();
    let waiting = tokio::spawn({
        let platform = platform.clone();
        async move { platform.run(request).await }
    });
    holds(&log, "began");
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let host: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
    for (machine, part) in [("bench.build-1", 2), ("sandbox.limits", 4)] {
        let memory = limit(&installation, "memory", ["memory.limit_in_bytes", "memory.max"], machine);
        assert!(memory <= host / part && memory > 100_000_000, "{machine} may take {memory} of {host} bytes");
        let processes = limit(&installation, "pids", ["pids.max", "pids.max"], machine);
        assert!(processes <= 4096, "{machine} may have {processes} processes");
    }
    waiting.abort();
    platform.close("build-1").await.unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while installation.state().join("platform/benches/sandbox.limits").exists() {
        assert!(Instant::now() < end, "the sandbox is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_an_ordinary_user_that_sees_only_what_it_was_given() {
    let installation = Installation::new();
    let platform = installation.open().await;
    fs::write(installation.state().join("key"), "the server's key").unwrap();
    fs::set_permissions(installation.state().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let key = installation.state().join("key").display().to_string();
    let script = format!(
        "echo $GREETING; id -u; grep -q root /image/etc/passwd && echo readable; echo new > /made/new && echo writable; echo x > /image/x || echo sealed\n\
         cat {key} || echo hidden; ls /root /var /home; cat /etc/shadow || echo no-accounts; grep CapEff /proc/self/status; chown 0 /made/new || echo no-owner; exit 3"
    );
    let (end, output) = run(&platform, sandbox(&installation, "look", &script)).await;
    assert_eq!(end, SandboxEnd::Exited(3), "{output}");
    for expected in ["hello", "1000", "readable", "writable", "sealed", "hidden", "no-accounts", "no-owner", "CapEff:\t0000000000000000"] {
        assert!(output.lines().any(|line| line == expected), "`{expected}` is not in {output}");
    }
    assert!(!output.contains("the server's key"), "{output}");
    assert_eq!(fs::metadata(installation.folder.path().join("writable/new")).unwrap().uid(), 201_000);
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_reaches_its_build_node_and_nothing_else() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let build = platform.open(bench(&installation, &["serve", "22"])).await.unwrap();
    holds(&installation.folder.path().join("bench.log"), "serving");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let std::net::IpAddr::V4(address) = build.address else { unreachable!("the network is IPv4") };
    let gateway = std::net::Ipv4Addr::from(u32::from(address) & !0x7ff | 1);
    fs::copy(crate::support::program(), installation.image().join("probe")).unwrap();
    let script = format!("/image/probe probe connect:{address}:22 connect:{gateway}:{port} connect:127.0.0.1:{port}");
    let mut request = sandbox(&installation, "reach", &script);
    let (_, alone) = run(&platform, request.clone()).await;
    assert!(!alone.contains("reached"), "{alone}");
    request.bench = Some("build-1".to_string());
    request.log = installation.folder.path().join("with.log");
    let (_, output) = run(&platform, request.clone()).await;
    let reached: Vec<bool> = output.lines().map(|line| line.ends_with("reached")).collect();
    assert_eq!(reached, [true, false, false], "{output}");
    request.bench = Some("other".to_string());
    assert!(platform.run(request).await.is_err(), "a build node that is not open is no way out");
    platform.close("build-1").await.unwrap();
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_ends_at_its_deadline_and_when_nobody_waits() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut request = sandbox(&installation, "slow", "echo began; sleep 600");
    request.deadline = Duration::from_millis(300);
    let (end, output) = run(&platform, request.clone()).await;
    assert_eq!((end, output.as_str()), (SandboxEnd::DeadlinePassed, "began\n"));
    request.deadline = Duration::from_secs(600);
    request.log = installation.folder.path().join("dropped.log");
    let waiting = tokio::spawn({
        let platform = platform.clone();
        let request = request.clone();
        async move { platform.run(request).await }
    });
    holds(&request.log, "began");
    waiting.abort();
    let end = Instant::now() + Duration::from_secs(10);
    while !installation.leftovers().find().unwrap().is_empty() || installation.state().join("platform/benches/sandbox.slow").exists() {
        assert!(Instant::now() < end, "the sandbox is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_server_left_of_builds_is_removed_at_the_next_start() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.open(bench(&installation, &["serve", "22"])).await.unwrap();
    let next = installation.open().await;
    assert_eq!(fs::read_dir(installation.state().join("platform/benches")).unwrap().count(), 0);
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
    next.open(bench(&installation, &["serve", "22"])).await.unwrap();
    next.close("build-1").await.unwrap();
}
