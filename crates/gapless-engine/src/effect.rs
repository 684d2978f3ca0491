//! Effects, on their way into the world.

use crate::analysis::AnalysisRequest;
use crate::checkpoint::EffectContext;
use crate::declaration::ServiceDeclaration;
use crate::engine::Parts;
use crate::error::{Error, ErrorKind};
use crate::platform::Declarations;
use gapless_core::analysis::Judgement;
use gapless_core::effect::{Effect, EffectKind};
use gapless_core::event::Failure;
use gapless_core::node::GroupId;
use gapless_core::release::ReleaseNumber;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// The longest that nodes may take to be made: a large image is unpacked once on a slow disk, and nodes start.
const ENSURE_GROUP_LIMIT: Duration = Duration::from_secs(300);

/// The longest that the proxies may take to apply and persist a route.
const ROUTE_LIMIT: Duration = Duration::from_secs(30);

/// The longest that the proxies may take to hear of a drain. They are not waited for to end it.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// The longest that nodes may take to be stopped and cleared away: a grace of seconds, then force, then what is on the disk.
const DESTROY_NODES_LIMIT: Duration = Duration::from_secs(120);

/// The longest that a task may take beyond its own deadline: until it is ended and its output is read.
const RUN_TASK_GRACE: Duration = Duration::from_secs(60);

/// The longest that a comparison may take: what the proxies counted is read, and some arithmetic.
const ANALYSE_LIMIT: Duration = Duration::from_secs(30);

/// The longest that an effect may take before it counts as failed for now, and is sent again.
pub(crate) fn limit(effect: &Effect) -> Duration {
    match effect {
        Effect::EnsureGroup { .. } => ENSURE_GROUP_LIMIT,
        Effect::Route(_) | Effect::Notify(_) => ROUTE_LIMIT,
        Effect::Drain { .. } => DRAIN_LIMIT,
        Effect::DestroyNodes { .. } => DESTROY_NODES_LIMIT,
        Effect::RunTask { deadline, .. } => deadline.saturating_add(RUN_TASK_GRACE),
        Effect::Analyse { .. } => ANALYSE_LIMIT,
    }
}

/// Held by a delivery that is not broken off when its time is over.
pub(crate) type Turn = Arc<tokio::sync::Mutex<()>>;

/// Whose turn an effect takes: nodes of one group are not made twice at the same time, nor destroyed. `None`: it is broken off at its limit, because a receiver that is told
/// again loses nothing by it, and a later route must not wait for one that hangs.
pub(crate) fn turn_of(effect: &Effect) -> Option<(EffectKind, GroupId)> {
    match effect {
        Effect::EnsureGroup { group, .. } => Some((effect.kind(), *group)),
        Effect::DestroyNodes { nodes } => nodes.first().map(|node| (effect.kind(), node.group)),
        Effect::RunTask { group, .. } => Some((effect.kind(), *group)),
        Effect::Route(_) | Effect::Drain { .. } | Effect::Analyse { .. } | Effect::Notify(_) => None,
    }
}

/// Carries an effect out, or says that it has not ended in time. What makes or destroys nodes is not broken off then, so that nothing is left half made: it goes on, and the
/// next delivery for the same group waits for it. So at most one runs for each group, however often it is tried.
pub(crate) async fn carry_out_in_time(
    parts: Parts,
    context: EffectContext,
    declarations: Declarations,
    turn: Option<Turn>,
    limit: Duration,
) -> Result<Option<Judgement>, Error> {
    let whole = async move {
        let Some(turn) = turn else { return carry_out(&parts, &context, &declarations).await };
        let turn = turn.lock_owned().await;
        let work = async move {
            let _turn = turn;
            carry_out(&parts, &context, &declarations).await
        };
        let work = tokio::spawn(work.in_current_span());
        work.await.unwrap_or_else(|error| Err(Error::new(format!("it broke off: {error}"))))
    };
    let late = |_| Err(Error::new(format!("it has not ended within {limit:?}")));
    tokio::time::timeout(limit, whole).await.unwrap_or_else(late)
}

/// The releases whose declarations an effect needs.
pub(crate) fn releases_of(effect: &Effect) -> BTreeSet<ReleaseNumber> {
    match effect {
        Effect::EnsureGroup { group, .. } | Effect::RunTask { group, .. } => BTreeSet::from([group.release]),
        Effect::Route(route) => route.members.keys().map(|node| node.group.release).collect(),
        Effect::Drain { .. } | Effect::DestroyNodes { .. } | Effect::Analyse { .. } | Effect::Notify(_) => BTreeSet::new(),
    }
}

/// Carries an effect out. Only a comparison has something to tell.
async fn carry_out(parts: &Parts, context: &EffectContext, declarations: &Declarations) -> Result<Option<Judgement>, Error> {
    let (platform, service) = (&parts.platform, &context.service);
    match &context.effect {
        Effect::EnsureGroup { group, size } => {
            platform.ensure_group(declaration_of(group.release, declarations)?, *group, *size).await?;
        }
        Effect::Route(route) => platform.route(service, route, declarations).await?,
        Effect::Drain { nodes, deadline } => platform.drain(service, nodes, *deadline).await?,
        Effect::DestroyNodes { nodes } => platform.destroy_nodes(service, nodes).await?,
        Effect::RunTask { group, task, deadline } => {
            platform.run_task(declaration_of(group.release, declarations)?, *group, *task, *deadline).await?;
        }
        Effect::Analyse { old, new, since, policy } => {
            let until = parts.clock.now();
            let request = AnalysisRequest { service: service.clone(), old: *old, new: *new, since: *since, until, policy: *policy };
            return parts.analyst.analyse(&request).await.map(Some);
        }
        Effect::Notify(_) => {}
    }
    Ok(None)
}

fn declaration_of(release: ReleaseNumber, declarations: &Declarations) -> Result<Arc<ServiceDeclaration>, Error> {
    declarations
        .get(&release)
        .cloned()
        .ok_or_else(|| Error::new(format!("the declaration of {release} is not known")).kind(ErrorKind::NotFound))
}

/// What the core is told of an error. The reason is all that is kept of it, so it says too what the person can do.
pub(crate) fn failure(error: &Error) -> Failure {
    let is_final = matches!(error.error_kind(), ErrorKind::Corrupt | ErrorKind::Invalid);
    let reason = error.hint_text().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"));
    Failure { reason, is_final }
}
