//! Observations in version 1.

use super::{node, parse};
use gapless_core::observation as core;
use gapless_core::route::Generation;
use gapless_engine::error::Error;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct Observation {
    nodes: BTreeMap<String, NodeSeen>,
    proxies: BTreeMap<String, Option<u64>>,
}

#[derive(Deserialize)]
struct NodeSeen {
    condition: Condition,
    image: String,
    health: Health,
    requests_in_flight: u32,
}

#[derive(Deserialize)]
enum Condition {
    Starting,
    Running,
    Exited { code: Option<i32>, output: String },
}

#[derive(Deserialize)]
struct Health {
    passes: u32,
    failures: u32,
    failures_after_answer: u32,
    evidence: Option<Evidence>,
}

#[derive(Deserialize)]
pub(super) struct Evidence {
    check: String,
    result: String,
    times: u32,
}

impl TryFrom<Observation> for core::Observation {
    type Error = Error;

    fn try_from(seen: Observation) -> Result<Self, Error> {
        let nodes = seen.nodes.into_iter().map(|(name, seen)| Ok((node(&name)?, seen.try_into()?)));
        Ok(core::Observation {
            nodes: nodes.collect::<Result<_, Error>>()?,
            proxies: seen.proxies.into_iter().map(|(name, generation)| (name, generation.map(Generation))).collect(),
        })
    }
}

impl TryFrom<NodeSeen> for core::NodeSeen {
    type Error = Error;

    fn try_from(seen: NodeSeen) -> Result<Self, Error> {
        let Health { passes, failures, failures_after_answer, evidence } = seen.health;
        Ok(core::NodeSeen {
            condition: match seen.condition {
                Condition::Starting => core::Condition::Starting,
                Condition::Running => core::Condition::Running,
                Condition::Exited { code, output } => core::Condition::Exited { code, output },
            },
            image: parse(&seen.image)?,
            health: core::Health { passes, failures, failures_after_answer, evidence: evidence.map(Into::into) },
            requests_in_flight: seen.requests_in_flight,
        })
    }
}

impl From<Evidence> for core::Evidence {
    fn from(evidence: Evidence) -> Self {
        Self { check: evidence.check, result: evidence.result, times: evidence.times }
    }
}
