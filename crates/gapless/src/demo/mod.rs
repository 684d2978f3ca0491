//! `gapless demo`: the product's main job on real tools, under load, in eight acts, with a receipt at the end.
//!
//! The script is [`script::play`]. Each act is a file in `acts`. What runs beside the demo is in [`stage`]; that it ends is [`janitor`]'s work.

mod acts;
mod api;
mod build;
mod chart;
mod comparison;
mod family;
mod fault;
mod folders;
mod janitor;
mod leftover;
mod naive;
mod page;
mod page_chart;
mod paint;
mod programs;
mod project;
mod receipt;
mod reconcile;
mod rollout;
mod screen;
mod script;
mod seen;
mod stage;
mod table;
mod timeline;
mod verdict;
mod witness;

use clap::Args;
use folders::Folders;
use gapless_engine::error::{Context, Error};
use paint::Tone;
use project::Project;
use screen::Screen;
use script::Demo;
use stage::Stage;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The most requests per second that the demo's two cores can carry beside everything else that a demo does.
const RATE_LIMIT: i64 = 2_000;

/// The demo's options.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Leave proxy, server and nodes running at the end, and print the address
    #[arg(long)]
    keep: bool,
    /// Do the same change also the way plain create-before-destroy does, and show what that loses
    #[arg(long)]
    naive: bool,
    /// Requests that the witness starts each second
    #[arg(long, default_value_t = gapless_load::DEFAULT_RATE_PER_SECOND, value_parser = clap::value_parser!(u32).range(50..=RATE_LIMIT))]
    rate: u32,
    /// The demo's own folder, emptied at each start
    #[arg(long, default_value = "target/demo")]
    state: PathBuf,
    /// Where base images are kept for the next demo [default: the state folder with -cache behind its name]
    #[arg(long)]
    cache: Option<PathBuf>,
    /// End a demo that was kept, and remove what it left
    #[arg(long)]
    end: bool,
    /// Wait for the demo's end and clean up after it
    #[arg(long, hide = true)]
    janitor: bool,
}

/// Runs the demo. The exit status is 0 only if every claim held.
///
/// # Errors
/// When the demo cannot go on.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let folders = Folders::resolve(&arguments.state, arguments.cache.as_deref())?;
    if arguments.janitor {
        return janitor::main(&folders).map(|()| ExitCode::SUCCESS);
    }
    leftover::requirements()?;
    if arguments.end {
        return end_a_kept_demo(&folders);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context(|| "start the demo's runtime".to_owned())?;
    runtime.block_on(async {
        tokio::select! {
            ended = perform(arguments, folders) => ended,
            signal = interrupted() => Err(Error::new(format!("the demo was ended by {}; everything it had started is gone", signal?))),
        }
    })
}

fn end_a_kept_demo(folders: &Folders) -> Result<ExitCode, Error> {
    let done = janitor::clean(folders)?;
    for line in &done {
        println!("ended {line}");
    }
    if done.is_empty() {
        println!("nothing of a demo was left in {}", folders.root.display());
    }
    Ok(ExitCode::SUCCESS)
}

async fn perform(arguments: &Arguments, folders: Folders) -> Result<ExitCode, Error> {
    let (screen, painter) = Screen::open();
    screen.line(&screen.paint().text(Tone::Strong, "gapless demo: from a commit to traffic, without a gap"));
    let stage = Stage::open(folders)?;
    let project = Project::create(&stage.folders.project())?;
    let mut demo = Demo::new(screen, stage, project, arguments.rate, arguments.naive);
    let played = script::play(&mut demo).await;
    drop(painter);
    demo.observer = None;
    played?;
    close(demo, arguments.keep)
}

/// Says what came of it, and cleans up unless everything shall be kept.
fn close(demo: Demo, keep: bool) -> Result<ExitCode, Error> {
    let Demo { screen, stage, proofs, host, .. } = demo;
    let good = verdict::all_hold(&proofs);
    let broken: Vec<_> = proofs.iter().filter(|proof| !proof.holds).collect();
    let paint = screen.paint();
    screen.line("");
    for proof in &broken {
        screen.verdict(false, &proof.line());
    }
    let words = format!("{} of {} claims held", proofs.len() - broken.len(), proofs.len());
    screen.line(&paint.text(if good { Tone::Good } else { Tone::Bad }, &words));
    screen.line(&format!("receipt: {}\n   page: {}", stage.folders.receipt().display(), stage.folders.page().display()));
    if keep {
        let state = stage.folders.root.display();
        screen.line(&format!("it runs on, at http://{host}:{}; `gapless demo --end --state {state}` ends it", stage.address.port()));
        stage.keep()?;
    } else {
        let done = stage.clean()?;
        screen.line(&paint.text(Tone::Quiet, &format!("cleaned up: {} things ended or removed", done.len())));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until a person or the system wants the demo to end. Answers with the signal's name.
async fn interrupted() -> Result<&'static str, Error> {
    let listen = |kind| signal(kind).context(|| "listen for signals".to_owned());
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}
