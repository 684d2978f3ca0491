//! Revoked artifacts: what may not run, and who has to be told.

use crate::declaration::ServiceDeclaration;
use crate::engine::{DeclareError, Declared, Engine, Inner};
use crate::error::{Context, Error};
use crate::recovery::blocking;
use crate::store::Revocation;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::watch;

/// After how long a service is told again that could not be told: what is revoked must not run for long, and a full disk is not pressed. It tells nobody that it has room again.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// What is revoked, by the artifact's name.
type Revoked = BTreeMap<String, BTreeSet<ArtifactVersion>>;

impl Engine {
    /// Revokes a version of an artifact: from now on no service may be declared with it, and those that run it leave it. Answers with every service that this changed; the
    /// rollout in each answer is the eviction, if one began. Revoking again with another reason keeps the new one.
    ///
    /// # Errors
    /// When it cannot be written down. Once it is, it holds, also for services that could not be told: the error says so and names them. They are told as soon as they can be.
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
        self.tell_all().await.map_err(|untold| not_all_told(&format!("the revocation of {artifact} {version}"), &untold))
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
        self.tell_all().await.map_err(|untold| not_all_told(&format!("the end of the revocation of {artifact} {version}"), &untold))
    }

    /// Tells every service what is revoked of its artifacts, where it does not know. One that cannot be told holds no other up, and is told later.
    ///
    /// # Errors
    /// Those that could not be told, and why: lost ones are told when they are found, the others again from time to time.
    pub(crate) async fn tell_all(&self) -> Result<Vec<(ServiceName, Declared)>, Vec<(ServiceName, String)>> {
        let mut changed = Vec::new();
        let mut untold = Vec::new();
        for service in self.services() {
            match self.tell(&service, None).await {
                Ok(Some(declared)) => changed.push((service, declared)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%service, %error, "a service could not be told what is revoked; it is told again");
                    untold.push((service, error.cause()));
                }
            }
        }
        if !untold.is_empty() {
            self.untold().send_replace(true);
        }
        untold.extend(self.lost_services().into_iter().map(|(service, error)| (service, error.to_string())));
        if untold.is_empty() { Ok(changed) } else { Err(untold) }
    }

    /// Tells one service, now or from time to time until it can be told.
    pub(crate) async fn tell_soon(&self, service: &ServiceName) {
        let _nothing_is_revoked_meanwhile = self.revoking().read().await;
        if let Err(error) = self.tell(service, None).await {
            tracing::warn!(%service, %error, "a service could not be told what is revoked; it is told again");
            self.untold().send_replace(true);
        }
    }

    /// Tells a service what is revoked of its artifacts, and of the one that it is about to be declared with, if it does not know.
    pub(crate) async fn tell(&self, service: &ServiceName, next: Option<&ServiceDeclaration>) -> Result<Option<Declared>, DeclareError> {
        let state = self.state(service).unwrap_or_default();
        let names = self.artifact_names(service, &state).await?;
        let next_name = next.map(|declaration| declaration.artifact_name.as_str());
        let revoked = self.revoked(names.values().map(String::as_str).chain(next_name)).await?;
        let artifacts = concerned(&state, &names, next_name, &revoked);
        if knows(&state, &artifacts, next.map(|declaration| declaration.artifact_version), &revoked) {
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

/// Tells services again what is revoked that could not be told before, until all were.
pub(crate) async fn keep_told(inner: Weak<Inner>, mut untold: watch::Receiver<bool>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); return }
            waits = untold.wait_for(|untold| *untold) => if waits.is_err() { return },
        }
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); return }
            () = tokio::time::sleep(TELL_AGAIN) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let engine = Engine::of(inner);
        let _nothing_is_revoked_meanwhile = engine.revoking().read().await;
        engine.untold().send_replace(false);
        // Who still cannot be told is told again.
        let _ = engine.tell_all().await;
    }
}

/// What was written down, and who does not know of it.
fn not_all_told(what: &str, untold: &[(ServiceName, String)]) -> DeclareError {
    let untold: Vec<String> = untold.iter().map(|(service, why)| format!("{service} could not be told yet: {why}")).collect();
    let hint = "it holds, and need not be said again: who was not told is told as soon as that is possible; `gapless status` tells what runs until then";
    DeclareError::Failed(Error::new(format!("{what} is written down; {}", untold.join("; "))).hint(hint))
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

/// Whether a service knows what it has to: all of this, and nothing else that could stop one of its releases or what it is about to be declared with, or that is revoked no more.
/// What it was told of a release that is no longer kept does no harm, and telling it so would be a change where nothing changes (I6).
fn knows(state: &ServiceState, concerned: &BTreeSet<ArtifactVersion>, next: Option<ArtifactVersion>, revoked: &Revoked) -> bool {
    let in_use = |version: &ArtifactVersion| next == Some(*version) || state.releases.values().any(|release| release.artifact == *version);
    let is_free = |version: &ArtifactVersion| revoked.values().all(|versions| !versions.contains(version));
    concerned.is_subset(&state.revoked) && !state.revoked.difference(concerned).any(|version| in_use(version) || is_free(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Fake};
    use gapless_core::release::ReleaseNumber;
    use std::sync::Arc;

    #[test]
    fn what_stops_nothing_any_more_is_not_told_again() {
        let mut state = ServiceState::default();
        state.releases.insert(ReleaseNumber(2), fake::declaration(2).to_core());
        let versions = |versions: &[u32]| versions.iter().copied().map(ArtifactVersion).collect::<BTreeSet<_>>();
        let revoked = |list: &[u32]| Revoked::from([("hello/web".to_string(), versions(list))]);
        let knows = |state: &ServiceState, concerned: &[u32], next: Option<u32>, all: &[u32]| {
            knows(state, &versions(concerned), next.map(ArtifactVersion), &revoked(all))
        };
        state.revoked = versions(&[1]);
        assert!(knows(&state, &[1], None, &[1]));
        assert!(knows(&state, &[], None, &[1]), "no release is made from version 1 any more");
        assert!(!knows(&state, &[], None, &[]), "it is given free");
        assert!(!knows(&state, &[], Some(1), &[1]), "another artifact's version 1 comes next");
        assert!(!knows(&state, &[1, 2], None, &[1, 2]), "a release is revoked");
        state.revoked = versions(&[2]);
        assert!(!knows(&state, &[], None, &[2]), "a release is of another artifact now");
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

    fn is_revoked(engine: &Engine) -> bool {
        engine.state(&fake::web()).is_some_and(|state| state.revoked.contains(&ArtifactVersion(1)))
    }

    fn is_revocation(event: &Event) -> bool {
        matches!(event, Event::Revoked { .. })
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_not_be_told_is_named_and_told_later() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        fake.refuse_to_write(Some(is_revocation));
        let error = engine.revoke("hello/web", ArtifactVersion(1), "it leaks").await.expect_err("hello/web was not told");
        let text = error.to_string();
        assert!(text.starts_with("the revocation of hello/web v1 is written down; hello/web could not be told yet: "), "{text}");
        assert!(text.contains("the disk is full") && !text.contains("nothing was changed"), "{text}");
        assert!(matches!(&error, DeclareError::Failed(error) if error.hint_text().is_some()), "{error:?}");
        tokio::time::sleep(TELL_AGAIN * 3).await;
        assert!(!is_revoked(&engine));
        fake.refuse_to_write(None);
        tokio::time::sleep(TELL_AGAIN * 2).await;
        assert!(is_revoked(&engine), "it was not told again");
        engine.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_service_is_named_and_told_when_it_is_found() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        engine.stop().await;
        fake.refuse_to_read(u32::MAX);
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        let error = engine.revoke("hello/web", ArtifactVersion(1), "it leaks").await.expect_err("hello/web is lost");
        assert!(error.to_string().contains("hello/web could not be told yet: "), "{error}");
        assert!(error.to_string().contains("the disk cannot be read"), "{error}");
        fake.refuse_to_read(0);
        fake.refuse_to_write(Some(is_revocation));
        while !engine.lost_services().is_empty() {
            tokio::time::sleep(TELL_AGAIN).await;
        }
        assert!(!is_revoked(&engine));
        fake.refuse_to_write(None);
        tokio::time::sleep(TELL_AGAIN * 2).await;
        assert!(is_revoked(&engine), "it was not told");
        engine.stop().await;
    }
}
