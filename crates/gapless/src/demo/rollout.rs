//! A rollout, followed line by line to its end.

use super::api::Api;
use super::fault;
use super::screen::{Screen, StepState};
use gapless_engine::error::Error;
use gapless_wire::client::Lines;
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::rollout::{Counts, Declared, Fact, Outcome, Reason, RolloutLine, Step};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the receipt may follow the end of its rollout: it waits for the proxy's last slice.
const RECEIPT_WITHIN: Duration = Duration::from_secs(10);

/// How often a receipt that is not there yet is asked for.
const RECEIPT_AGAIN: Duration = Duration::from_millis(100);

/// How a rollout ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Why, when it was rejected.
    pub reason: Option<Reason>,
    /// What the server signed.
    pub signed: SignedReceipt,
}

/// The number of the rollout that a declaration brought.
///
/// # Errors
/// When it brought none.
pub fn number(declared: &Declared) -> Result<u32, Error> {
    declared.rollout.ok_or_else(|| Error::new(format!("{} is what {} runs already: nothing happens", declared.release, declared.service)))
}

/// Follows a rollout to its end and shows it.
///
/// # Errors
/// When the server stops telling.
pub async fn follow(api: &Api, declared: &Declared, screen: &Screen) -> Result<Ended, Error> {
    let number = number(declared)?;
    screen.steps(&["boot", "gate", "shift", "drain", "destroy"]);
    let mut lines = api.events(&declared.service, number).await?;
    let mut shown = Shown::default();
    loop {
        match next(&mut lines).await? {
            RolloutLine::Step(step) => shown.step(&step, screen),
            RolloutLine::Counts(counts) => shown.counts(&counts, screen),
            RolloutLine::Baking { .. } => {}
            RolloutLine::Lost(problem) => return Err(fault::of_problem(&problem)),
            RolloutLine::End { outcome, reason, receipt } => {
                let signed = match receipt {
                    Some(signed) => *signed,
                    None => receipt_of(api, &declared.service, number).await?,
                };
                return Ok(Ended { outcome, reason, signed });
            }
        }
    }
}

async fn next(lines: &mut Lines) -> Result<RolloutLine, Error> {
    let line = lines.next().await.map_err(fault::of_client)?;
    line.ok_or_else(|| Error::new("the server told no end of the rollout"))
}

async fn receipt_of(api: &Api, service: &str, number: u32) -> Result<SignedReceipt, Error> {
    let deadline = Instant::now() + RECEIPT_WITHIN;
    loop {
        match api.receipt(service, number).await {
            Ok(signed) => return Ok(signed),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(RECEIPT_AGAIN).await,
        }
    }
}

/// How far the shown steps are: each begins with a fact and ends with another.
#[derive(Default)]
struct Shown {
    began_ms: BTreeMap<&'static str, u64>,
    gating: bool,
}

impl Shown {
    fn step(&mut self, step: &Step, screen: &Screen) {
        let (ends, begins) = edges(&step.fact);
        if let Some(name) = ends {
            let began_ms = self.began_ms.get(name).copied().unwrap_or(step.at_ms);
            let rejecting = matches!(step.fact, Fact::Rejecting { .. });
            let took_ms = step.at_ms.saturating_sub(began_ms);
            screen.step(name, if rejecting { StepState::Failed } else { StepState::Done(took_ms) });
        }
        if let Some(name) = begins {
            self.began_ms.insert(name, step.at_ms);
            screen.step(name, StepState::Running(None));
        }
        self.gating = begins == Some("gate") || (self.gating && ends != Some("gate"));
        screen.detail(&step.text);
    }

    fn counts(&self, counts: &Counts, screen: &Screen) {
        if self.gating && counts.nodes.wanted > 0 {
            screen.step("gate", StepState::Running(Some((counts.nodes.passing, counts.nodes.wanted))));
        }
    }
}

/// Which shown step a fact ends, and which it begins.
fn edges(fact: &Fact) -> (Option<&'static str>, Option<&'static str>) {
    match fact {
        Fact::RolloutStarted { .. } => (None, Some("boot")),
        Fact::NodesBooted { .. } => (Some("boot"), Some("gate")),
        Fact::GatePassed { .. } => (Some("gate"), None),
        Fact::ShiftBegan { .. } => (None, Some("shift")),
        Fact::Shifted { .. } => (Some("shift"), None),
        Fact::DrainBegan { .. } => (None, Some("drain")),
        Fact::Drained { .. } => (Some("drain"), Some("destroy")),
        Fact::Rejecting { .. } => (Some("gate"), Some("destroy")),
        Fact::RolloutEnded { .. } => (Some("destroy"), None),
        _ => (None, None),
    }
}
