//! Traffic is split as the weights say, however busy the nodes are: the steps of a canary stand on it.

use crate::support::eventually;
use crate::support::load::Load;
use crate::support::node::Node;
use crate::support::proxy::{Proxy, of, route};
use std::sync::atomic::Ordering;

/// Requests whose split is judged.
const REQUESTS: u64 = 8_000;

/// How many standard deviations of the binomial distribution a count may lie off: beyond 5 lies one run of 1.7 million.
const DEVIATIONS: f64 = 5.0;

/// The nodes of either group: `old` ones and `new` ones of equal weight inside their group.
struct Groups {
    old: Vec<Node>,
    new: Vec<Node>,
}

impl Groups {
    fn start() -> Self {
        let start = |names: &[&str]| names.iter().map(|name| Node::start(name)).collect();
        Self { old: start(&["old-0", "old-1", "old-2"]), new: start(&["new-0", "new-1"]) }
    }

    fn all(&self) -> impl Iterator<Item = &Node> {
        self.old.iter().chain(&self.new)
    }

    fn counts(&self) -> Vec<u64> {
        self.all().map(Node::begun).collect()
    }
}

/// Whether `count` of `total` can be a share of `percent` percent of independent draws.
#[track_caller]
fn assert_share(what: &str, count: u64, total: u64, share: f64) {
    let (count, total) = (count as f64, total as f64);
    let deviation = (total * share * (1.0 - share)).sqrt();
    let off = (count - total * share) / deviation;
    println!(
        "{what}: {count} of {total}, {:.2} % where the weights say {:.2} % ({off:+.1} deviations)",
        100.0 * count / total,
        100.0 * share
    );
    assert!(off.abs() <= DEVIATIONS, "{what}: {count} of {total} is {off:+.1} deviations off {share}");
}

/// Puts weights so that the new group shall have `percent` of the traffic, and measures what it got.
fn measure(proxy: &Proxy, groups: &Groups, generation: u64, percent: u16) {
    // Five nodes: three old ones share the rest, two new ones the percentage. Scaled up as far as a weight goes.
    let (old, new) = ((100 - percent) * 2, percent * 3);
    let scale = u16::MAX / old.max(new);
    let members: Vec<(&Node, u16)> =
        groups.old.iter().map(|node| (node, old * scale)).chain(groups.new.iter().map(|node| (node, new * scale))).collect();
    let mut route = route(generation, &members);
    for node in &groups.new {
        route.members.get_mut(&node.inside.name).expect("a member").release = "web-r2".to_string();
    }
    proxy.put(&of(route));
    proxy.wait_ready(&["old-0", "old-1", "old-2", "new-0", "new-1"]);
    let before = groups.counts();
    let load = Load::start(proxy.address, 16);
    let begun = || groups.counts().iter().zip(&before).map(|(now, before)| now - before).collect::<Vec<u64>>();
    eventually("enough requests", || begun().iter().sum::<u64>() >= REQUESTS);
    let seen = load.stop();
    assert_eq!(seen.failures, Vec::<String>::new());
    let counts = begun();
    let total: u64 = counts.iter().sum();
    assert_eq!(total, seen.requests, "no request was sent twice");
    let share = f64::from(percent) / 100.0;
    let (old, new) = counts.split_at(groups.old.len());
    assert_share(&format!("the new group at {percent} %"), new.iter().sum(), total, share);
    for (group, counts, share) in [("old", old, 1.0 - share), ("new", new, share)] {
        for (node, count) in counts.iter().enumerate() {
            assert_share(&format!("{group}-{node} at {percent} %"), *count, total, share / counts.len() as f64);
        }
    }
}

#[test]
fn the_new_group_gets_its_percentage_over_kept_and_single_connections() {
    let proxy = Proxy::start();
    let groups = Groups::start();
    for (generation, percent) in [(1, 5), (2, 25), (3, 50)] {
        measure(&proxy, &groups, generation, percent);
    }
}

#[test]
fn a_new_group_that_is_slow_or_fast_gets_its_percentage_too() {
    let proxy = Proxy::start();
    let groups = Groups::start();
    let slow_down = |nodes: &[Node], by_ms: u64| nodes.iter().for_each(|node| node.inside.delay_ms.store(by_ms, Ordering::SeqCst));
    slow_down(&groups.new, 8);
    measure(&proxy, &groups, 1, 5);
    measure(&proxy, &groups, 2, 25);
    slow_down(&groups.new, 0);
    slow_down(&groups.old, 8);
    measure(&proxy, &groups, 3, 25);
    measure(&proxy, &groups, 4, 50);
}
