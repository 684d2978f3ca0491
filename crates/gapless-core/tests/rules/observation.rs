//! What an observation says of its nodes and proxies.

use crate::states::running;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::route::Generation;

fn node(condition: Condition, passes: u32, failures: u32) -> NodeSeen {
    NodeSeen { condition, health: Health { passes, failures, ..Health::default() }, ..running(1, 0) }
}

#[test]
fn a_node_is_healthy_when_it_runs_and_a_check_passed() {
    let of = |node: NodeSeen| (node.is_healthy(), node.may_serve());
    assert_eq!(of(node(Condition::Running, 1, 0)), (true, true));
    assert_eq!(of(node(Condition::Running, 0, 0)), (false, true), "nobody can say");
    assert_eq!(of(node(Condition::Running, 0, 1)), (false, false));
    assert_eq!(of(node(Condition::Starting, 1, 0)), (false, false));
    assert_eq!(of(node(Condition::Exited { code: Some(0), output: String::new() }, 1, 0)), (false, false));
}

#[test]
fn a_generation_is_acknowledged_by_every_proxy_or_not_at_all() {
    let acknowledged = |proxies: &[Option<u64>]| {
        let mut seen = Observation::default();
        let name = |place: usize| format!("proxy {place}");
        seen.proxies.extend(proxies.iter().enumerate().map(|(place, known)| (name(place), known.map(Generation))));
        seen.is_acknowledged(Generation(3))
    };
    assert!(!acknowledged(&[]), "nobody says so");
    assert!(acknowledged(&[Some(3)]));
    assert!(acknowledged(&[Some(3), Some(4)]));
    assert!(!acknowledged(&[Some(3), Some(2)]));
    assert!(!acknowledged(&[Some(3), None]));
}
