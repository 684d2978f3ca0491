//! Nodes of a group are alike: a state in which two of them have changed places is the same state.
//!
//! Everything that a state knows of a node is about that node alone, so it can be put into one signature, and nodes in the order of their signatures are a normal form. What the order
//! of making nodes depends on (who was made, who is reported as made, who will be) comes first in the order, so that nobody changes places across it.
//!
//! This is sound only if the core does not care for the order of ordinals beyond that. It is checked on the way: for decisions chosen by their fingerprint, with nodes swapped
//! before, the core must decide the same with nodes swapped after ([`swaps`]). A policy that lets "the first" node go fails this check, and is explored without symmetry.

use super::fingerprint::fingerprint;
use super::world::{Applied, Order, Report, Sight, World};
use gapless_core::effect::Effect;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::route::Weight;
use gapless_core::service::ServiceState;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// For each group that is not left as it is, where each ordinal goes.
pub type Places = Vec<(GroupId, Vec<u32>)>;

/// What the core knows of one node, by node.
pub type Signatures = BTreeMap<NodeId, u64>;

fn moved(places: &Places, node: NodeId) -> NodeId {
    let place = places.iter().find(|(group, _)| *group == node.group).and_then(|(_, list)| list.get(node.ordinal as usize));
    place.map_or(node, |ordinal| node.group.node(*ordinal))
}

fn map<T>(from: &mut BTreeMap<NodeId, T>, places: &Places) {
    *from = std::mem::take(from).into_iter().map(|(node, value)| (moved(places, node), value)).collect();
}

fn set(from: &mut BTreeSet<NodeId>, places: &Places) {
    *from = std::mem::take(from).into_iter().map(|node| moved(places, node)).collect();
}

/// The same state with nodes at other places.
pub fn permute_core(state: &mut ServiceState, places: &Places) {
    for (group, known) in &mut state.groups {
        known.nodes = known.nodes.iter().map(|ordinal| moved(places, group.node(*ordinal)).ordinal).collect();
    }
    map(&mut state.route.members, places);
    map(&mut state.draining, places);
    set(&mut state.lost, places);
    map(&mut state.joining, places);
    map(&mut state.destroyed, places);
    state.pending.values_mut().for_each(|effect| permute_effect(effect, places));
}

/// The same effect for nodes at other places.
pub fn permute_effect(effect: &mut Effect, places: &Places) {
    match effect {
        Effect::Route(route) => map(&mut route.members, places),
        Effect::Drain { nodes, .. } | Effect::DestroyNodes { nodes } => set(nodes, places),
        Effect::EnsureGroup { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } | Effect::Notify(_) => {}
    }
}

/// The same look with nodes at other places.
pub fn permute_sight(sight: &mut Sight, places: &Places) {
    sight.nodes.iter_mut().for_each(|(node, ..)| *node = moved(places, *node));
    sight.nodes.sort_by_key(|(node, ..)| *node);
}

pub fn permute_world(world: &mut World, places: &Places) {
    world.nodes.iter_mut().for_each(|node| node.id = moved(places, node.id));
    world.nodes.sort_by_key(|node| node.id);
    permute_applied(&mut world.kept, places);
    world.proxies.iter_mut().for_each(|proxy| permute_applied(&mut proxy.applied, places));
    for flight in &mut world.flights {
        match &mut flight.order {
            Order::Route { members, .. } => permute_members(members, places),
            Order::Drain { nodes, .. } | Order::Destroy { nodes } => set(nodes, places),
            Order::Ensure { .. } | Order::Task { .. } | Order::Analyse { .. } => {}
        }
    }
    if let Some(report) = &mut world.look {
        let mut nodes = report.nodes.clone();
        nodes.iter_mut().for_each(|(node, ..)| *node = moved(places, *node));
        nodes.sort_by_key(|(node, ..)| *node);
        *report = Rc::new(Report { proxies: report.proxies.clone(), nodes });
    }
}

fn permute_applied(applied: &mut Applied, places: &Places) {
    permute_members(&mut applied.members, places);
}

fn permute_members(members: &mut Rc<BTreeMap<NodeId, Weight>>, places: &Places) {
    if members.keys().any(|node| moved(places, *node) != *node) {
        map(Rc::make_mut(members), places);
    }
}

/// What the core knows of each node.
pub fn signatures(state: &ServiceState) -> Signatures {
    let mut nodes: BTreeSet<NodeId> = state.groups.keys().flat_map(|group| state.wanted_nodes(*group)).collect();
    nodes.extend(state.route.members.keys().chain(state.draining.keys()).chain(&state.lost));
    nodes.extend(state.joining.keys().chain(state.destroyed.keys()));
    let named = |effect: &Effect, node: &NodeId| match effect {
        Effect::Route(route) => route.members.get(node).map(|weight| weight.0),
        Effect::Drain { nodes, .. } | Effect::DestroyNodes { nodes } => nodes.contains(node).then_some(0),
        Effect::EnsureGroup { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } | Effect::Notify(_) => None,
    };
    nodes.extend(state.pending.values().flat_map(nodes_of));
    let sign = |node: NodeId| {
        let pending: Vec<_> = state.pending.iter().filter_map(|(id, effect)| Some((id, named(effect, &node)?))).collect();
        let places = (state.is_wanted(node), state.route.members.get(&node), state.lost.contains(&node));
        let times = (state.draining.get(&node), state.joining.get(&node), state.destroyed.get(&node));
        let [first, second, ..] = fingerprint(&(places, times, pending)).0;
        (node, u64::from(first) << 32 | u64::from(second))
    };
    nodes.into_iter().map(sign).collect()
}

fn nodes_of(effect: &Effect) -> Vec<NodeId> {
    match effect {
        Effect::Route(route) => route.members.keys().copied().collect(),
        Effect::Drain { nodes, .. } | Effect::DestroyNodes { nodes } => nodes.iter().copied().collect(),
        Effect::EnsureGroup { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } | Effect::Notify(_) => Vec::new(),
    }
}

/// What brings a state into its normal form. Empty: it is there.
pub fn order(state: &ServiceState, known: &Signatures, world: &World) -> Places {
    let mut sizes: BTreeMap<GroupId, u32> = BTreeMap::new();
    let mut mention = |group: GroupId, size: u32| {
        let known = sizes.entry(group).or_default();
        *known = size.max(*known);
    };
    state.groups.iter().for_each(|(group, known)| mention(*group, known.size));
    world.made.iter().for_each(|(group, made)| mention(*group, *made));
    known.keys().chain(world.nodes.iter().map(|node| &node.id)).for_each(|node| mention(node.group, node.ordinal + 1));
    let routes = world.proxies.iter().map(|proxy| &proxy.applied).chain([&world.kept]);
    routes.flat_map(|applied| applied.members.keys()).for_each(|node| mention(node.group, node.ordinal + 1));
    for flight in &world.flights {
        match &flight.order {
            Order::Route { members, .. } => members.keys().for_each(|node| mention(node.group, node.ordinal + 1)),
            Order::Drain { nodes, .. } | Order::Destroy { nodes } => nodes.iter().for_each(|node| mention(node.group, node.ordinal + 1)),
            Order::Ensure { group, size } => mention(*group, *size),
            Order::Task { .. } | Order::Analyse { .. } => {}
        }
    }
    sizes.into_iter().filter_map(|(group, size)| Some((group, order_of(group, size, state, known, world)?))).collect()
}

fn order_of(group: GroupId, size: u32, state: &ServiceState, known: &Signatures, world: &World) -> Option<Vec<u32>> {
    let key = |ordinal: &u32| {
        let node = group.node(*ordinal);
        let asked = world
            .flights
            .iter()
            .filter(|flight| matches!(flight.order, Order::Ensure { group: to, size } if to == group && size > *ordinal));
        let made = state.groups.get(&group).is_some_and(|known| *ordinal < known.made);
        let exists = world.made.get(&group).is_none_or(|made| ordinal < made);
        (!exists, !made, Reverse(asked.count()), known.get(&node).copied().unwrap_or(u64::MAX), sign(node, world))
    };
    let mut ordered: Vec<(_, u32)> = (0..size).map(|ordinal| (key(&ordinal), ordinal)).collect();
    ordered.sort();
    let mut places = vec![0; size as usize];
    for (place, (_, ordinal)) in ordered.iter().enumerate() {
        places[*ordinal as usize] = place as u32;
    }
    places.iter().enumerate().any(|(ordinal, place)| ordinal != *place as usize).then_some(places)
}

/// What the world knows of a node.
fn sign(node: NodeId, world: &World) -> u64 {
    let own = world.node(node).map(|node| (node.phase, node.passed, node.requests, &node.cut_at));
    let weights: Vec<Option<&Weight>> =
        world.proxies.iter().map(|proxy| &proxy.applied).chain([&world.kept]).map(|applied| applied.members.get(&node)).collect();
    let seen =
        world.look.as_ref().and_then(|report| report.nodes.iter().find(|(id, ..)| *id == node)).map(|(_, checks, busy)| (checks, busy));
    let mut flights: Vec<(u8, u64)> = Vec::new();
    for flight in world.flights.iter().filter(|flight| flight.id.is_none()) {
        flights.extend(match &flight.order {
            Order::Route { generation, members } => members.get(&node).map(|weight| (1, generation.0 << 16 | u64::from(weight.0))),
            Order::Drain { nodes, .. } => nodes.contains(&node).then_some((2, 0)),
            Order::Destroy { nodes } => nodes.contains(&node).then_some((3, 0)),
            Order::Ensure { .. } | Order::Task { .. } | Order::Analyse { .. } => None,
        });
    }
    flights.sort_unstable();
    let [first, second, ..] = fingerprint(&(own, weights, seen, flights)).0;
    u64::from(first) << 32 | u64::from(second)
}

/// Ways to swap nodes for the check: any two of a group that was made to the same extent, and all of every group turned round.
pub fn swaps(state: &ServiceState, sight: &Sight) -> Vec<Places> {
    let mut all = Vec::new();
    let mut turned = Places::new();
    for (group, known) in &state.groups {
        let seen = sight.nodes.iter().filter(|(node, ..)| node.group == *group).map(|(node, ..)| node.ordinal + 1).max().unwrap_or(0);
        let size = if known.made > 0 { known.made } else { seen };
        for first in 0..size {
            for second in first + 1..size {
                let mut places: Vec<u32> = (0..known.size.max(size)).collect();
                places.swap(first as usize, second as usize);
                all.push(vec![(*group, places)]);
            }
        }
        turned.push((*group, (0..size).rev().chain(size..known.size).collect()));
    }
    all.push(turned);
    all
}
