//! Room for the nodes of new releases, asked before anything begins: where old nodes leave first, it would be too late to find out that there is none.

use crate::server::Server;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::plan::Planned;
use gapless_core::release::ReleaseNumber;
use gapless_core::service::ServiceState;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Newcomers;
use std::collections::BTreeSet;

/// Releases that there is no room for.
pub(crate) struct NoRoom {
    /// Whose they are.
    pub(crate) services: Vec<ServiceName>,
    /// Why, and what to do.
    pub(crate) error: Error,
}

/// Whether there is room for what declaring all of these would begin. What would wait for its turn is asked for by itself: nobody knows what else is there by then.
///
/// # Errors
/// When nobody can tell.
pub(crate) async fn lacking(server: &Server, declarations: &[&ServiceDeclaration], urgent: bool) -> Result<Option<NoRoom>, Error> {
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for declaration in declarations {
        let planned = server.parts.engine.plan(declaration, urgent, None);
        let state = server.parts.engine.state(&declaration.service).unwrap_or_default();
        let Some((nodes, staying)) = nodes(&state, &planned) else { continue };
        let new = Newcomers { declaration: (*declaration).clone(), nodes, staying };
        if waits(&planned) { later.push(vec![new]) } else { now.push(new) }
    }
    for newcomers in std::iter::once(now).chain(later) {
        match server.parts.platform.has_room(&newcomers).await {
            Err(error) if matches!(error.error_kind(), ErrorKind::NoRoom | ErrorKind::Invalid) => {
                let services = newcomers.into_iter().map(|new| new.declaration.service).collect();
                return Ok(Some(NoRoom { services, error }));
            }
            answer => answer?,
        }
    }
    Ok(None)
}

/// Whether there is room for going to this earlier release, where the present nodes leave before it is known. Where they stay, the rollout itself finds out, and nothing is lost.
///
/// # Errors
/// When nobody can tell.
pub(crate) async fn lacking_alone(server: &Server, service: &ServiceName, release: ReleaseNumber) -> Result<Option<NoRoom>, Error> {
    let state = server.parts.engine.state(service).unwrap_or_default();
    let alone = state.is_single(release) || state.live_release().is_some_and(|live| state.is_single(live));
    if !alone || state.rollout.is_some() {
        return Ok(None);
    }
    let declaration = server.parts.engine.declaration(service, release).await?;
    let newcomers = [Newcomers { declaration, nodes: state.size_of(release), staying: BTreeSet::new() }];
    match server.parts.platform.has_room(&newcomers).await {
        Err(error) if matches!(error.error_kind(), ErrorKind::NoRoom | ErrorKind::Invalid) => {
            Ok(Some(NoRoom { services: vec![service.clone()], error }))
        }
        answer => answer.map(|()| None),
    }
}

/// Whether what is planned begins later.
fn waits(planned: &[Planned]) -> bool {
    matches!(planned.first(), Some(Planned::Queued { .. } | Planned::Hurried { at_once: false, .. }))
}

/// How many nodes the planned rollout makes at a time, and which of the present ones stay meanwhile. `None`: it makes none.
fn nodes(state: &ServiceState, planned: &[Planned]) -> Option<(u32, BTreeSet<NodeId>)> {
    let serving = || state.serving().into_iter().flat_map(|group| state.wanted_nodes(group));
    let (nodes, staying) = planned.iter().find_map(|line| match line {
        Planned::Create { nodes, beside: true, .. } => Some((*nodes, serving().collect())),
        Planned::Create { nodes, beside: false, .. } => Some((*nodes, BTreeSet::new())),
        // Nothing is made before old nodes leave: without a surge, as many as the floor allows.
        Planned::Roll { nodes, floor, .. } => {
            let batch = nodes.saturating_sub(*floor).max(1);
            Some((batch, serving().skip(batch as usize).collect()))
        }
        _ => None,
    })?;
    // By its turn anything of the service may have left.
    Some((nodes, if waits(planned) { BTreeSet::new() } else { staying }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::service::{Group, Rollout, Stage};
    use gapless_core::{notice::RolloutKind, notice::RolloutNumber, time::Instant};

    fn group(number: u32) -> GroupId {
        GroupId { release: ReleaseNumber(number), instance: InstanceId(number.into()) }
    }

    /// Three nodes are live.
    fn live() -> ServiceState {
        let mut state = ServiceState { live: Some(group(1)), ..ServiceState::default() };
        state.groups.insert(group(1), Group { size: 3, made: 3, nodes: (0..3).collect(), exposed: true, runs_task: false });
        state
    }

    fn create(nodes: u32, beside: bool) -> Planned {
        Planned::Create { group: group(3), nodes, beside }
    }

    fn of(number: u32, ordinals: std::ops::Range<u32>) -> BTreeSet<NodeId> {
        ordinals.map(|ordinal| group(number).node(ordinal)).collect()
    }

    #[test]
    fn what_serves_stays_unless_it_leaves_first_or_may_have_left() {
        let release = Planned::Release { release: ReleaseNumber(3), from: Some(ReleaseNumber(1)) };
        assert_eq!(nodes(&live(), &[release.clone(), create(5, true)]), Some((5, of(1, 0..3))));
        assert_eq!(nodes(&live(), &[release.clone(), create(5, false)]), Some((5, BTreeSet::new())));
        let queued = Planned::Queued { frozen_until: None, replaces: false };
        assert_eq!(nodes(&live(), &[queued, release, create(5, true)]), Some((5, BTreeSet::new())));
        assert_eq!(nodes(&live(), &[Planned::Nothing { live: None, pinned: false }]), None);
    }

    #[test]
    fn the_warm_group_makes_room() {
        let mut baking = live();
        baking.groups.insert(group(2), Group { size: 3, made: 3, nodes: (0..3).collect(), exposed: true, runs_task: false });
        let stage = Stage::Bake { until: Instant(9) };
        baking.rollout = Some(Rollout::new(RolloutNumber(2), RolloutKind::Deploy, Some(group(1)), group(2), stage));
        assert_eq!(nodes(&baking, &[create(3, true)]), Some((3, of(2, 0..3))));
    }

    #[test]
    fn a_rolling_rollout_needs_room_for_a_batch() {
        let roll = |surge| Planned::Roll { nodes: 3, surge, floor: 1 };
        assert_eq!(nodes(&live(), &[create(1, true), roll(1)]), Some((1, of(1, 0..3))));
        assert_eq!(nodes(&live(), &[roll(0)]), Some((2, of(1, 2..3))), "two leave before two are made");
    }
}
