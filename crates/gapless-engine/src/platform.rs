//! What the engine needs of a platform.

use crate::declaration::ServiceDeclaration;
use crate::error::Error;
use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Observation;
use gapless_core::route::Route;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Where groups run and traffic is shifted. Every method may be called twice with the same arguments, also by the next engine after a crash, and
/// also after its effect was undone by a later one: then it does nothing.
#[async_trait]
pub trait Platform: Send + Sync {
    /// Every node of the group with an ordinal below `size` has been created and started. An ordinal that was created once is never created again, not even after it was
    /// destroyed. Returns when the nodes are started or could not be; it does not wait for health.
    ///
    /// # Errors
    /// When a node cannot be made: the image is corrupt, there is no room, or another service answers its host ([`Platform::hosts`]). A node whose command ends at once is no
    /// error: it is observed as exited.
    async fn ensure_group(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, size: u32) -> Result<(), Error>;

    /// Whether all of these nodes, together, could be made once what leaves for them has left. Nothing is made or held: [`Platform::ensure_group`] looks again. A platform that
    /// knows no bounds has room.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::NoRoom`] when there is none now, [`crate::error::ErrorKind::Invalid`] when there never will be. Other errors when nobody can tell.
    async fn has_room(&self, newcomers: &[Newcomers]) -> Result<(), Error> {
        let _ = newcomers;
        Ok(())
    }

    /// Every proxy has applied and persisted this route, or a later one of the same service. Members are probed from then on. `declarations` tells, for each release
    /// among the members, how its nodes are reached and checked.
    ///
    /// # Errors
    /// When a proxy cannot be reached or refuses; some may have applied it. [`crate::error::ErrorKind::Invalid`], and nothing has changed, when another service answers its host.
    async fn route(&self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error>;

    /// The proxies close their idle connections to these nodes; when `deadline` has passed since the first call for a node, they cut what still runs there. A worker's nodes
    /// get their stop signal, once; until their command has ended, one request is in flight on each.
    ///
    /// # Errors
    /// When a proxy cannot be reached, or a node cannot be told.
    async fn drain(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error>;

    /// These nodes are stopped (their signal, a short grace, then force) and everything of them is gone, at the same time for all.
    ///
    /// # Errors
    /// When something of a node could not be removed. The others are gone.
    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error>;

    /// Runs a task of the declaration for this group to its end, at most for `deadline`, and once: a second call while it runs waits for it, one after its end answers what came of
    /// it. What it runs is no node of the group and is in no observation; it is gone with the group at the latest.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Invalid`] when it did not end well, or when nobody can know whether it did: trying again does not help. Other errors when it could not be begun.
    async fn run_task(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task, deadline: Duration) -> Result<(), Error>;

    /// A look at everything of one service, read from the world, never only from memory.
    ///
    /// # Errors
    /// When the world cannot be read. A proxy that does not answer is no error: it stands in the observation as `None`.
    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error>;

    /// The same look for whoever only tells what is: it is no mark for [`Platform::changed`], which belongs to the engine alone. A platform that keeps such a mark has to
    /// answer this apart.
    ///
    /// # Errors
    /// As [`Platform::observe`].
    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        self.observe(service).await
    }

    /// The host that each service answers by the latest route of it that was taken, whether an engine knows that service or not. No two answer the same one: a proxy would have to
    /// choose between them.
    ///
    /// # Errors
    /// When nobody can tell.
    async fn hosts(&self) -> Result<BTreeMap<ServiceName, String>, Error>;

    /// Waits until something may have changed since the last `observe` (a node's state, a check's result, a count that reached zero), at most `at_most`. It may
    /// return early without reason.
    async fn changed(&self, service: &ServiceName, at_most: Duration);
}

/// New nodes of a service that are wanted at once.
#[derive(Clone, Debug)]
pub struct Newcomers {
    /// What they will be.
    pub declaration: ServiceDeclaration,
    /// How many.
    pub nodes: u32,
    /// The present nodes of the service that stay meanwhile. What the others take is free by then.
    pub staying: BTreeSet<NodeId>,
}

/// The declarations of the releases that a route's members belong to.
pub type Declarations = BTreeMap<gapless_core::release::ReleaseNumber, Arc<ServiceDeclaration>>;
