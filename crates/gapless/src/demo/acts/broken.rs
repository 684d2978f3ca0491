//! Act 5: a version whose health check fails never gets a request.

use crate::demo::script::Demo;
use gapless_engine::error::{Context, Error};
use gapless_wire::rollout::{Outcome, Reason};
use std::collections::BTreeMap;

/// Builds version 3, whose `/healthz` answers 500, and has it rejected.
///
/// # Errors
/// When the build fails or the server refuses.
pub async fn reject_a_broken_version(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(5, "version 3 is broken: /healthz answers 500");
    let quiet = demo.quiet().await?;
    let commit = demo.project.commit_broken_version(3)?;
    let serving = demo.serving_nodes().await?;
    let containers = containers(demo)?;
    let declared = demo.deploy(&commit).await?;
    let ended = demo.finish(&declared, quiet, Outcome::Rejected).await?;
    let reason = ended.reason.as_ref();
    let complete = reason.is_some_and(|reason| reason.check.is_some() && reason.times.is_some_and(|times| times > 0));
    demo.prove("the gate shows its evidence", complete, reason.map_or_else(|| "there is none".to_owned(), evidence));
    let now = demo.serving_nodes().await?;
    let after = self::containers(demo)?;
    let untouched = !serving.is_empty() && now == serving && containers.iter().all(|(id, start)| after.get(id) == Some(start));
    let evidence = format!("{} serve as before, {} containers started when they were", now.join(", "), containers.len());
    demo.prove("version 2 was not touched", untouched && !containers.is_empty(), evidence);
    Ok(())
}

fn evidence(reason: &Reason) -> String {
    format!(
        "{} said {}, {} times in a row, on {}",
        reason.check.as_deref().unwrap_or("the check"),
        reason.result.as_deref().unwrap_or("nothing"),
        reason.times.unwrap_or(0),
        reason.node.as_deref().unwrap_or("a node")
    )
}

/// When each running container was started, as the container runtime itself has it on disk.
fn containers(demo: &Demo) -> Result<BTreeMap<String, u64>, Error> {
    let folder = demo.stage.folders.server().join("platform/runc");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).context(|| format!("look at the containers in {}", folder.display()))? {
        let path = entry.context(|| format!("look at the containers in {}", folder.display()))?.path().join("state.json");
        // A container that goes away in between is none that has to stay.
        let state = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        let container = state.and_then(|state| Some((state["id"].as_str()?.to_owned(), state["init_process_start"].as_u64()?)));
        found.extend(container);
    }
    Ok(found)
}
