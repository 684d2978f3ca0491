//! Virtual nodes.

use super::proxy::Checked;
use crate::sometimes;
use gapless_core::digest::Digest;
use gapless_core::observation::Condition;
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use std::time::Duration;

/// How the nodes of an artifact version behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// From being created to its command running.
    pub start: Duration,
    /// From its command running to its first answer. Until then it refuses connections.
    pub boot: Duration,
    /// The status of its health checks.
    pub status: u16,
    /// Its command ends by itself.
    pub exit: Option<Exit>,
    /// It is made from this image and not from the declared one.
    pub image: Option<Digest>,
    /// It answers for so long, then refuses connections for as long, and so on.
    pub flaps: Option<Duration>,
    /// How long its release's tasks take; a worker's command takes as long to end when it is asked to.
    pub task: Duration,
    /// Its release's tasks end badly.
    pub task_fails: bool,
}

/// A command that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// After its start.
    pub after: Duration,
    /// With this code.
    pub code: i32,
    /// And these last words.
    pub output: String,
}

/// How nodes behave of which nothing else is said.
pub(super) static ORDINARY: Behaviour = Behaviour {
    start: Duration::from_millis(20),
    boot: Duration::from_millis(50),
    status: 200,
    exit: None,
    image: None,
    flaps: None,
    task: Duration::from_millis(300),
    task_fails: false,
};

impl Default for Behaviour {
    fn default() -> Self {
        ORDINARY.clone()
    }
}

/// One virtual node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) artifact: ArtifactVersion,
    pub(super) declared_image: Digest,
    pub(super) created: Instant,
    pub(super) condition: Condition,
    /// It runs and answers nobody; its requests do not end.
    pub(super) hung: bool,
    /// A worker is checked by its machine and not by the proxies.
    pub(super) worker: Option<Worker>,
}

/// What is special with a worker's node.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) checked: Checked,
    /// It was asked to end and does so then.
    pub(super) stops: Option<Instant>,
}

impl Node {
    pub(super) fn new(declaration: &ServiceDeclaration, now: Instant) -> Self {
        let worker = declaration.node.port.is_none().then(|| Worker { checked: Checked::new(&declaration.health, now), stops: None });
        Self {
            artifact: declaration.artifact_version,
            declared_image: declaration.image,
            created: now,
            condition: Condition::Starting,
            hung: false,
            worker,
        }
    }

    /// A worker is asked to end. The first time counts.
    pub(super) fn ask_to_end(&mut self, behaviour: &Behaviour, now: Instant, deadline: Duration) {
        if let Some(worker) = &mut self.worker {
            let takes = if self.hung { deadline } else { behaviour.task.min(deadline) };
            worker.stops.get_or_insert(now.after(takes));
        }
    }

    /// A worker checks itself. Whether that told something new.
    pub(super) fn check_itself(&mut self, behaviour: &Behaviour, now: Instant) -> bool {
        let answer = self.answer(behaviour, now);
        self.worker.as_mut().is_some_and(|worker| worker.checked.check(answer, now))
    }

    /// A worker that was asked to end and has not yet.
    pub(super) fn runs_out(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.stops.is_some()) && !self.has_exited()
    }

    /// What a health check gets, or a request: the status, or nothing when the connection is refused.
    pub(super) fn answer(&self, behaviour: &Behaviour, now: Instant) -> Option<u16> {
        let answers_from = self.created.after(behaviour.start + behaviour.boot);
        let refuses = behaviour.flaps.is_some_and(|period| {
            let since = now.since(answers_from).as_millis();
            (since / period.as_millis().max(1)) % 2 == 1
        });
        sometimes!("a node flaps", refuses && self.condition == Condition::Running);
        let answers = self.condition == Condition::Running && now >= answers_from && !refuses && !self.hung;
        answers.then_some(behaviour.status)
    }

    /// Moves on to `now`. Whether its condition changed.
    pub(super) fn advance(&mut self, behaviour: &Behaviour, now: Instant) -> bool {
        let stops = self.worker.as_ref().and_then(|worker| worker.stops);
        let next = match (&self.condition, &behaviour.exit) {
            (Condition::Exited { .. }, _) => return false,
            _ if stops.is_some_and(|at| at <= now) => Condition::Exited { code: Some(0), output: "asked to end".to_string() },
            (_, Some(exit)) if now >= self.created.after(behaviour.start + exit.after) => {
                Condition::Exited { code: Some(exit.code), output: exit.output.clone() }
            }
            (Condition::Starting, _) if now >= self.created.after(behaviour.start) => Condition::Running,
            _ => return false,
        };
        self.condition = next;
        true
    }

    pub(super) fn has_exited(&self) -> bool {
        matches!(self.condition, Condition::Exited { .. })
    }
}
