//! The story of a rollout in plain words: each decision with its evidence and the rule behind it.

mod effect;
mod event;
mod fact;
mod reason;
mod rule;
mod state;
mod text;
mod time;

pub use effect::effect;
pub use event::event;
pub use reason::reason;
pub use state::{going_on, state_line};
pub(crate) use text::{analysed, queued};

use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, Outcome, RolloutKind};
use gapless_core::release::{Declaration, ReleaseNumber};
use gapless_core::time::Instant;
use gapless_wire::rollout::{self as wire, Step};

/// A release's name: `web-r7`.
#[must_use]
pub fn release_name(service: &ServiceName, release: ReleaseNumber) -> String {
    format!("{}-{release}", service.service())
}

/// A notice as the wire tells it. `release`: the one that its rollout goes to, where it is known.
#[must_use]
pub fn step(service: &ServiceName, at: Instant, notice: &Notice, release: Option<&Declaration>) -> Step {
    Step {
        at_ms: at.0,
        rollout: notice.rollout().map(|rollout| rollout.0),
        text: text::text(service, notice, release),
        rule: rule::rule(notice).to_string(),
        fact: fact::fact(service, notice),
    }
}

/// How a rollout ended.
#[must_use]
pub fn outcome(outcome: &Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Live => wire::Outcome::Live,
        Outcome::Rejected(_) => wire::Outcome::Rejected,
    }
}

/// Why a rollout was begun.
#[must_use]
pub fn kind(kind: RolloutKind) -> wire::RolloutKind {
    match kind {
        RolloutKind::Deploy => wire::RolloutKind::Deploy,
        RolloutKind::Rollback => wire::RolloutKind::Rollback,
        RolloutKind::Eviction => wire::RolloutKind::Eviction,
    }
}

/// `1 node`, `3 nodes`.
fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Names, one after the other; `nothing` when there is none.
fn list<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
