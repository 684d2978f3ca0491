//! Act 3: the witness begins, and does not stop until the end.

use crate::demo::paint::{causes, thousands};
use crate::demo::programs;
use crate::demo::project::SERVICE;
use crate::demo::script::Demo;
use crate::demo::witness::{self, Observer};
use gapless_engine::error::Error;

/// The `Host` to ask for where the service answers any.
pub const ANY_HOST: &str = "localhost";

/// Starts the witness as a process of its own, and waits until a request of every class was answered.
///
/// # Errors
/// When it cannot be started, or nothing is answered.
pub async fn call_the_witness(demo: &mut Demo) -> Result<(), Error> {
    demo.screen.act(3, "the witness: requests at a fixed rate, every body checked, never a second try");
    let host = demo.stage.api.service(SERVICE).await?.host;
    demo.host = if host == "*" { ANY_HOST.to_owned() } else { host };
    let plan = witness::plan(demo.stage.address, &demo.host, demo.rate);
    for class in &plan.classes {
        let share = f64::from(class.share) / 10.0;
        demo.screen.note(&format!("{share:>5.1} % {:<16} {}", class.name, class.path));
    }
    let program = programs::witness(&demo.stage.program);
    let observer = Observer::start(program, &plan, &demo.stage.folders.recording(), &demo.screen).await?;
    demo.stage.write_down("witness", observer.id())?;
    let progress = demo.observer.insert(observer).settle(plan.classes.len()).await?;
    demo.prove(
        "every kind of request succeeds in steady traffic",
        progress.failed == 0,
        format!("{} requests, {} failed{}", thousands(progress.finished), progress.failed, causes(&progress.failed_by_cause)),
    );
    Ok(())
}
