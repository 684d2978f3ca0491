//! Workers, holders and nodes that die or hang in mid rollout, together with the server; and a disk that is full then.

use crate::chaos::{Excuse, Stage, Tally, load, stop, ways, whole};
use crate::chaos_way::{WAYS, Way};
use crate::fault::{SERVICE, kill_process, leaves_nothing, node_process, now_us, send, serving, under_load};
use crate::fault_disk::SmallDisk;
use crate::installation::{Installation, ServerSettings, until};
use gapless_load::Cause;
use gapless_wire::client::UnixClient;
use gapless_wire::route::{NodeStatus, WorkerStatus};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;

/// What dies or hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Holder,
    OldNode,
    NewNode,
    /// Every process of an old node stops, and none of it ends.
    HungNode,
}

impl Victim {
    /// The short form leaves out what needs a rollout that has come far.
    fn all() -> &'static [Victim] {
        let all = &[Victim::Worker, Victim::Holder, Victim::OldNode, Victim::HungNode, Victim::NewNode];
        if whole() { all } else { &all[..4] }
    }

    fn is_node(self) -> bool {
        matches!(self, Victim::OldNode | Victim::NewNode | Victim::HungNode)
    }
}

/// The nodes that the worker knows.
async fn known(installation: &Installation) -> BTreeMap<String, NodeStatus> {
    let workers = installation.proxy_status().await.workers;
    let serving = workers.iter().find(|worker| !worker.leaving).expect("a worker that serves");
    let status: WorkerStatus = UnixClient::new(&serving.socket).get("/v1/status").await.expect("asking the worker");
    status.nodes.get(SERVICE).cloned().unwrap_or_default()
}

async fn strike(stage: &mut Stage, victim: Victim, old: &[String]) -> Excuse {
    match victim {
        Victim::Worker => kill_worker(&stage.installation).await,
        Victim::Holder => kill_holder(&mut stage.installation).await,
        Victim::OldNode => kill_node(&stage.installation, &old[0]).await,
        Victim::NewNode => {
            let known = known(&stage.installation).await;
            let new = known.keys().find(|node| !old.contains(node)).expect("a new node");
            kill_node(&stage.installation, new).await
        }
        Victim::HungNode => hang_node(&stage.installation, &old[0]).await,
    }
}

/// How a connection ends whose other side is killed.
const BROKEN_OFF: [Cause; 3] = [Cause::Reset, Cause::ClosedBeforeResponse, Cause::Truncated];

/// What becomes of a request that a stopped node has: nobody answers in time, or the node is destroyed first.
const UNANSWERED: [Cause; 4] = [Cause::Deadline, Cause::Status504, Cause::Status502, Cause::Truncated];

async fn kill_worker(installation: &Installation) -> Excuse {
    let before = installation.proxy_status().await;
    let from_us = now_us();
    let until_us = kill_process(before.workers[0].pid).await;
    until("the worker is replaced", || async { installation.proxy_status().await.replaced > before.replaced }).await;
    Excuse { why: "in flight on a killed worker", from_us, until_us, causes: &BROKEN_OFF }
}

/// Its worker finishes what it began; until a service manager has started another holder nobody listens.
async fn kill_holder(installation: &mut Installation) -> Excuse {
    let from_us = now_us();
    installation.kill_proxy();
    installation.start_proxy().await;
    let why = "while nobody listened, between a killed holder and the next";
    Excuse { why, from_us, until_us: now_us(), causes: &[Cause::ConnectRefused, Cause::Reset] }
}

async fn kill_node(installation: &Installation, node: &str) -> Excuse {
    let from_us = now_us();
    let until_us = kill_process(node_process(installation, node)).await;
    Excuse { why: "in flight on a killed node", from_us, until_us, causes: &[Cause::Status502, Cause::Truncated] }
}

/// Until its checks have failed, requests go to it and get no answer.
async fn hang_node(installation: &Installation, node: &str) -> Excuse {
    let from_us = now_us();
    for pid in processes_of(node_process(installation, node)) {
        send(pid, Signal::STOP);
    }
    until("the hung node gets no requests", || async { known(installation).await.get(node).is_none_or(|node| !node.ready) }).await;
    Excuse { why: "in flight on a hung node", from_us, until_us: now_us(), causes: &UNANSWERED }
}

/// Every process in the process-id namespace of a node's command.
fn processes_of(command: u32) -> Vec<u32> {
    let namespace = |pid: u32| std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid")).ok();
    let of_node = namespace(command).expect("the namespace of a running node");
    let names = std::fs::read_dir("/proc").expect("reading /proc").flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).filter(|pid| namespace(*pid).as_ref() == Some(&of_node)).collect()
}

/// The victim is struck while the server holds in the middle of the rollout; then the server is killed too.
async fn strike_in(stage: &mut Stage, way: &Way, victim: Victim, tally: &mut Tally) {
    let witness = load(&stage.installation).await;
    let old = serving(&stage.installation, stage.nodes).await;
    let from_us = now_us();
    let place = if victim == Victim::OldNode || victim == Victim::HungNode { way.begun } else { way.middle };
    let rollout = stage.held_at(way.act, place).await.unwrap_or_else(|| panic!("{}: no place {place}", way.name));
    let excuse = strike(stage, victim, &old).await;
    tally.kills += u64::from(victim != Victim::HungNode) + 1;
    stage.restart(None).await;
    if victim.is_node() {
        // A release whose node dies may be given up or not; the service has to be whole again.
        stage.installation.ended(SERVICE, rollout).await;
        serving(&stage.installation, stage.nodes).await;
    } else {
        stage.is_whole(rollout, way.act.outcome(), &format!("{}: after the end of {victim:?} at {place}", way.name)).await;
    }
    let until_us = now_us();
    under_load(&witness, 100).await;
    println!("{}: {victim:?} at {place}", way.name);
    let mut excuses = vec![excuse];
    excuses.extend(way.outage.then_some(Excuse {
        why: "in the outage of a recreated service",
        from_us,
        until_us,
        causes: &[Cause::Status503],
    }));
    tally.judge(&stop(witness).await, &excuses);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_holders_and_nodes_may_end_in_mid_rollout() {
    let mut tally = Tally::default();
    let mut stage = Stage::set("chaos-process", &WAYS[0]).await;
    let ways = ways().filter(|way| !way.middle.is_empty()).take(if whole() { usize::MAX } else { 1 });
    for way in ways {
        stage.change(way).await;
        for victim in Victim::all() {
            // A recreated service has no old nodes while there are new ones.
            if !(way.outage && victim.is_node()) {
                strike_in(&mut stage, way, *victim, &mut tally).await;
            }
        }
    }
    tally.tell();
    leaves_nothing(stage.installation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_in_mid_rollout_delays_it() {
    let mut tally = Tally::default();
    let disk = SmallDisk::mount("1g");
    let installation = Installation::start_with_state("chaos-disk", disk.path.join("state"), &ServerSettings::default()).await;
    let way = &WAYS[0];
    let mut stage = Stage::on(installation, way).await;
    let places: &[&str] = if whole() { &[way.begun, way.middle, "Drain:1:before", "DestroyNodes:1:after"] } else { &[way.middle] };
    for place in places {
        let witness = load(&stage.installation).await;
        let rollout = stage.held_at(way.act, place).await.expect("a place in the rollout");
        let filler = disk.fill();
        stage.restart(None).await;
        tally.kills += 1;
        under_load(&witness, 200).await;
        drop(filler);
        stage.is_whole(rollout, way.act.outcome(), &format!("with room again, after a full disk at {place}")).await;
        tally.judge(&stop(witness).await, &[]);
    }
    tally.tell();
    leaves_nothing(stage.installation);
}
