//! An upgrade must never make things worse: neither without a readable snapshot, nor with a disk that hangs.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, SERVICE, is_alive, snapshot, totals};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn serving(generation: u64) -> (Proxy, Node) {
    let (proxy, node) = (Proxy::start(), Node::start("a"));
    proxy.put(&snapshot(generation, &[(&node, 1)]));
    proxy.wait_ready(&["a"]);
    (proxy, node)
}

/// What this worker would write its next snapshot to hangs until somebody reads there: a disk that is slow, as long as the test likes.
fn hang_the_disk(proxy: &Proxy, worker: u32) -> PathBuf {
    let file = proxy.state.join(format!("snapshot.json.{worker}"));
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe with a name");
    file
}

/// The write that hangs goes on, and fails, as a pipe cannot be synced.
fn release_the_disk(file: &Path) {
    let mut pipe = std::fs::File::open(file).expect("the pipe");
    pipe.read_to_end(&mut Vec::new()).expect("what was written");
}

#[test]
fn an_upgrade_takes_the_routes_of_the_old_worker_when_the_disk_has_none() {
    let (proxy, node) = serving(3);
    let file = proxy.state.join("snapshot.json");
    let load = Load::start(proxy.address, 4);
    for damage in [Some("{\"version\": 1, \"servi"), None] {
        match damage {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let status = proxy.upgrade().expect("the upgrade");
        assert_eq!(status.replaced, 0);
        assert_eq!(proxy.status().generations.get(SERVICE), Some(&3), "{:?}", proxy.status());
        assert_eq!(proxy.status().problem, None);
        let stored: gapless_wire::route::Snapshot = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(stored, snapshot(3, &[(&node, 1)]), "the next worker finds them on the disk");
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn an_upgrade_that_could_not_keep_the_routes_leaves_the_old_worker_in_service() {
    let (proxy, _node) = serving(3);
    let file = proxy.state.join("snapshot.json");
    std::fs::remove_file(&file).unwrap();
    // Nobody can rename a file onto a folder that is not empty.
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    let old = proxy.worker_pid();
    let load = Load::start(proxy.address, 4);
    let refused = proxy.upgrade().expect_err("a worker that cannot keep the routes must not take over");
    assert!(refused.to_string().contains("the old worker goes on"), "{refused}");
    let status = proxy.proxy_status();
    assert_eq!(status.workers.iter().map(|worker| (worker.pid, worker.leaving)).collect::<Vec<_>>(), [(old, false)]);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    std::fs::remove_dir_all(&file).unwrap();
    proxy.upgrade().expect("now there is nothing in the way");
    assert_eq!(proxy.status().generations[SERVICE], 3);
}

#[test]
fn requests_to_a_worker_that_lost_its_routes_are_failed_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("snapshot.json"), "{\"version\": 1, \"services\": {").unwrap();
    let proxy = Proxy::start_in(folder.path().to_path_buf(), "127.0.0.1:0".parse().unwrap());
    let answer = Client::new(proxy.address).get("/name").unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().starts_with("no-routes: "), "{}", answer.text());
    let record = proxy.record();
    assert_eq!((totals(&record).by_cause.get("no-routes"), record.refused), (Some(&1), 0));
    let node = Node::start("a");
    proxy.put(&snapshot(1, &[(&node, 1)]));
    assert_eq!(Client::new(proxy.address).get("/name").unwrap().status, 200);
}

#[test]
fn a_disk_that_hangs_ends_no_worker_and_no_request() {
    let (proxy, node) = serving(1);
    let address = proxy.address;
    let slow = |milliseconds: u64| std::thread::spawn(move || Client::new(address).get(&format!("/slow?ms={milliseconds}")));
    let on_first = slow(18_000);
    eventually("it runs", || proxy.node_status("a").is_some_and(|status| status.requests_in_flight == 1));
    let status = proxy.upgrade().expect("the first upgrade");
    let [first, second] = status.workers.as_slice() else { panic!("two workers: {status:?}") };
    let old = Proxy::client_of(&first.socket);
    let disk = hang_the_disk(&proxy, second.pid);
    std::thread::scope(|scope| {
        // The leaving worker relays it, and the newest hangs in it: neither can take an order that needs the routes' lock.
        let put = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let wanted = snapshot(2, &[(&node, 1)]);
            runtime.block_on(old.send::<_, gapless_wire::route::Applied>(hyper::Method::PUT, "/v1/snapshot", &wanted))
        });
        std::thread::sleep(Duration::from_millis(100));
        proxy.upgrade().expect_err("no worker may take over while another one persists");
        release_the_disk(&disk);
        assert!(put.join().unwrap().is_err());
    });
    assert!(is_alive(first.pid) && is_alive(second.pid));
    assert_eq!(proxy.worker_pid(), second.pid, "the serving worker goes on");
    let load = Load::start(address, 2);
    // What the leaving worker acknowledges now, the serving one has: it was not told that it is the newest.
    eventually("the leaving worker relays again", || proxy.try_put(&old, &snapshot(3, &[(&node, 1)])).is_ok());
    assert_eq!(proxy.status().generations[SERVICE], 3);
    let before = proxy.node_status("a").unwrap().requests_in_flight;
    let on_second = slow(1500);
    eventually("it runs too", || proxy.node_status("a").is_some_and(|status| status.requests_in_flight > before));
    let status = proxy.upgrade().expect("late answers to earlier orders are no answers to these");
    assert!(status.workers.iter().any(|worker| worker.pid == second.pid && worker.leaving), "{status:?}");
    assert_eq!(on_second.join().unwrap().expect("whole").status, 200);
    assert_eq!(on_first.join().unwrap().expect("whole").status, 200);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    eventually("the old ones have ended", || proxy.proxy_status().workers.len() == 1);
    assert_eq!(proxy.proxy_status().replaced, 0);
}

#[test]
fn only_what_this_worker_itself_persisted_need_not_be_persisted_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json");
    let node = Node::start("a");
    let wanted = snapshot(4, &[(&node, 1)]);
    // As a worker left it that died before it could sync it.
    std::fs::write(&file, serde_json::to_vec(&wanted).unwrap()).unwrap();
    let proxy = Proxy::start_in(folder.path().to_path_buf(), "127.0.0.1:0".parse().unwrap());
    let inode = || std::fs::metadata(&file).unwrap().ino();
    let loaded = inode();
    assert_eq!(proxy.put(&wanted).generations[SERVICE], 4);
    let persisted = inode();
    assert_ne!(persisted, loaded, "acknowledged, and nobody had synced it");
    proxy.put(&wanted);
    assert_eq!(inode(), persisted, "this worker knows that it is on the disk");
}
