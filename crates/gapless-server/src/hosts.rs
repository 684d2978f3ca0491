//! Hosts that services answer: two cannot answer the same one, because the proxy would have to choose.

use crate::parts::Parts;
use crate::problem::Refused;
use crate::story::release_name;
use gapless_core::name::ServiceName;
use gapless_core::release::ReleaseNumber;
use gapless_core::service::ServiceState;
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hosts whose services are being declared: the engine does not know of these yet.
#[derive(Clone, Default)]
pub(crate) struct Hosts {
    claims: Arc<Mutex<Vec<(ServiceName, String)>>>,
}

/// A service may be declared with a host. It ends when it is dropped: the engine knows of it by then, or it was refused.
pub(crate) struct Claim {
    hosts: Hosts,
    service: ServiceName,
    host: String,
}

impl Hosts {
    /// Claims a host for a service. Of two that want the same at once, one gets it.
    pub(crate) async fn claim(&self, parts: &Parts, service: &ServiceName, host: &str) -> Result<Claim, Refused> {
        let claim = self.enter(service, host)?;
        self.is_free(parts, service, host).await?;
        Ok(claim)
    }

    /// No other service answers this host, or will when what was declared of it is carried out, or may by itself. A worker answers none (the empty one), and stands in nobody's
    /// way. An earlier release that only a person goes back to keeps its host from nobody: going back to it is refused if another service has the host by then.
    pub(crate) async fn is_free(&self, parts: &Parts, service: &ServiceName, host: &str) -> Result<(), Refused> {
        if host.is_empty() {
            return Ok(());
        }
        let engine = &parts.engine;
        let states: Vec<Arc<ServiceState>> = engine.services().iter().filter_map(|service| engine.state(service)).collect();
        for other in engine.services().into_iter().filter(|other| other != service) {
            let Some(state) = engine.state(&other) else { continue };
            for (release, hold) in holding(&state).into_iter().chain(follows_to(&state, &states)) {
                if engine.declaration(&other, release).await?.host == host {
                    return Err(hold.refusal(service, host, &other, release));
                }
            }
        }
        // What the engine cannot tell of a service whose journal is lost, and of a route that a later declaration has not replaced yet.
        match parts.platform.hosts().await?.into_iter().find(|(other, answered)| other != service && answered == host) {
            Some((other, _)) => {
                let hint = format!("deploy {other} with another host first: `gapless status` tells what is in its way");
                Err(taken(service, host, &format!("the proxies know as that of {other}"), hint))
            }
            None => Ok(()),
        }
    }

    fn enter(&self, service: &ServiceName, host: &str) -> Result<Claim, Refused> {
        let mut claims = self.lock();
        if let Some((other, _)) = claims.iter().find(|(other, claimed)| other != service && claimed == host && !host.is_empty()) {
            return Err(taken(service, host, &format!("{other} is being declared with"), OWN_HOST));
        }
        claims.push((service.clone(), host.to_string()));
        Ok(Claim { hosts: self.clone(), service: service.clone(), host: host.to_string() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ServiceName, String)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.hosts.lock();
        let mine = |(service, host): &(ServiceName, String)| *service == self.service && *host == self.host;
        if let Some(at) = claims.iter().position(mine) {
            claims.swap_remove(at);
        }
    }
}

/// Why a release keeps its host from other services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It has traffic, will have it, or is what its service was declared to be.
    Answers,
    /// Its service may go back to it by itself.
    WayBack,
}

impl Hold {
    fn refusal(self, service: &ServiceName, host: &str, other: &ServiceName, release: ReleaseNumber) -> Refused {
        let release = release_name(other, release);
        match self {
            Hold::Answers => {
                let hint = format!("{OWN_HOST}; to move this one, deploy {other} with another host first");
                taken(service, host, &format!("{other} answers with {release}"), hint)
            }
            Hold::WayBack => {
                let hint = format!(
                    "wait until {other} cannot go back by itself any more, when its rollout has ended and what it runs is not revoked (`gapless status`), or {OWN_HOST}"
                );
                taken(service, host, &format!("{other} may still go back to with {release}"), hint)
            }
        }
    }
}

/// The releases of a service that keep their hosts from others.
fn holding(state: &ServiceState) -> BTreeMap<ReleaseNumber, Hold> {
    let way_back = state.rollout.as_ref().and_then(|rollout| rollout.from).map(|group| group.release);
    let way_back = way_back.into_iter().chain(evicted_to(state)).map(|release| (release, Hold::WayBack));
    let coming = state.rollout.as_ref().map(|rollout| rollout.to.release);
    let answering = [state.live_release(), state.declared, coming].into_iter().flatten().map(|release| (release, Hold::Answers));
    way_back.chain(answering).collect()
}

/// Where a service goes back to if one of those fails that came with it and whose rollouts are not over, or when one of them that leaves has gone.
fn follows_to(state: &ServiceState, all: &[Arc<ServiceState>]) -> Option<(ReleaseNumber, Hold)> {
    let (_, end) = state.came_together()?;
    let moves = |other: &ServiceState| other.moves_with().is_some_and(|together| together.id == end.id);
    let goes_back = |other: &Arc<ServiceState>| moves(other) || state.is_left_by(other);
    end.from.filter(|_| all.iter().any(goes_back)).map(|from| (from, Hold::WayBack))
}

/// Where a service may go from a live release that is revoked.
fn evicted_to(state: &ServiceState) -> impl Iterator<Item = ReleaseNumber> {
    let is_due = state.live_release().is_some_and(|live| state.is_revoked(live));
    let served = state.served.iter().copied().filter(move |_| is_due);
    served.filter(|release| !state.is_revoked(*release) && !state.evicted_in_vain.contains(release))
}

const OWN_HOST: &str = "give each service a host of its own in gapless.hcl";

fn taken(service: &ServiceName, host: &str, by: &str, hint: impl Into<String>) -> Refused {
    Refused::new(StatusCode::CONFLICT, format!("{service} wants the host \"{host}\", which {by}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::digest::Digest;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::notice::{RolloutKind, RolloutNumber};
    use gapless_core::policy::Policy;
    use gapless_core::release::{ArtifactVersion, Declaration};
    use gapless_core::service::{Rollout, Stage, Ties, Together, TogetherEnd, TogetherOutcome};
    use gapless_core::time::Instant;
    use std::collections::BTreeSet;

    fn service(name: &str) -> ServiceName {
        name.parse().expect("a name")
    }

    #[test]
    fn of_two_that_want_one_host_at_once_one_gets_it() {
        let hosts = Hosts::default();
        let first = hosts.enter(&service("a/web"), "localhost").map_err(|refused| refused.problem).expect("free");
        let again = hosts.enter(&service("a/web"), "localhost").map_err(|refused| refused.problem).expect("its own");
        assert!(hosts.enter(&service("a/web"), "other").is_ok());
        let workers = [hosts.enter(&service("a/worker"), ""), hosts.enter(&service("b/worker"), "")];
        assert!(workers.iter().all(Result::is_ok), "workers answer no host");
        drop(again);
        let refused = hosts.enter(&service("b/web"), "localhost").map(drop).expect_err("taken");
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.problem.what.contains("a/web is being declared"), "{:?}", refused.problem);
        drop(first);
        assert!(hosts.enter(&service("b/web"), "localhost").is_ok(), "a claim that ended stands in nobody's way");
    }

    #[test]
    fn what_is_on_its_way_and_where_a_service_may_go_by_itself_keep_their_hosts() {
        let group = |release| GroupId { release: ReleaseNumber(release), instance: InstanceId(u64::from(release)) };
        let holds =
            |holds: &[(u32, Hold)]| holds.iter().map(|(release, hold)| (ReleaseNumber(*release), *hold)).collect::<BTreeMap<_, _>>();
        let declared = ServiceState { declared: Some(ReleaseNumber(3)), ..ServiceState::default() };
        assert_eq!(holding(&declared), holds(&[(3, Hold::Answers)]));
        let rollout = Rollout::new(RolloutNumber(3), RolloutKind::Rollback, Some(group(1)), group(2), Stage::Shift);
        let going_back = ServiceState { live: Some(group(1)), rollout: Some(rollout), ..declared.clone() };
        assert_eq!(holding(&going_back), holds(&[1, 2, 3].map(|release| (release, Hold::Answers))));
        let bake = Stage::Bake { until: Instant(1) };
        let rollout = Rollout::new(RolloutNumber(3), RolloutKind::Deploy, Some(group(2)), group(3), bake);
        let baking = ServiceState { live: Some(group(3)), rollout: Some(rollout), ..declared };
        assert_eq!(holding(&baking), holds(&[(2, Hold::WayBack), (3, Hold::Answers)]));
    }

    #[test]
    fn where_an_eviction_goes_is_kept_from_others_and_where_only_a_person_goes_is_not() {
        let group = GroupId { release: ReleaseNumber(3), instance: InstanceId(3) };
        let served = BTreeSet::from([1, 2, 3].map(ReleaseNumber));
        let mut state = ServiceState { live: Some(group), served, ..ServiceState::default() };
        for version in 1..=3 {
            state.releases.insert(ReleaseNumber(version), declaration(version));
        }
        let held = |state: &ServiceState| holding(state).into_keys().map(|release| release.0).collect::<Vec<_>>();
        assert_eq!(held(&state), [3]);
        state.revoked = BTreeSet::from([ArtifactVersion(3)]);
        assert_eq!(held(&state), [1, 2, 3]);
        state.revoked.insert(ArtifactVersion(2));
        assert_eq!(held(&state), [1, 3]);
        state.evicted_in_vain.insert(ReleaseNumber(1));
        assert_eq!(held(&state), [3]);
    }

    #[test]
    fn where_a_service_may_follow_others_back_is_kept_from_others_until_their_part_is_over() {
        let group = |release| GroupId { release: ReleaseNumber(release), instance: InstanceId(u64::from(release)) };
        let id = Digest([7; 32]);
        let end = |outcome| TogetherEnd { id, with: BTreeSet::new(), from: Some(ReleaseNumber(1)), outcome };
        let at = |release, outcome| ServiceState {
            live: Some(group(release)),
            together: Ties(BTreeMap::from([(ReleaseNumber(2), end(outcome))])),
            ..ServiceState::default()
        };
        let came = at(2, TogetherOutcome::Live);
        let held = |other: ServiceState| follows_to(&came, &[Arc::new(came.clone()), Arc::new(other)]);
        let kept = Some((ReleaseNumber(1), Hold::WayBack));
        let mut baking = Rollout::new(RolloutNumber(2), RolloutKind::Deploy, Some(group(1)), group(2), Stage::Bake { until: Instant(1) });
        baking.together = Some(Together { id, with: BTreeSet::new() });
        assert_eq!(held(ServiceState { live: Some(group(2)), rollout: Some(baking), ..ServiceState::default() }), kept, "it may fail yet");
        assert_eq!(held(at(1, TogetherOutcome::TakenBack)), kept, "it has gone back, and this one was not told yet");
        assert_eq!(held(at(3, TogetherOutcome::TakenBack)), None, "it has gone on since");
        assert_eq!(held(at(2, TogetherOutcome::Live)), None, "all is well");
    }

    fn declaration(version: u32) -> Declaration {
        Declaration {
            content: Digest([0; 32]),
            artifact: ArtifactVersion(version),
            image: Digest([0; 32]),
            nodes: 1,
            policy: Policy::default(),
            serves: true,
            tasks: BTreeSet::new(),
        }
    }
}
