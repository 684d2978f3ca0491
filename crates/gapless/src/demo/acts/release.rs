//! Act 2: the image goes live: three Apache nodes behind the proxy.

use crate::demo::project::SERVICE;
use crate::demo::script::Demo;
use gapless_engine::error::Error;
use gapless_wire::rollout::Outcome;

/// Nodes that the example declares.
const NODES: usize = 3;

/// Releases the first artifact.
///
/// # Errors
/// When the server refuses or stops telling.
pub async fn release_it(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(2, "the first release: three Apache nodes behind the proxy");
    let artifact = demo.built.artifact.clone().ok_or_else(|| Error::new("there is no artifact to release"))?;
    let declared = demo.stage.api.deploy(demo.project.folder(), "HEAD", &artifact).await?;
    demo.finish(&declared, None, Outcome::Live).await?;
    let serving = demo.serving_nodes().await?;
    let address = demo.stage.address;
    demo.prove(format!("{NODES} nodes of {SERVICE} serve"), serving.len() == NODES, format!("{} at http://{address}", serving.join(", ")));
    Ok(())
}
