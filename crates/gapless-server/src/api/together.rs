//! Services that move together: whom a deploy takes along, and who goes back with whom.

use super::deploys::Wanted;
use crate::problem::Refused;
use crate::server::Server;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::plan::Planned;
use gapless_core::release::ReleaseNumber;
use gapless_core::service::{ServiceState, Together};
use gapless_engine::error::{Context, Error};
use hyper::StatusCode;
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::{BTreeMap, BTreeSet};

/// Whom each service of a request moves together with.
pub(super) type Companions = BTreeMap<ServiceName, Together>;

/// Whom each service moves together with: those of the same name that get a new release now, if it is one of them. When one of them would be refused, none is declared.
pub(super) fn companions(server: &Server, all: &[Wanted], urgent: bool) -> Result<Companions, Refused> {
    let mut moving: BTreeMap<&str, BTreeSet<ServiceName>> = BTreeMap::new();
    for Wanted { declaration, together, .. } in all {
        let Some(name) = together else { continue };
        let planned = server.parts.engine.plan(declaration, urgent, None);
        if let Some(Planned::Refused(refusal)) = planned.first() {
            let what = format!("{}: {} (it moves together with others, so none of them was declared)", declaration.service, refusal.reason);
            return Err(Refused::new(StatusCode::CONFLICT, what, refusal.hint.clone()));
        }
        if makes_a_release(&planned) {
            moving.entry(name).or_default().insert(declaration.service.clone());
        }
        if is_hurried(&planned) {
            nobody_waits_on(server, &declaration.service, all)?;
        }
    }
    for Wanted { declaration, together, .. } in all {
        let Some(moving) = together.as_ref().and_then(|name| moving.get_mut(name.as_str())) else { continue };
        if has_to_come_along(server, &declaration.service, moving) {
            moving.insert(declaration.service.clone());
        }
    }
    for Wanted { declaration, together, .. } in all {
        let Some(moving) = together.as_ref().and_then(|name| moving.get(name.as_str())) else { continue };
        nobody_is_left(server, &declaration.service, moving)?;
    }
    let mut companions = Companions::new();
    for group in moving.into_values() {
        let (id, all) = match joined(server, &group)? {
            Some(joined) => joined,
            None if group.len() > 1 => (unique()?, group.clone()),
            None => continue,
        };
        for service in group {
            let with = all.iter().filter(|other| **other != service).cloned().collect();
            companions.insert(service, Together { id, with });
        }
    }
    Ok(companions)
}

/// What these services are waited for in, and all that belong to it: another one was declared before, and something came between before they were.
fn joined(server: &Server, group: &BTreeSet<ServiceName>) -> Result<Option<(Digest, BTreeSet<ServiceName>)>, Refused> {
    let engine = &server.parts.engine;
    let waited_for = group.iter().find_map(|service| Some((service, engine.is_waited_for(service, group)?)));
    let Some((service, Together { id, with })) = waited_for else { return Ok(None) };
    let all: BTreeSet<ServiceName> = with.into_iter().chain([service.clone()]).collect();
    let moves_in_it = |other: &ServiceName| engine.state(other).is_some_and(|state| state.is_part_begun(id));
    if group.is_subset(&all) && !group.iter().any(moves_in_it) {
        return Ok(Some((id, all)));
    }
    let what = format!("{service} is waited for by services that it was to move together with, and would come with others now");
    Err(Refused::new(StatusCode::CONFLICT, what, "deploy again when that is over, or end it: `gapless status`, `gapless cancel`"))
}

/// A service that is next together with others begins with them when it is urgent, or not at all.
fn nobody_waits_on(server: &Server, service: &ServiceName, all: &[Wanted]) -> Result<(), Refused> {
    let engine = &server.parts.engine;
    let state = engine.state(service).unwrap_or_default();
    let Some(Together { id, with }) = state.is_next_with() else { return Ok(()) };
    let waits = |other: &&ServiceName| {
        let is_next = engine.state(other).is_some_and(|other| other.is_next_with().is_some_and(|next| next.id == *id));
        is_next && all.iter().all(|wanted| wanted.declaration.service != **other)
    };
    let Some(other) = with.iter().find(waits) else { return Ok(()) };
    let what = format!("{service} moves together with {other}, which would go on waiting");
    Err(Refused::new(StatusCode::CONFLICT, what, "`gapless deploy --urgent` of all of them begins them at once"))
}

/// What is next together with a service that has given that up, and gets a new release now, comes along: it would be given up when its turn comes.
fn has_to_come_along(server: &Server, service: &ServiceName, moving: &BTreeSet<ServiceName>) -> bool {
    let engine = &server.parts.engine;
    let Some(next) = engine.state(service).and_then(|state| state.is_next_with().cloned()) else { return false };
    moving.iter().any(|other| engine.state(other).is_some_and(|other| other.has_left(next.id)))
}

/// A service that is about to follow others back would be left behind by what is declared of them meanwhile.
fn nobody_is_left(server: &Server, service: &ServiceName, moving: &BTreeSet<ServiceName>) -> Result<(), Refused> {
    let engine = &server.parts.engine;
    let Some(state) = engine.state(service).filter(|_| !moving.contains(service)) else { return Ok(()) };
    let leaving = moving.iter().find(|other| engine.state(other).is_some_and(|other| state.is_left_by(&other)));
    let Some(leaving) = leaving else { return Ok(()) };
    let what = format!("{leaving} has gone back, and {service}, which moves together with it, follows");
    Err(Refused::new(StatusCode::CONFLICT, what, "deploy again when that is over: `gapless status` tells"))
}

fn makes_a_release(planned: &[Planned]) -> bool {
    changes(planned) && !matches!(planned.first(), Some(Planned::Hurried { .. } | Planned::Tied { .. }))
}

/// Whether declaring it would change anything.
pub(super) fn changes(planned: &[Planned]) -> bool {
    !matches!(planned.first(), None | Some(Planned::Nothing { .. } | Planned::Refused(_)))
}

fn is_hurried(planned: &[Planned]) -> bool {
    matches!(planned.first(), Some(Planned::Hurried { .. }))
}

/// The services that go back, too, when this one is taken back, each with where to.
pub(super) fn followers(server: &Server, state: &ServiceState, to: Option<ReleaseNumber>) -> Vec<(ServiceName, ReleaseNumber)> {
    let moving = state.rollout.as_ref().and_then(|rollout| Some((rollout.together.as_ref()?.id, rollout.from?.release)));
    let came = || state.came_together().and_then(|(_, end)| Some((end.id, end.from?)));
    let Some((id, from)) = moving.or_else(came) else { return Vec::new() };
    if state.way_back(to) != Some(from) {
        return Vec::new();
    }
    let engine = &server.parts.engine;
    let follows = |other: ServiceName| engine.state(&other)?.follows_back_to(id).map(|release| (other, release));
    engine.services().into_iter().filter_map(follows).collect()
}

/// A digest that was never used before.
pub(super) fn unique() -> Result<Digest, Error> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let random = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
        filled += random.map_err(std::io::Error::from).context(|| "asking the system for random bytes".to_string())?;
    }
    Ok(Digest(bytes))
}
