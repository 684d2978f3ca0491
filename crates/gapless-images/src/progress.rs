//! What a build tells while it runs.

use gapless_core::digest::Digest;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A part of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The minimal system, by mmdebstrap.
    Base,
    /// What only the build needs: sshd, Puppet.
    Tools,
    /// Packer and Puppet.
    Provision,
    /// The files of the commit.
    Application,
    /// The image's manifest.
    Image,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Base => "base",
            Phase::Tools => "tools",
            Phase::Provision => "provision",
            Phase::Application => "application",
            Phase::Image => "image",
        })
    }
}

/// Something that happened in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A phase began.
    Started(Phase),
    /// A line of what a program of the phase says.
    Line(Phase, String),
    /// A phase is over.
    Finished {
        /// Which.
        phase: Phase,
        /// Whether its result was there already, so that nothing was run.
        reused: bool,
        /// What it made.
        digest: Digest,
        /// How long it took.
        took: Duration,
    },
}

/// Is told each step as it happens, from any thread. It must return at once.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(Step) + Send + Sync>);

impl Listener {
    /// Calls `listen` for each step.
    pub fn new(listen: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listen))
    }

    /// Tells a step.
    pub fn tell(&self, step: Step) {
        (self.0)(step);
    }

    /// Tells a line of a phase.
    pub fn line(&self, phase: Phase, text: impl Into<String>) {
        self.tell(Step::Line(phase, text.into()));
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
