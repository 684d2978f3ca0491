//! Liveness: once the faults have stopped, every rollout ends within its deadlines, everything comes to rest, and what is sound and declared goes live.

use crate::life::Scene;
use crate::plan::{declaration, last_version};
use gapless_core::limit::{ANALYSIS_FASTEST, ANALYSIS_HOLDS, CUT_GRACE, DESTROY_AGAIN, PARTNERS_PATIENCE};
use gapless_core::name::ServiceName;
use gapless_core::policy::{CanaryPause, CanaryStep, Strategy};
use gapless_core::release::Declaration;
use gapless_core::service::{ServiceState, Stage};
use gapless_engine::{Engine, Operation};
use gapless_platforms::sometimes;
use std::time::Duration;
use tokio::task::JoinSet;

/// What no policy says but every rollout may need once nothing goes wrong any more: the longest wait for another try of an effect (15 s) before the gate, the shift, the drain and
/// the destruction, another bake window when nothing serves (15 s), a freeze window's rest (60 s), and some seconds until each is seen.
const SLACK: Duration = Duration::from_secs(4 * 15 + 15 + 60 + 25);

/// Everything rests after this: the longest wait for a replacement (300 s), its trial, and what a rollout takes.
const ALL_RESTS: Duration = Duration::from_secs(300 + 20 + 180);

/// A sound declaration is live after this: its nodes answer in less than a second, and its progress deadline is 10 s.
const SOUND_IS_LIVE: Duration = Duration::from_secs(30);

/// How often it is looked, in simulated time.
const GLANCE: Duration = Duration::from_millis(500);

/// Waits until everybody who wants something has an answer: who comes after them is the last one then.
pub async fn answered(wishes: JoinSet<()>) -> Result<(), String> {
    let all = tokio::time::timeout(ALL_RESTS, wishes.join_all()).await;
    all.map(drop).map_err(|_| format!("liveness: somebody has no answer after {ALL_RESTS:?}"))
}

/// Waits until everything rests, declares something sound, and waits until it is live and everything rests again.
pub async fn settle(scene: &mut Scene, engine: &Engine) -> Result<(), String> {
    let services = scene.plan.services.clone();
    let at_most = services.iter().map(|service| longest(&scene.store.state(service))).max().unwrap_or_default();
    wait(scene, engine, at_most, "a rollout does not end", |scene, _, service| {
        let state = scene.store.state(service);
        match (state.rollout, state.queued) {
            (None, None) => Ok(()),
            (rollout, queued) => Err(format!("{rollout:?}, queued {queued:?}")),
        }
    })
    .await?;
    wait(scene, engine, ALL_RESTS, "it does not come to rest", rests).await?;
    for service in &services {
        let sound = declaration(service.service(), last_version());
        engine.declare(sound).await.map_err(|error| format!("a sound declaration is refused: {error:?}"))?;
    }
    wait(scene, engine, SOUND_IS_LIVE, "a sound declaration does not go live", |scene, _, service| {
        let state = scene.store.state(service);
        let live = state.live_release().is_some() && state.live_release() == state.declared && !state.pinned;
        if live { Ok(()) } else { Err(format!("live {:?}, declared {:?}: {:?}", state.live, state.declared, state.rollout)) }
    })
    .await?;
    wait(scene, engine, ALL_RESTS, "it does not come to rest again", rests).await?;
    for service in &services {
        declared_again_does_nothing(scene, engine, service).await?;
    }
    Ok(())
}

/// The longest that the rollout in progress and the one that waits may take, by the deadlines of the releases that they touch.
fn longest(state: &ServiceState) -> Duration {
    let rollout = state.rollout.iter().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to]));
    let releases = rollout.map(|group| group.release).chain(state.queued.as_ref().map(|queued| queued.release));
    let declared: Vec<&Declaration> = releases.filter_map(|release| state.declaration(release)).collect();
    // Where nodes take others' place one after the other, each of them has the deadlines of a whole group, there and back.
    let rolls = declared.iter().any(|declaration| matches!(declaration.policy.strategy, Strategy::Rolling { .. }));
    let each = |declaration: &Declaration| {
        let (policy, times) = (&declaration.policy, if rolls { 2 * declaration.nodes } else { 1 });
        let leaves = policy.drain_deadline * 2 + CUT_GRACE + DESTROY_AGAIN;
        (policy.progress_deadline * 2 + leaves) * times + policy.bake + policy.task_deadline * 3 + canary(&policy.strategy)
    };
    // The server may have died before it declared one of those that move together.
    let waits = PARTNERS_PATIENCE * u32::from(state.moves_with().is_some()) + PARTNERS_PATIENCE * u32::from(state.is_next_with().is_some());
    declared.into_iter().map(each).sum::<Duration>() + waits + SLACK * 2
}

fn canary(strategy: &Strategy) -> Duration {
    let Strategy::Canary { steps, .. } = strategy else { return Duration::ZERO };
    let pause = |step: &CanaryStep| match step.pause {
        CanaryPause::For(span) => span * 2 + ANALYSIS_FASTEST * ANALYSIS_HOLDS,
        CanaryPause::Person => Duration::ZERO,
    };
    steps.iter().map(pause).sum()
}

/// I6.
async fn declared_again_does_nothing(scene: &Scene, engine: &Engine, service: &ServiceName) -> Result<(), String> {
    let records = scene.store.records(service);
    let again = engine.declare(declaration(service.service(), last_version())).await.map_err(|error| error.to_string())?;
    tokio::time::sleep(GLANCE * 4).await;
    if again.changed || scene.store.records(service) != records {
        return Err(format!("I6: declaring {service} again did something"));
    }
    Ok(())
}

async fn wait(
    scene: &Scene,
    engine: &Engine,
    at_most: Duration,
    what: &str,
    reached: impl Fn(&Scene, &Engine, &ServiceName) -> Result<(), String>,
) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    loop {
        let missing = scene.plan.services.iter().find_map(|service| Some((service, reached(scene, engine, service).err()?)));
        let Some((service, why)) = missing else { return Ok(()) };
        help(scene, engine, &scene.plan.services).await;
        if begun.elapsed() >= at_most {
            return Err(format!("liveness: {what} within {at_most:?}: {service}: {why}; trouble {:?}", engine.trouble(service)));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// People do their part: what waits for them goes on.
async fn help(scene: &Scene, engine: &Engine, services: &[ServiceName]) {
    for service in services {
        let Some(rollout) = scene.store.state(service).rollout else { continue };
        if rollout.paused.is_some() {
            let _ = engine.operate(service, Operation::Resume).await;
        }
        if matches!(&rollout.stage, Stage::Canary(canary) if canary.since.is_some() && canary.until.is_none()) {
            let _ = engine.operate(service, Operation::Promote).await;
        }
    }
}

/// Nothing is under way, and the world is as the state says.
fn rests(scene: &Scene, engine: &Engine, service: &ServiceName) -> Result<(), String> {
    let state = scene.store.state(service);
    let open = [
        ("rollout", state.rollout.is_some()),
        ("pending", !state.pending.is_empty()),
        ("draining", !state.draining.is_empty()),
        ("joining", !state.joining.is_empty()),
        ("retries", !state.retries.is_empty()),
        ("trouble", engine.trouble(service).is_some()),
    ];
    if let Some((what, _)) = open.into_iter().find(|(_, open)| *open) {
        return Err(format!("{what}: {state:?}"));
    }
    world_is_so(scene, service, &state)?;
    let engine_state = engine.state(service).unwrap_or_default();
    // The engine does not speak of a service that was never declared, though it may have been told what is revoked for it.
    if *engine_state != state && !state.releases.is_empty() {
        return Err(format!("the engine believes {engine_state:?}, and its journal says {state:?}"));
    }
    sometimes!("a service rests without anything live", state.live.is_none());
    sometimes!("a service rests pinned", state.pinned);
    Ok(())
}

fn world_is_so(scene: &Scene, service: &ServiceName, state: &ServiceState) -> Result<(), String> {
    let picture = scene.sim.picture(service);
    let differs = picture.routes.iter().find(|(_, members)| **members != state.route.members).filter(|_| state.has_routes());
    if let Some((proxy, members)) = differs {
        return Err(format!("{proxy} applies {members:?} and not {:?}", state.route));
    }
    // Before the first route nobody can say what the proxies name, so unknown nodes are left alone.
    let orphan = picture.nodes.iter().find(|node| !state.is_wanted(**node)).filter(|_| state.route.generation.0 > 0);
    if let Some(orphan) = orphan {
        return Err(format!("{orphan} is left over"));
    }
    let Some(live) = state.live else { return Ok(()) };
    let wanted = state.size_of(live.release) as usize;
    let serving = if state.has_routes() { scene.sim.capacity(service).unwrap_or_default() } else { picture.nodes.len() };
    if !state.healing.stopped && (state.wanted_nodes(live).count() != wanted || serving != wanted) {
        return Err(format!("{serving} of {wanted} nodes of {live} serve"));
    }
    Ok(())
}
