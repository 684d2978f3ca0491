//! Version 1 of the journal's records. It never changes and is read for ever; nothing is written in it any more.
//!
//! Numbers are plain, names (nodes, groups, digests, services) are their texts, spans are nanoseconds, instants are milliseconds since the Unix epoch.

mod declaration;
mod notice;
mod observation;

pub(super) use declaration::ServiceDeclaration;

use self::declaration::Declaration;
use self::notice::Notice;
use self::observation::Observation;
use gapless_core::effect::EffectId;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::{Generation, Weight};
use gapless_core::time::Instant;
use gapless_core::{effect, event, route};
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::JournalRecord;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    at: u64,
    event: Event,
    effects: Vec<(u64, Effect)>,
}

#[derive(Deserialize)]
enum Event {
    Declared(Declaration),
    RollbackRequested { to: Option<u32> },
    Observed(Observation),
    EffectEnded { effect: u64, failure: Option<Failure> },
    Restarted,
}

#[derive(Deserialize)]
struct Failure {
    reason: String,
    is_final: bool,
}

#[derive(Deserialize)]
enum Effect {
    EnsureGroup { group: String, size: u32 },
    Route { generation: u64, members: BTreeMap<String, u16> },
    Drain { nodes: Vec<String>, deadline: u64 },
    DestroyNodes { nodes: Vec<String> },
    Notify(Notice),
}

impl TryFrom<Record> for JournalRecord {
    type Error = Error;

    fn try_from(record: Record) -> Result<Self, Error> {
        let effects = record.effects.into_iter().map(|(id, effect)| Ok((EffectId(id), effect.try_into()?)));
        Ok(JournalRecord { at: Instant(record.at), event: record.event.try_into()?, effects: effects.collect::<Result<_, Error>>()? })
    }
}

impl TryFrom<Event> for event::Event {
    type Error = Error;

    fn try_from(event: Event) -> Result<Self, Error> {
        Ok(match event {
            Event::Declared(declaration) => event::Event::declared(declaration.try_into()?),
            Event::RollbackRequested { to } => event::Event::RollbackRequested { to: to.map(ReleaseNumber), forced: false },
            Event::Observed(seen) => event::Event::Observed(seen.try_into()?),
            Event::EffectEnded { effect, failure } => {
                let read = |failure: Failure| event::Failure { reason: failure.reason, is_final: failure.is_final };
                event::Event::EffectEnded { effect: EffectId(effect), result: failure.map(read).map_or(Ok(()), Err) }
            }
            Event::Restarted => event::Event::Restarted,
        })
    }
}

impl TryFrom<Effect> for effect::Effect {
    type Error = Error;

    fn try_from(effect: Effect) -> Result<Self, Error> {
        Ok(match effect {
            Effect::EnsureGroup { group: name, size } => effect::Effect::EnsureGroup { group: group(&name)?, size },
            Effect::Route { generation, members } => {
                let members = members.into_iter().map(|(name, weight)| Ok((node(&name)?, Weight(weight))));
                effect::Effect::Route(route::Route { generation: Generation(generation), members: members.collect::<Result<_, Error>>()? })
            }
            Effect::Drain { nodes: names, deadline } => {
                effect::Effect::Drain { nodes: nodes(&names)?, deadline: Duration::from_nanos(deadline) }
            }
            Effect::DestroyNodes { nodes: names } => effect::Effect::DestroyNodes { nodes: nodes(&names)? },
            Effect::Notify(notice) => effect::Effect::Notify(notice.try_into()?),
        })
    }
}

fn nodes(names: &[String]) -> Result<BTreeSet<NodeId>, Error> {
    names.iter().map(|name| node(name)).collect()
}

fn node(name: &str) -> Result<NodeId, Error> {
    parse(name)
}

fn group(name: &str) -> Result<GroupId, Error> {
    parse(name)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::new(format!("`{text}`: {error}")).kind(ErrorKind::Corrupt))
}
