//! Act 7: back to version 2.

use crate::demo::project::SERVICE;
use crate::demo::script::Demo;
use gapless_engine::error::Error;
use gapless_wire::rollout::Outcome;

/// The number of the release that shows version 2.
const SECOND: u32 = 2;

/// Rolls back to the second release.
///
/// # Errors
/// When the server refuses.
pub async fn go_back(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(7, "back to version 2");
    let quiet = demo.quiet().await?;
    let declared = demo.stage.api.rollback(SERVICE, SECOND).await?;
    demo.finish(&declared, quiet, Outcome::Live).await?;
    let status = demo.stage.api.service(SERVICE).await?;
    let live = status.live.as_ref().map_or("nothing", |release| release.name.as_str()).to_owned();
    demo.prove("version 2 serves again, and stays", live == declared.release && status.pinned, format!("{live} is live and pinned"));
    // The last stretch of traffic belongs to the receipt too.
    demo.quiet().await.map(|_| ())
}
