//! How long a real switch takes: 4 new Apache nodes to all traffic, and the 4 old ones gone, beside what one such node needs from cold to its first 200.
//!
//! `make bench-switch`. Everything is real: the image by Packer and Puppet, the programs, the nodes. Each round measures one cold start and one switch to a version
//! that was never deployed before, one after the other, while the witness sends small requests. The images of both are unpacked: a build does that. No time is asserted; a request that fails is, and the exit status says so.

#[allow(dead_code)]
#[path = "../tests/system/installation.rs"]
mod installation;
#[allow(dead_code)]
#[path = "../tests/system/project.rs"]
mod project;
#[path = "../tests/system/provisioned.rs"]
mod provisioned;

#[path = "switch/cold.rs"]
mod cold;
#[path = "switch/figures.rs"]
mod figures;

use cold::Cold;
use figures::{Figures, Round};
use gapless_core::digest::Digest;
use gapless_load::{Check, ClassPlan, Plan, Recording, Target};
use gapless_wire::artifact::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{Fact, Outcome, RolloutLine};
use installation::{Installation, ServerSettings, steady, target};
use project::Project;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// How many cold starts and switches are measured.
const ROUNDS: u32 = 20;

/// The nodes of the service.
const NODES: u32 = 4;

/// Requests a second: several are in flight or on their way in every phase of a switch, and they leave the two cores of a small machine to it.
const RATE: u32 = 200;

const SERVICE: &str = "hello/web";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starting a runtime");
    let figures = runtime.block_on(measure());
    figures.write(&target().join("bench/switch.json"));
    figures.show();
    if figures.sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure() -> Figures {
    let load_before = figures::load_average();
    // Nothing is sent again and nothing is held: what goes wrong is seen.
    let settings = ServerSettings { without_retry_and_hold: true, ..ServerSettings::default() };
    let installation = Installation::start("bench-switch", &settings).await;
    let project = four_nodes(&installation);
    let versions = build_all(&installation, &project).await;
    let (first, rest) = versions.split_first().expect("a version");
    switch(&installation, &project, first).await;

    let mut cold = Cold::open(&installation.root, &installation.state().join("images"), &project.path).await;
    let witness = installation.witness_of(&small_requests(&installation)).await;
    steady(&witness, RATE).await;
    let mut rounds = Vec::new();
    let mut live = first;
    for version in rest {
        // The live version's image: it is unpacked, as the nodes that run show.
        let cold = cold.start(digest(&live.artifact)).await;
        let switched = switch(&installation, &project, version).await;
        eprintln!(
            "round {:>2}: cold start {:>5.0?}, switch {:>5.0?}, gone {:>5.0?}",
            rounds.len() + 1,
            cold.took,
            switched.shifted,
            switched.gone
        );
        rounds.push(Round::new(&cold, &switched));
        live = version;
    }
    cold.close().await;
    let recording = witness.stop().await.expect("the witness's recording");
    Figures::new(rounds, &recording, load_before)
}

/// A commit, and what was built from it.
struct Version {
    commit: String,
    artifact: Artifact,
}

/// What a switch came to.
pub struct Switched {
    /// From the moment at which the deploy was asked for to the answer that it is declared.
    pub declared: Duration,
    /// To the news that every proxy acknowledged the new route.
    pub shifted: Duration,
    /// To the news that the last old node is gone.
    pub gone: Duration,
    /// The moment at which it was asked for, in microseconds since the Unix epoch.
    pub asked_us: u64,
    /// The release that it replaced, if there was one.
    pub replaced: Option<String>,
    /// What the server signed.
    pub receipt: Receipt,
}

/// The bundled project with four nodes and no bake window.
fn four_nodes(installation: &Installation) -> Project {
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    for (old, new) in [("nodes = 3", "nodes = 4"), ("floor    = 3", "floor    = 4"), ("bake     = \"5m\"", "bake     = \"0s\"")] {
        project.edit("gapless.hcl", old, new);
    }
    project
}

/// All versions in advance, so that no build runs while something is measured.
async fn build_all(installation: &Installation, project: &Project) -> Vec<Version> {
    let mut versions = Vec::new();
    for number in 1..=ROUNDS + 1 {
        std::fs::write(project.path.join("app/public/version"), format!("{number}\n")).expect("writing the version");
        let commit = project.commit(&format!("Version {number}"));
        let told = installation.build(project, &commit).await;
        let published = told.iter().find_map(|line| match line {
            BuildLine::Published { artifact, .. } => Some(artifact.clone()),
            _ => None,
        });
        let artifact = published.unwrap_or_else(|| panic!("the build failed: {told:#?}"));
        provisioned::keep(&installation.state());
        eprintln!("built version {number} of {}", ROUNDS + 1);
        versions.push(Version { commit, artifact });
    }
    versions
}

/// Small GETs on kept connections and on fresh ones: none takes 50 ms.
fn small_requests(installation: &Installation) -> Plan {
    let kept = ClassPlan::get("small", 680, "/check.txt", Check::SelfDigest);
    let fresh = ClassPlan::get("small-one-shot", 320, "/check.txt", Check::SelfDigest).one_shot();
    let target = Target::address(installation.address, "localhost");
    Plan { rate_per_second: RATE, ..Plan::new(target, vec![kept, fresh]) }
}

/// Deploys a version and follows it to its end.
async fn switch(installation: &Installation, project: &Project, version: &Version) -> Switched {
    let asked_us = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(0);
    let asked = Instant::now();
    let rollout = installation.declare_built(project, &version.commit).await.rollout.expect("a rollout");
    let declared = asked.elapsed();
    let (mut shifted, mut gone) = (None, None);
    let follow = installation.follow(SERVICE, rollout, |line| {
        match line {
            RolloutLine::Step(step) if matches!(step.fact, Fact::Shifted { .. }) => shifted = Some(asked.elapsed()),
            RolloutLine::Step(step) if matches!(step.fact, Fact::RolloutEnded { .. }) => gone = Some(asked.elapsed()),
            RolloutLine::End { outcome, reason, receipt } => {
                assert_eq!(outcome, Outcome::Live, "{reason:?}");
                return receipt;
            }
            _ => {}
        }
        None
    });
    let receipt = follow.await.receipt;
    Switched {
        declared,
        shifted: shifted.expect("the story has a shift"),
        gone: gone.expect("the story has an end"),
        asked_us,
        replaced: receipt.from.as_ref().map(|from| from.release.clone()),
        receipt,
    }
}

fn digest(artifact: &Artifact) -> Digest {
    artifact.image.parse().expect("the digest of an image")
}

/// When the last answer of this release ended, after the moment at which its successor was asked for: told by the witness alone.
pub fn last_answer(recording: &Recording, release: &str, asked_us: u64) -> Option<Duration> {
    let of_release = recording.samples.samples.iter().filter(|sample| sample.release.as_ref().is_some_and(|name| name.as_str() == release));
    let last = of_release.map(gapless_load::Sample::ended_us).max()?;
    Some(Duration::from_micros(last.saturating_sub(asked_us)))
}
