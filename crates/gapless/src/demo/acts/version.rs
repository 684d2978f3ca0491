//! Act 4: a change of the application, and nothing else, goes live.

use crate::demo::build::{BASE, PROVISION, Told};
use crate::demo::script::Demo;
use gapless_engine::error::Error;
use gapless_wire::rollout::Outcome;

/// Builds and rolls out version 2, blue/green.
///
/// # Errors
/// When the build fails or the server refuses.
pub async fn roll_out_a_new_version(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(4, "version 2: a commit that changes the application only");
    let before = demo.built.clone();
    let quiet = demo.quiet().await?;
    let commit = demo.project.commit_version(2)?;
    let declared = demo.deploy(&commit).await?;
    prove_that_little_was_built(demo, &before);
    demo.finish(&declared, quiet, Outcome::Live).await.map(|_| ())
}

fn prove_that_little_was_built(demo: &mut Demo, before: &Told) {
    let kept: Vec<String> = [BASE, PROVISION]
        .into_iter()
        .filter(|phase| {
            let layer = |told: &Told| told.phase(phase).and_then(|phase| phase.layer.clone());
            layer(before).is_some() && layer(before) == layer(&demo.built)
        })
        .map(str::to_owned)
        .collect();
    let evidence = format!("{} have the digests they had; built in {} ms", kept.join(" and "), demo.built.took_ms);
    demo.prove("the other layers are kept", kept.len() == 2, evidence);
    let silent = demo.built.output.get(PROVISION).copied().unwrap_or(0) == 0;
    let cached = demo.built.phase(PROVISION).is_some_and(|phase| phase.cached);
    demo.prove("Packer was not started", cached && silent, "the layer it would make is there, keyed by what it is made of");
}
