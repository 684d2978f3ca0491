//! The server program, wired from its parts in the order in which they must begin.

use super::backup;
use super::builder::ImageBuilder;
use super::host::LocalHost;
use super::installation;
use crate::command::ServerArguments;
use crate::trouble::Trouble;
use gapless_engine::checkpoint::{Checkpoint, HoldAt, NoCheckpoint};
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::error::{Context, Error};
use gapless_engine::{Engine, Parts as EngineParts};
use gapless_images::base::BaseCache;
use gapless_images::build::Builder;
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::{LocalOptions, LocalPlatform, requirements};
use gapless_server::Server;
use gapless_server::analysis::RecordAnalyst;
use gapless_server::parts::Parts;
use gapless_server::record::RecordKeeper;
use gapless_store::{SqliteStore, StateLock};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Where a proxy has its admin socket when nothing else is said, in the server's state folder.
const USUAL_PROXY: &str = "proxy/proxy.sock";

/// Runs the server until a signal ends it. Nodes and proxies go on.
pub fn run(arguments: &ServerArguments) -> Result<(), Trouble> {
    requirements::check_for_nodes(&arguments.runtime)?;
    let state = installation::folder(&arguments.state)?;
    let lock = StateLock::acquire(&state)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context(|| "starting the server's runtime".to_string())?;
    let served = runtime.block_on(serve(arguments, state, lock));
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(served?)
}

async fn serve(arguments: &ServerArguments, state: PathBuf, lock: StateLock) -> Result<(), Error> {
    let stopped = stop_signal()?;
    let installation = installation::id(&state)?;
    // It takes room, and hinders nobody.
    if let Err(error) = backup::remove_unfinished(&state) {
        tracing::warn!(%error, "something that an earlier backup left cannot be removed");
    }
    let proxies = if arguments.proxies.is_empty() { vec![state.join(USUAL_PROXY)] } else { arguments.proxies.clone() };
    let images = ImageStore::open(&state.join("images"))?;
    // The platform ends what a dead server's helpers still do, before anything else is begun.
    let platform = LocalPlatform::open(LocalOptions {
        runtime: arguments.runtime.clone(),
        retry: !arguments.no_retry,
        hold: Duration::from_millis(arguments.hold_ms),
        ..LocalOptions::new(state.clone(), installation.clone(), proxies.clone(), Arc::new(images.clone()))
    })
    .await?;
    let store = Arc::new(SqliteStore::open(lock)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let keeper = Arc::new(RecordKeeper::new(proxies.clone()));
    let parts = EngineParts {
        journal: store.clone(),
        records: store.clone(),
        platform: Arc::new(platform.clone()),
        analyst: Arc::new(RecordAnalyst::new(keeper.clone())),
        clock: clock.clone(),
        checkpoint: checkpoint()?,
    };
    let engine = Engine::start(parts).await?;
    let builder = image_builder(arguments, &state, &images, &platform)?;
    let host = LocalHost {
        platform: platform.clone(),
        images,
        builder: builder.clone(),
        store: store.clone(),
        state: state.clone(),
        installation: installation.clone(),
        runtime: arguments.runtime.clone(),
        proxies: proxies.clone(),
    };
    let server = Server::new(Parts {
        engine,
        journal: store.clone(),
        records: store.clone(),
        platform: Arc::new(platform),
        clock: clock.clone(),
        builder: Arc::new(ImageBuilder { builder, records: store, clock }),
        host: Arc::new(host),
        proxies,
        keeper,
        state,
        installation,
    })?;
    tracing::info!(socket = %server.socket().display(), "the server listens");
    server.run(stopped).await
}

fn image_builder(arguments: &ServerArguments, state: &Path, images: &ImageStore, platform: &LocalPlatform) -> Result<Builder, Error> {
    let cache = arguments.cache.clone().unwrap_or_else(|| state.join("cache"));
    Builder::open(images.clone(), BaseCache::open(&cache)?, &state.join("build"), Arc::new(platform.clone()))
}

/// Nothing in production; a test or the demo may hold an effect by the environment.
fn checkpoint() -> Result<Arc<dyn Checkpoint>, Error> {
    Ok(match HoldAt::from_environment()? {
        Some(hold) => Arc::new(hold),
        None => Arc::new(NoCheckpoint),
    })
}

/// Ends when the server shall stop.
fn stop_signal() -> Result<impl Future<Output = ()>, Error> {
    let listening = || "listening for signals".to_string();
    let mut terminate = signal(SignalKind::terminate()).context(listening)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(listening)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("the server stops; nodes and proxies go on");
    })
}
