//! What was seen of the world.

use crate::digest::Digest;
use crate::node::{GroupId, NodeId};
use crate::route::Generation;
use alloc::collections::BTreeMap;
use alloc::string::String;

/// One look at everything of one service. It is complete: a node that is not in it does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every node of the service that exists in any condition, members of forgotten groups included.
    pub nodes: BTreeMap<NodeId, NodeSeen>,
    /// Every proxy (each worker that still serves, a leaving one too) with the generation of this service's route that it applied and persisted;
    /// `None` for one that could not be asked or has never seen the service.
    pub proxies: BTreeMap<String, Option<Generation>>,
}

/// One node as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Whether its machine runs.
    pub condition: Condition,
    /// The image it was made from, as verified when it was unpacked.
    pub image: Digest,
    /// What the proxies' checks say; the worst of all proxies.
    pub health: Health,
    /// Requests that some proxy sent to it and that are not over yet, summed over all proxies.
    pub requests_in_flight: u32,
}

/// Whether a node's machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Being made; not yet able to answer.
    Starting,
    /// Its command runs.
    Running,
    /// Its command ended by itself, or it could not be started.
    Exited {
        /// The command's exit code, if it is known.
        code: Option<i32>,
        /// The last lines it wrote, or why it could not be started. At most a few hundred bytes.
        output: String,
    },
}

/// The run of equal health checks that ends with the latest one. Both counts 0: not checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Passed checks in a row, up to and with the latest.
    pub passes: u32,
    /// Failed checks in a row, up to and with the latest.
    pub failures: u32,
    /// Of `failures`, those from the first check on, ever, in which the node gave an answer of any kind (any status line counts, also a wrong one; a refused connection or a
    /// timeout does not). A node that boots refuses connections: only these failures fail the gate. The larger of all proxies.
    pub failures_after_answer: u32,
    /// The latest failed check of the present run, for people and receipts.
    pub evidence: Option<Evidence>,
}

/// A failed check, as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// The check, such as `GET /healthz`.
    pub check: String,
    /// What came of it, such as `status 500` or `connection refused`.
    pub result: String,
    /// How often in a row.
    pub times: u32,
}

impl Observation {
    /// Whether every proxy has acknowledged this generation or a later one. No proxy at all, or one that could not be asked: no.
    #[must_use]
    pub fn is_acknowledged(&self, generation: Generation) -> bool {
        !self.proxies.is_empty() && self.proxies.values().all(|acknowledged| *acknowledged >= Some(generation))
    }

    /// Every node of this group that exists in any condition, in order.
    pub fn nodes_of(&self, group: GroupId) -> impl Iterator<Item = (NodeId, &NodeSeen)> {
        self.nodes.range(group.node(0)..=group.node(u32::MAX)).map(|(node, seen)| (*node, seen))
    }
}

impl NodeSeen {
    /// Whether its command runs and its latest checks, at least one, passed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.may_serve() && self.health.passes > 0
    }

    /// Whether its command runs and no check of it failed, also where nobody can say whether one passed: as when no proxy answers.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.condition == Condition::Running && self.health.failures == 0
    }
}
