//! The demo's script: what happens, in order.

use super::acts;
use super::build::{self, Told};
use super::project::{Project, SERVICE};
use super::rollout::{self, Ended};
use super::screen::Screen;
use super::seen::Stretch;
use super::stage::Stage;
use super::verdict::Proof;
use super::witness::Observer;
use gapless_engine::error::Error;
use gapless_wire::artifact::Artifact;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{Declared, Outcome};

/// A demo in progress.
pub struct Demo {
    /// What is shown.
    pub screen: Screen,
    /// What it runs on.
    pub stage: Stage,
    /// What is delivered.
    pub project: Project,
    /// The `Host` that the service answers.
    pub host: String,
    /// Requests that the witness starts each second.
    pub rate: u32,
    /// Whether the naive way is tried too.
    pub naive: bool,
    /// The witness, while it is at work.
    pub observer: Option<Observer>,
    /// What the newest build told.
    pub built: Told,
    /// Everything that was published, in order.
    pub artifacts: Vec<Artifact>,
    /// Every rollout so far.
    pub played: Vec<Played>,
    /// Everything that was claimed, and whether it held.
    pub proofs: Vec<Proof>,
}

/// A rollout that is over.
#[derive(Clone, Debug)]
pub struct Played {
    /// What the server signed.
    pub receipt: Receipt,
    /// The same with its signature, as a file has it.
    pub signed: String,
    /// The quiet stretch before it.
    pub quiet: Option<Stretch>,
    /// Whether the server was killed in the middle.
    pub server_killed: bool,
    /// How it was meant to end.
    pub expected: Outcome,
}

/// Plays the demo from the first act to the last.
///
/// # Errors
/// When an act cannot go on. A claim that does not hold is no error: it is shown, and it decides the exit status.
pub async fn play(demo: &mut Demo) -> Result<(), Error> {
    acts::image::build_the_first_image(demo).await?;
    acts::release::release_it(demo).await?;
    acts::load::call_the_witness(demo).await?;
    acts::version::roll_out_a_new_version(demo).await?;
    acts::broken::reject_a_broken_version(demo).await?;
    acts::crash::kill_the_server_in_the_middle(demo).await?;
    acts::rollback::go_back(demo).await?;
    let mut counted = acts::receipts::count(demo).await?;
    if demo.naive {
        acts::naive::lose_requests(demo, &mut counted).await?;
    }
    acts::receipts::show(demo, &counted)
}

impl Demo {
    /// A demo before its first act.
    pub fn new(screen: Screen, stage: Stage, project: Project, rate: u32, naive: bool) -> Demo {
        let (built, artifacts, played, proofs) = (Told::default(), Vec::new(), Vec::new(), Vec::new());
        Demo {
            screen,
            stage,
            project,
            host: acts::load::ANY_HOST.to_owned(),
            rate,
            naive,
            observer: None,
            built,
            artifacts,
            played,
            proofs,
        }
    }

    /// Writes down and shows whether a claim holds.
    pub fn prove(&mut self, claim: impl Into<String>, holds: bool, evidence: impl Into<String>) {
        let proof = Proof::new(claim, holds, evidence);
        self.screen.verdict(proof.holds, &proof.line());
        self.proofs.push(proof);
    }

    /// The witness.
    ///
    /// # Errors
    /// When it is not at work.
    pub fn observer(&mut self) -> Result<&mut Observer, Error> {
        self.observer.as_mut().ok_or_else(|| Error::new("the witness is not at work"))
    }

    /// Lets steady traffic run for a while.
    ///
    /// # Errors
    /// When there is none.
    pub async fn quiet(&mut self) -> Result<Option<Stretch>, Error> {
        self.screen.detail("steady traffic, to compare with");
        self.observer()?.quiet().await.map(Some)
    }

    /// Builds a commit, and keeps what the build told.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn build(&mut self, commit: &str) -> Result<Artifact, Error> {
        self.screen.steps(&["base", "provision", "application"]);
        let lines = self.stage.api.build(self.project.folder(), commit).await?;
        let (told, artifact) = build::follow(lines, &self.screen).await?;
        self.built = told;
        self.artifacts.push(artifact.clone());
        Ok(artifact)
    }

    /// Builds a commit and declares it.
    ///
    /// # Errors
    /// When the build fails or the server refuses.
    pub async fn deploy(&mut self, commit: &str) -> Result<Declared, Error> {
        let artifact = self.build(commit).await?;
        self.stage.api.deploy(self.project.folder(), commit, &artifact).await
    }

    /// Follows a rollout to its end and keeps it. Proves that it ended as it was meant to.
    ///
    /// # Errors
    /// When the server stops telling.
    pub async fn finish(&mut self, declared: &Declared, quiet: Option<Stretch>, expected: Outcome) -> Result<Ended, Error> {
        let ended = rollout::follow(&self.stage.api, declared, &self.screen).await?;
        let outcome = |outcome| if outcome == Outcome::Live { "live" } else { "rejected" };
        let evidence = match (&ended.reason, ended.outcome) {
            (Some(reason), _) => reason.text.clone(),
            (None, Outcome::Live) => format!("it has all the traffic of {}", declared.service),
            (None, Outcome::Rejected) => "it was rejected".to_owned(),
        };
        self.prove(format!("{} ends {}", declared.release, outcome(expected)), ended.outcome == expected, evidence);
        let signed = serde_json::to_string_pretty(&ended.signed).map_err(|error| Error::new(error.to_string()))?;
        self.played.push(Played { receipt: ended.signed.receipt.clone(), signed, quiet, server_killed: false, expected });
        Ok(ended)
    }

    /// The names of the nodes that have traffic.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn serving_nodes(&self) -> Result<Vec<String>, Error> {
        let status = self.stage.api.service(SERVICE).await?;
        Ok(status.nodes.into_iter().filter(|node| node.weight.is_some_and(|weight| weight > 0)).map(|node| node.name).collect())
    }
}
