//! A canary that passes its health check and answers worse: the engine takes it back by what the proxy recorded of it, and nothing but its own answers is what people see of it.

use crate::fault::{SERVICE, assert_says, first_version, leaves_nothing, now_us, serving, under_load};
use crate::installation::{Ended, Installation, ServerSettings};
use crate::project::Project;
use gapless_load::{Cause, Plan, Recording, Sample, Target, Witness};
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{Fact, Outcome, Verdict};

/// Requests a second.
const RATE: u32 = 100;

/// What the canary's nodes break: the application's programs. The health check is not among them.
const BROKEN: [&str; 2] = ["upload", "slow"];

/// How the service moves. A fourth of some hundred requests says enough of a release that fails one in five of them; should a busy machine answer fewer, it is looked at again, a dozen times in all.
/// The latency decides nothing.
const ROLLOUT: &str = "\
  rollout {
    strategy = \"canary\"
    step {
      percent = 25
      pause   = \"16s\"
    }
    step {
      percent = 50
      pause   = \"16s\"
    }
    analysis {
      minimum_requests = 100
      error_margin     = \"1%\"
      latency_margin   = \"1000%\"
    }
";

/// The first version is live, and moves on as a canary.
async fn first(installation: &Installation) -> Project {
    let project = first_version(installation).await;
    project.edit("gapless.hcl", "  rollout {\n", ROLLOUT);
    project
}

/// A version whose nodes pass their health check and answer 500 where people use them.
fn broken_version(project: &Project) -> String {
    for program in BROKEN {
        project.edit(&format!("app/cgi/{program}"), "printf 'Content-Type", r"printf 'Status: 500\r\nContent-Type");
    }
    project.commit("Version 2, broken where no check looks")
}

/// One request in five asks one of the application's programs.
async fn load(installation: &Installation) -> Witness {
    let mut plan = Plan::standard(Target::address(installation.address, "localhost"));
    plan.rate_per_second = RATE;
    for (name, share) in [("small", 470), ("upload", 100), ("slow", 100)] {
        plan.classes.iter_mut().filter(|class| class.name == name).for_each(|class| class.share = share);
    }
    let witness = installation.witness_of(&plan).await;
    under_load(&witness, 200).await;
    witness
}

fn facts(receipt: &Receipt) -> impl Iterator<Item = &Fact> {
    receipt.steps.iter().filter(|step| step.rollout == Some(receipt.rollout)).map(|step| &step.fact)
}

/// The comparison ended the first step, and its evidence is the reason that people are told.
fn assert_taken_back(ended: Ended) {
    assert_eq!(ended.outcome, Outcome::Rejected);
    let reason = ended.reason.expect("a reason");
    assert_eq!(reason.kind, "analysis-failed", "{reason:#?}");
    assert_says(&reason.text, &["web-r2: ", " requests failed (", "web-r1 in the same", "worse than the allowed 1 point (p < 0.001)"]);

    let receipt = ended.receipt.expect("a receipt");
    assert_eq!(receipt.reason.as_ref(), Some(&reason), "the receipt gives another reason");
    let aborts = facts(&receipt).filter_map(|fact| match fact {
        Fact::Analysed { verdict: Verdict::Abort, evidence } => Some(evidence),
        _ => None,
    });
    let aborts: Vec<&String> = aborts.collect();
    assert!(matches!(aborts[..], [evidence] if reason.text.contains(evidence.as_str())), "{aborts:#?} for {reason:#?}");
    let steps = facts(&receipt).filter_map(|fact| match fact {
        Fact::CanaryStepBegan { step, percent, .. } => Some((*step, *percent)),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [(1, 25)], "the canary's steps");
    let shifted = facts(&receipt).any(|fact| matches!(fact, Fact::ShiftBegan { .. }));
    assert!(!shifted, "it got all of the traffic: {:#?}", receipt.steps);

    let measured = receipt.measured.expect("measured requests");
    let by_release = |release: &str| measured.by_release.get(release).copied().unwrap_or(0);
    assert!(by_release("web-r1") > by_release("web-r2") && by_release("web-r2") >= 100, "{measured:#?}");
    assert!(measured.by_status.get("5xx").is_some_and(|answers| *answers > 0), "{measured:#?}");
    assert_eq!((measured.failed, measured.retried, measured.held, measured.cut), (0, 0, 0, 0), "{measured:#?}");
    assert!(receipt.incomplete.is_empty(), "{:?}", receipt.incomplete);
}

/// What failed was answered by the canary's own nodes, with the application's own status; nothing that the product promises never to cause is among it.
fn assert_nothing_but_its_own_answers(recording: &Recording) {
    let report = &recording.report;
    assert_eq!(report.samples_dropped, 0);
    let is_its_own = |sample: &Sample| {
        let by_the_canary = sample.release.as_ref().is_some_and(|name| name.as_str() == "web-r2");
        by_the_canary && sample.status == Some(500) && sample.failure == Some(Cause::StatusOther)
    };
    let (its_own, others): (Vec<&Sample>, Vec<&Sample>) =
        recording.samples.samples.iter().filter(|sample| !sample.is_ok()).partition(|sample| is_its_own(sample));
    assert!(others.is_empty(), "{:?} {others:#?} {:#?}", report.failed_by_cause, report.failure_examples);
    assert!(!its_own.is_empty(), "the canary was asked for nothing that it breaks: {report:#?}");
}

/// The old release answers everything that was sent since then.
fn assert_all_by_the_old(recording: &Recording, since_us: u64) {
    let sent = recording.samples.samples.iter().filter(|sample| sample.sent_us().is_some_and(|sent| sent >= since_us));
    let (old, others): (Vec<&Sample>, Vec<&Sample>) =
        sent.partition(|sample| sample.is_ok() && sample.release.as_ref().is_some_and(|name| name.as_str() == "web-r1"));
    assert!(others.is_empty(), "{others:#?}");
    assert!(old.len() >= 100, "only {} requests after the end: too few to prove anything", old.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_passes_its_checks_and_answers_worse_is_taken_back_by_the_comparison() {
    let installation = Installation::start("canary", &ServerSettings::default()).await;
    let project = first(&installation).await;
    let before = serving(&installation, 3).await;
    let witness = load(&installation).await;

    let broken = broken_version(&project);
    let declared = installation.declare(&project, &broken).await;
    assert_taken_back(installation.ended(SERVICE, declared.rollout.expect("a rollout")).await);
    let over = now_us();
    let status = installation.status(SERVICE).await;
    assert!(status.rollout.is_none(), "{status:#?}");
    assert_eq!(status.live.map(|release| release.name).as_deref(), Some("web-r1"));
    let names: Vec<String> = status.nodes.into_iter().map(|node| node.name).collect();
    assert_eq!((&names, serving(&installation, 3).await), (&before, before.clone()), "the old nodes, and no others");
    under_load(&witness, 300).await;

    let recording = witness.stop().await.expect("the witness's recording");
    assert_nothing_but_its_own_answers(&recording);
    assert_all_by_the_old(&recording, over);
    leaves_nothing(installation);
}
