//! Revoked artifacts: what may not run, and who has to be told.

use crate::declaration::ServiceDeclaration;
use crate::engine::{DeclareError, Declared, Engine};
use crate::error::{Context, Error};
use crate::recovery::blocking;
use crate::store::Revocation;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use std::collections::{BTreeMap, BTreeSet};

/// What is revoked, by the artifact's name.
type Revoked = BTreeMap<String, BTreeSet<ArtifactVersion>>;

impl Engine {
    /// Revokes a version of an artifact: from now on no service may be declared with it, and those that run it leave it. Answers with every service that this changed; the
    /// rollout in each answer is the eviction, if one began. Revoking again with another reason keeps the new one.
    ///
    /// # Errors
    /// When it cannot be written down. Once it is, it holds, also for a service that could not be told: that is named in the error, and told again at the next start.
    pub async fn revoke(
        &self,
        artifact: &str,
        version: ArtifactVersion,
        reason: &str,
    ) -> Result<Vec<(ServiceName, Declared)>, DeclareError> {
        let _alone = self.revoking().write().await;
        let revocation = Revocation { at: self.parts().clock.now(), reason: reason.to_string() };
        let (records, name) = (self.parts().records.clone(), artifact.to_string());
        blocking(records.may_wait(), move || records.put_revocation(&name, version, &revocation))
            .await
            .context(|| format!("revoking {artifact} {version}"))?;
        self.tell_all().await
    }

    /// Gives a revoked version free again. What was evicted stays where it is: it is declared or rolled back to like any other.
    ///
    /// # Errors
    /// As [`Engine::revoke`].
    pub async fn lift_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<Vec<(ServiceName, Declared)>, DeclareError> {
        let _alone = self.revoking().write().await;
        let (records, name) = (self.parts().records.clone(), artifact.to_string());
        blocking(records.may_wait(), move || records.remove_revocation(&name, version))
            .await
            .context(|| format!("lifting the revocation of {artifact} {version}"))?;
        self.tell_all().await
    }

    /// Tells every service what is revoked of its artifacts, where it does not know. One that cannot be told holds no other up.
    pub(crate) async fn tell_all(&self) -> Result<Vec<(ServiceName, Declared)>, DeclareError> {
        let mut changed = Vec::new();
        let mut failed = None;
        for service in self.services() {
            match self.tell(&service, None).await {
                Ok(Some(declared)) => changed.push((service, declared)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%service, %error, "a service could not be told what is revoked");
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    /// Tells a service what is revoked of its artifacts, and of the one that it is about to be declared with, if it does not know.
    pub(crate) async fn tell(&self, service: &ServiceName, next: Option<&ServiceDeclaration>) -> Result<Option<Declared>, DeclareError> {
        let state = self.state(service).unwrap_or_default();
        let names = self.artifact_names(service, &state).await?;
        let next_name = next.map(|declaration| declaration.artifact_name.as_str());
        let revoked = self.revoked(names.values().map(String::as_str).chain(next_name)).await?;
        let artifacts = concerned(&state, &names, next_name, &revoked);
        if knows(&state, &artifacts, next.map(|declaration| declaration.artifact_version)) {
            return Ok(None);
        }
        let declared = self.wish(service, Event::Revoked { artifacts }).await?;
        Ok(declared.changed.then_some(declared))
    }

    /// The artifact's name of every release of a service.
    async fn artifact_names(&self, service: &ServiceName, state: &ServiceState) -> Result<Names, Error> {
        let contents: Vec<_> = state.releases.iter().map(|(release, declaration)| (*release, declaration.content)).collect();
        let records = self.parts().records.clone();
        let may_wait = records.may_wait();
        let read =
            move || contents.into_iter().map(|(release, content)| Ok((release, records.declaration(content)?.artifact_name))).collect();
        blocking(may_wait, read).await.context(|| format!("reading the declarations of {service}"))
    }

    async fn revoked<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<Revoked, Error> {
        let names: BTreeSet<String> = names.map(str::to_string).collect();
        let records = self.parts().records.clone();
        let may_wait = records.may_wait();
        let read =
            move || names.into_iter().map(|name| records.revocations(&name).map(|known| (name, known.into_keys().collect()))).collect();
        blocking(may_wait, read).await.context(|| "reading what is revoked".to_string())
    }
}

type Names = BTreeMap<gapless_core::release::ReleaseNumber, String>;

/// The versions that a service has to be told: all that are revoked of the artifact that it is declared with, and those of its other releases. The core knows versions without names,
/// so that a revoked version of another artifact must not count that none of its releases is made from.
fn concerned(state: &ServiceState, names: &Names, next: Option<&str>, revoked: &Revoked) -> BTreeSet<ArtifactVersion> {
    let is_revoked = |name: &str, version: ArtifactVersion| revoked.get(name).is_some_and(|versions| versions.contains(&version));
    let of_releases = state
        .releases
        .iter()
        .filter(|(release, declaration)| names.get(release).is_some_and(|name| is_revoked(name, declaration.artifact)));
    let present = next.or_else(|| state.declared.and_then(|release| names.get(&release)).map(String::as_str));
    let of_present = present.and_then(|name| revoked.get(name)).into_iter().flatten().copied();
    of_present.chain(of_releases.map(|(_, declaration)| declaration.artifact)).collect()
}

/// Whether a service knows what it has to: all of this, and nothing else that could stop one of its releases or what it is about to be declared with. What it was told of a release
/// that is no longer kept does no harm, and telling it so would be a change where nothing changes (I6).
fn knows(state: &ServiceState, concerned: &BTreeSet<ArtifactVersion>, next: Option<ArtifactVersion>) -> bool {
    let in_use =
        |version: &ArtifactVersion| next == Some(*version) || state.releases.values().any(|declaration| declaration.artifact == *version);
    concerned.is_subset(&state.revoked) && !state.revoked.difference(concerned).any(in_use)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use gapless_core::release::ReleaseNumber;

    #[test]
    fn what_stops_nothing_any_more_is_not_told_again() {
        let mut state = ServiceState::default();
        state.releases.insert(ReleaseNumber(2), fake::declaration(2).to_core());
        let versions = |versions: &[u32]| versions.iter().copied().map(ArtifactVersion).collect::<BTreeSet<_>>();
        state.revoked = versions(&[1]);
        assert!(knows(&state, &versions(&[1]), None));
        assert!(knows(&state, &versions(&[]), None), "no release is made from version 1 any more");
        assert!(!knows(&state, &versions(&[]), Some(ArtifactVersion(1))), "it is given free and comes next");
        assert!(!knows(&state, &versions(&[1, 2]), None), "a release is revoked");
        state.revoked = versions(&[2]);
        assert!(!knows(&state, &versions(&[]), None), "a release is given free");
    }

    #[test]
    fn a_service_is_told_what_its_own_releases_are_made_from() {
        let mut state = ServiceState { declared: Some(ReleaseNumber(2)), ..ServiceState::default() };
        for version in 1..=2 {
            state.releases.insert(ReleaseNumber(version), fake::declaration(version).to_core());
        }
        let names = Names::from([(ReleaseNumber(1), "hello/old".to_string()), (ReleaseNumber(2), "hello/web".to_string())]);
        let versions = |versions: &[u32]| versions.iter().copied().map(ArtifactVersion).collect::<BTreeSet<_>>();
        let revoked = |old: &[u32], web: &[u32]| Revoked::from([("hello/old".into(), versions(old)), ("hello/web".into(), versions(web))]);
        let told = |revoked: &Revoked| concerned(&state, &names, None, revoked);
        assert_eq!(told(&revoked(&[], &[1, 7])), versions(&[1, 7]), "all of the present artifact's");
        assert_eq!(told(&revoked(&[1, 2], &[])), versions(&[1]), "of an earlier artifact only what a release is made from");
        assert_eq!(concerned(&state, &names, Some("hello/old"), &revoked(&[2, 9], &[])), versions(&[2, 9]), "what comes next is present");
        assert_eq!(told(&revoked(&[], &[])), versions(&[]));
    }
}
