//! An act beside the others: the same change the way plain create-before-destroy does it.

use crate::demo::acts::receipts::Counted;
use crate::demo::comparison::{self, Cost};
use crate::demo::naive::{self, Ground, Naive};
use crate::demo::paint::thousands;
use crate::demo::programs;
use crate::demo::script::Demo;
use crate::demo::seen::Stretch;
use crate::demo::witness::{self, Observer};
use gapless_engine::error::Error;
use gapless_load::Recording;

/// The place of the rollout to version 2, which is compared with, among all.
const COMPARED: usize = 1;

/// Changes version 1 to version 2 without care, under the same load, and has the same checker count.
///
/// # Errors
/// When the run cannot be made. That it loses requests is what it is for.
pub async fn lose_requests(demo: &mut Demo, counted: &mut Counted) -> Result<(), Error> {
    demo.screen.act(9, "the naive way: create, swap, destroy at once; no gate, no drain");
    let (recording, swap) = run(demo).await?;
    let naive = Cost::of_swap(&recording, swap);
    let rollout = counted.receipt.rollouts.get(COMPARED).ok_or_else(|| Error::new("there is no rollout to compare with"))?;
    let ours = Cost::of_rollout(rollout, &counted.recording);
    comparison::draw(&ours, &naive, demo.screen.paint()).iter().for_each(|line| demo.screen.line(line));
    let evidence = format!("{} of {} requests failed: {}", thousands(naive.failed), thousands(recording.report.requests), naive.causes);
    demo.prove("the checker sees what create-before-destroy loses", naive.failed > 0, evidence);
    counted.comparison = comparison::rows(&ours, &naive);
    Ok(())
}

async fn run(demo: &mut Demo) -> Result<(Recording, Stretch), Error> {
    let folders = demo.stage.folders.clone();
    let address = programs::free_address()?;
    let proxy = folders.naive().join("proxy");
    let socket = proxy.join("proxy.sock");
    std::fs::create_dir_all(&proxy).map_err(|error| Error::new(format!("make the folder {}: {error}", proxy.display())))?;
    let command = programs::proxy(&demo.stage.program, &proxy, address);
    let child = demo.stage.start("naive-proxy", command, &socket).await?;
    demo.stage.adopt(child);
    let settings = naive::settings(demo.project.folder())?;
    let ground = Ground { state: folders.naive(), proxy: socket, images: folders.images(), settings: &settings };
    let mut naive = Naive::open(ground, &demo.artifacts).await?;
    naive.begin().await?;
    let plan = witness::plan(address, &demo.host, demo.rate);
    let program = programs::witness(&demo.stage.program);
    let mut observer = Observer::start(program, &plan, &folders.naive().join("witness.json"), &demo.screen).await?;
    demo.stage.write_down("naive-witness", observer.id())?;
    observer.settle(plan.classes.len()).await?;
    demo.screen.detail("swapping, destroying");
    let swap = naive::swap_watched(&mut naive, &mut observer).await?;
    Ok((observer.stop().await?, swap))
}
