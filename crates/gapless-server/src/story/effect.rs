//! Effects in plain words, with the name that logs and checkpoints know them by.

use super::text::task_words;
use super::{list, time};
use gapless_core::effect::Effect;
use gapless_core::name::ServiceName;
use gapless_core::route::{Route, Weight};

/// An effect in plain words.
#[must_use]
pub fn effect(service: &ServiceName, effect: &Effect) -> String {
    match effect {
        Effect::EnsureGroup { group, size } => {
            format!("EnsureGroup: the nodes of {group} up to {} exist", group.node(size.saturating_sub(1)))
        }
        Effect::Route(route) => format!("Route {}: {}", route.generation, members(route)),
        Effect::Drain { nodes, deadline } => {
            format!("Drain: the last requests on {} run out, at most {}", list(nodes), time::span(*deadline))
        }
        Effect::DestroyNodes { nodes } => format!("DestroyNodes: {} exist no more", list(nodes)),
        Effect::RunTask { group, task, deadline } => {
            format!("RunTask: {} for {group} has ended well, at most {}", task_words(*task), time::span(*deadline))
        }
        Effect::Analyse { old, new, .. } => format!("Analyse: the answers of {new} are compared with those of {old}"),
        Effect::Notify(notice) => format!("tell: {}", super::text::text(service, notice, None)),
    }
}

/// `r2-i2-n0 and r2-i2-n1 × 1, r1-i1-n0 without traffic`.
fn members(route: &Route) -> String {
    if route.members.is_empty() {
        return "no node".to_string();
    }
    let mut weights: Vec<Weight> = route.members.values().copied().collect();
    weights.sort_unstable();
    weights.dedup();
    let of = |weight: &Weight| {
        let nodes = list(route.members.iter().filter(|(_, its)| *its == weight).map(|(node, _)| node));
        if weight.has_traffic() { format!("{nodes} with weight {}", weight.0) } else { format!("{nodes} without traffic") }
    };
    weights.iter().rev().map(of).collect::<Vec<_>>().join("; ")
}
