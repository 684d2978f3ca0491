//! Receipts are made as rollouts end; those that a dead server owed are made at the next start.

mod owed;

use self::owed::Owed;
use crate::journal::{Place, Readable, readable_from};
use crate::receipt::{Account, BuiltForThis, Made, measure, receipt};
use crate::server::Server;
use crate::story;
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, RolloutNumber};
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_engine::Told;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, Sequence};
use gapless_wire::receipt::{Ran, SignedReceipt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// How often the proxies' records are read while a rollout is in progress.
const BUSY_READING: Duration = Duration::from_millis(250);

/// How often they are read otherwise: what a killed worker counted since the last reading is lost to receipts.
const QUIET_READING: Duration = Duration::from_secs(1);

/// How long a failed write of a receipt waits for the next try.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// Reads the records and makes receipts until the server stops.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut told = server.parts.engine.watch();
    let mut owed = Owed::default();
    server.keeper.read().await;
    let mut again = make_missing(&server, &mut owed).await;
    loop {
        let pause = if is_busy(&server) { BUSY_READING } else { QUIET_READING };
        tokio::select! {
            () = server.stopped() => return,
            news = told.recv() => match news {
                Ok(news) => again = again.or(after(&server, &mut owed, &news).await),
                Err(RecvError::Lagged(_)) => {
                    owed.doubt_all();
                    again = make_missing(&server, &mut owed).await;
                }
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(pause) => {
                server.keeper.read().await;
                server.keeper.forget(owed.needed_since_ms());
                if again.is_some_and(|again| again <= Instant::now()) {
                    again = make_missing(&server, &mut owed).await;
                }
            }
        }
    }
}

fn is_busy(server: &Server) -> bool {
    let engine = &server.parts.engine;
    engine.services().iter().filter_map(|service| engine.state(service)).any(|state| state.rollout.is_some())
}

/// A rollout owes a receipt from its beginning until one is stored. Answers with when to try again, if it could not be made.
async fn after(server: &Server, owed: &mut Owed, news: &Told) -> Option<Instant> {
    match news.notice {
        Notice::RolloutStarted { rollout, .. } => {
            owed.add(&news.service, rollout, Place { record: news.sequence, at: news.at });
            None
        }
        Notice::RolloutEnded { rollout, .. } => match make_missing_of(server, &news.service, owed).await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(service = %news.service, %rollout, %error, "the receipt could not be made; it is tried again");
                Some(Instant::now() + WRITE_AGAIN)
            }
        },
        _ => None,
    }
}

/// Makes the receipts of all ended rollouts that have none, and looks up who owes one. Answers with when to try again, if some could not be made.
async fn make_missing(server: &Server, owed: &mut Owed) -> Option<Instant> {
    let mut failed = false;
    for service in server.parts.engine.services() {
        failed |= make_missing_of(server, &service, owed)
            .await
            .inspect_err(|error| {
                tracing::error!(%service, %error, "a receipt could not be made; it is tried again");
            })
            .is_err();
    }
    failed.then(|| Instant::now() + WRITE_AGAIN)
}

/// Makes the receipts of the service's ended rollouts that have none, and looks up who owes one. What was settled long ago is not read again.
async fn make_missing_of(server: &Server, service: &ServiceName, owed: &mut Owed) -> Result<(), Error> {
    let mark = match owed.begin(service) {
        None => owed::mark(server, service).await,
        Some(_) => None,
    };
    let begin = owed.begin(service).or(mark);
    owed.set_complete(service, false);
    let Readable { records, damage } = readable_from(&server.parts.journal, service, begin).await?;
    if let Some(mark) = mark.filter(|mark| mark.is_at(records.first())) {
        owed.forget_up_to(service, mark.record);
    }
    if let Some((first, _)) = records.first().filter(|_| damage.is_some()) {
        // What began before them nobody can tell any more.
        owed.forget_up_to(service, Sequence(first.0.saturating_sub(1)));
    }
    let accounts = Account::all(&records);
    for account in &accounts {
        // Whatever comes of it, nothing that its receipt needs may be forgotten before it is stored.
        owed.add(service, account.rollout, Place { record: account.first.unwrap_or_default(), at: account.started });
    }
    let mut made = Ok(());
    for account in accounts.iter().filter(|account| account.ended.is_some()) {
        match make(server, service, account).await {
            Ok(()) => owed.settle(service, account.rollout),
            Err(error) => made = Err(error.context(format!("the receipt of rollout {}", account.rollout))),
        }
    }
    // What cannot be read today may be read by another version, or once it is put back.
    if damage.is_none() {
        owed.set_complete(service, true);
        let settled = owed.settled(service, &records).filter(|settled| Some(*settled) != mark);
        move_mark(server, service, settled).await;
    }
    made
}

/// Without its new mark the next start reads more, and that is all.
async fn move_mark(server: &Server, service: &ServiceName, settled: Option<Place>) {
    let Some(settled) = settled else { return };
    if let Err(error) = owed::move_mark(server, service, settled).await {
        tracing::warn!(%service, %error, "it could not be written down up to where all receipts are made");
    }
}

/// The receipt of a rollout as it was stored, if it was.
pub(crate) async fn stored(server: &Server, service: &ServiceName, rollout: RolloutNumber) -> Result<Option<SignedReceipt>, Error> {
    let name = service.clone();
    match server.stored(move |records| records.receipt(&name, rollout)).await {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::new(format!("the receipt cannot be read: {error}")).kind(ErrorKind::Corrupt)),
        Err(error) if error.error_kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the receipt of a rollout that ended, if there is none, once the records reach its end. What they do not tell in time makes it incomplete.
async fn make(server: &Server, service: &ServiceName, account: &Account) -> Result<(), Error> {
    if stored(server, service, account.rollout).await?.is_some() {
        return Ok(());
    }
    let Some(window) = account.window() else { return Ok(()) };
    server.keeper.read_up_to(window.until_ms).await;
    write(server, service, account).await
}

async fn write(server: &Server, service: &ServiceName, account: &Account) -> Result<(), Error> {
    let Some(window) = account.window() else { return Ok(()) };
    let measured = measure(&service.to_string(), window, &server.keeper.proxies());
    let release = server.parts.engine.declaration(service, account.to).await?.to_core();
    let to = ran(server, service, account.to).await?;
    let from = match account.from {
        Some(release) => Some(ran(server, service, release).await?),
        None => None,
    };
    let built = built(server, service, account, ArtifactVersion(to.version)).await?;
    let made = Made { installation: &server.parts.installation, service, account, release: &release, from, to, built, measured };
    let Some(receipt) = receipt(made) else { return Ok(()) };
    let unreadable = |error: serde_json::Error| Error::new(format!("the receipt cannot be written as JSON: {error}"));
    let signed = server.key.sign(receipt).map_err(unreadable)?;
    let text = serde_json::to_string(&signed).map_err(unreadable)?;
    let (name, rollout) = (service.clone(), account.rollout);
    server.stored(move |records| records.put_receipt(&name, rollout, &text)).await?;
    server.receipts_made.send_modify(|made| *made += 1);
    Ok(())
}

/// What a release ran.
pub(crate) async fn ran(server: &Server, service: &ServiceName, release: ReleaseNumber) -> Result<Ran, Error> {
    let declaration = server.parts.engine.declaration(service, release).await?;
    let artifacts = server.images(declaration.artifact_name.clone()).await?;
    let artifact = artifacts.into_iter().find(|artifact| artifact.version == declaration.artifact_version);
    Ok(Ran {
        release: story::release_name(service, release),
        artifact: declaration.artifact_name.clone(),
        version: declaration.artifact_version.0,
        commit: artifact.as_ref().and_then(|artifact| artifact.metadata.get("commit").cloned()),
        image: declaration.image.to_string(),
        layers: artifact.as_ref().map(layers).unwrap_or_default(),
        declaration: declaration.content().to_string(),
    })
}

/// The layers of an artifact, by name.
pub(crate) fn layers(artifact: &Artifact) -> BTreeMap<String, String> {
    artifact.metadata.iter().filter(|(name, _)| name.starts_with("layer.")).map(|(name, digest)| (name.clone(), digest.clone())).collect()
}

/// The name under which it is kept which build a deploy belongs to.
pub(crate) fn built_name(service: &ServiceName, version: ArtifactVersion) -> String {
    format!("built/{service}/{version}")
}

async fn built(server: &Server, service: &ServiceName, account: &Account, version: ArtifactVersion) -> Result<Option<BuiltForThis>, Error> {
    if account.kind != gapless_core::notice::RolloutKind::Deploy {
        return Ok(None);
    }
    let name = built_name(service, version);
    let value = server.stored(move |records| records.value(&name)).await?;
    let built: Option<(u32, BuiltForThis)> = value.as_deref().and_then(|value| serde_json::from_str(value).ok());
    Ok(built.filter(|(release, _)| *release == account.to.0).map(|(_, built)| built))
}
