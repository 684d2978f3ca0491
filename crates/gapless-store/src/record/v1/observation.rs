//! Observations in version 1.

use super::{node, parse};
use gapless_core::observation as core;
use gapless_core::route::Generation;
use gapless_engine::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
pub(super) struct Observation {
    nodes: BTreeMap<String, NodeSeen>,
    proxies: BTreeMap<String, Option<u64>>,
}

#[derive(Serialize, Deserialize)]
struct NodeSeen {
    condition: Condition,
    image: String,
    health: Health,
    requests_in_flight: u32,
}

#[derive(Serialize, Deserialize)]
enum Condition {
    Starting,
    Running,
    Exited { code: Option<i32>, output: String },
}

#[derive(Serialize, Deserialize)]
struct Health {
    passes: u32,
    failures: u32,
    failures_after_answer: u32,
    evidence: Option<Evidence>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Evidence {
    check: String,
    result: String,
    times: u32,
}

impl From<&core::Observation> for Observation {
    fn from(seen: &core::Observation) -> Self {
        Self {
            nodes: seen.nodes.iter().map(|(id, node)| (id.to_string(), node.into())).collect(),
            proxies: seen.proxies.iter().map(|(name, generation)| (name.clone(), generation.map(|generation| generation.0))).collect(),
        }
    }
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

impl From<&core::NodeSeen> for NodeSeen {
    fn from(seen: &core::NodeSeen) -> Self {
        let core::Health { passes, failures, failures_after_answer, evidence } = &seen.health;
        Self {
            condition: match &seen.condition {
                core::Condition::Starting => Condition::Starting,
                core::Condition::Running => Condition::Running,
                core::Condition::Exited { code, output } => Condition::Exited { code: *code, output: output.clone() },
            },
            image: seen.image.to_string(),
            health: Health {
                passes: *passes,
                failures: *failures,
                failures_after_answer: *failures_after_answer,
                evidence: evidence.as_ref().map(Into::into),
            },
            requests_in_flight: seen.requests_in_flight,
        }
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

impl From<&core::Evidence> for Evidence {
    fn from(evidence: &core::Evidence) -> Self {
        Self { check: evidence.check.clone(), result: evidence.result.clone(), times: evidence.times }
    }
}

impl From<Evidence> for core::Evidence {
    fn from(evidence: Evidence) -> Self {
        Self { check: evidence.check, result: evidence.result, times: evidence.times }
    }
}
