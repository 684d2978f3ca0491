//! Act 6: a change of the Puppet manifest, and the server killed in the middle of its rollout.

use crate::demo::build::{BASE, PROVISION};
use crate::demo::paint::{duration, thousands};
use crate::demo::rollout;
use crate::demo::script::Demo;
use crate::demo::seen::now_ms;
use gapless_engine::error::Error;
use gapless_wire::rollout::{Declared, Outcome};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the server stops for ever: the fourth release's second route, the one that gives it the traffic, after the proxy applied it and before its outcome is in the journal.
pub const HOLD: &str = "hello/web:r4:Route:2:after";

/// How often it is looked whether the server has come to that point.
const LOOK: Duration = Duration::from_millis(2);

/// Builds version 4, kills the server when its route was applied, starts it again, and sees it finish.
///
/// # Errors
/// When the build fails, or the server does not come back.
pub async fn kill_the_server_in_the_middle(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(6, "version 4 changes the Puppet manifest, and the server is killed in its rollout");
    let base = demo.built.phase(BASE).and_then(|phase| phase.layer.clone());
    let quiet = demo.quiet().await?;
    let commit = demo.project.commit_changed_manifest(4)?;
    let declared = demo.deploy(&commit).await?;
    let kept = base.is_some() && demo.built.phase(BASE).and_then(|phase| phase.layer.clone()) == base;
    let ran = demo.built.phase(PROVISION).is_some_and(|phase| !phase.cached);
    let changed = demo.built.puppet.get(&1).map_or(0, Vec::len);
    demo.prove("Packer ran again on the same base", kept && ran, format!("Puppet changed {changed} resources, its second run none"));
    let held = wait_for_the_route(demo, &declared).await?;
    kill_and_start_again(demo, &declared, &held).await?;
    demo.finish(&declared, quiet, Outcome::Live).await?;
    let restarts = demo.played.last_mut().map_or(0, |played| {
        played.server_killed = true;
        played.receipt.server_restarts
    });
    demo.prove("the server that came back finished it", restarts == 1, format!("the receipt names {restarts} restart of the server"));
    Ok(())
}

/// Follows the rollout until the server has stopped at [`HOLD`]. Answers with what it wrote there.
async fn wait_for_the_route(demo: &Demo, declared: &Declared) -> Result<String, Error> {
    let marker = demo.stage.folders.hold_marker();
    tokio::select! {
        biased;
        held = written(&marker) => Ok(held),
        ended = rollout::follow(&demo.stage.api, declared, &demo.screen) => match ended {
            Ok(_) => Err(Error::new(format!("the rollout to {} ended without coming to {HOLD}", declared.release))),
            Err(error) => Err(error),
        },
    }
}

async fn written(marker: &Path) -> String {
    loop {
        match std::fs::read_to_string(marker) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn kill_and_start_again(demo: &mut Demo, declared: &Declared, held: &str) -> Result<(), Error> {
    let began = Instant::now();
    let pid = demo.stage.kill_server()?;
    let killed_ms = now_ms();
    demo.screen.note(&format!("SIGKILL to the server (process {pid}), which had come to {held}"));
    let progress = demo.observer()?.after(killed_ms).await?;
    let new = progress.interval.by_release.get(&declared.release).copied().unwrap_or(0);
    demo.prove(
        "without a server the traffic goes on, on the new release",
        new > 0 && progress.interval.failed == 0,
        format!(
            "{} requests answered in {} ms, {} of them by {}",
            thousands(progress.interval.finished),
            progress.interval.length_ms,
            thousands(new),
            declared.release
        ),
    );
    demo.stage.start_server(None).await?;
    let away = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    demo.screen.note(&format!("the server is back after {}", duration(away)));
    Ok(())
}
