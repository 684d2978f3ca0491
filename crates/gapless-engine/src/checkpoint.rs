//! Places in the engine where a test can stop it: right before and right after each effect.

use crate::error::{Context, Error, ErrorKind};
use async_trait::async_trait;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_core::release::ReleaseNumber;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::watch;

/// The environment variable that [`HoldAt::from_environment`] reads: where to hold.
pub const HOLD_AT: &str = "GAPLESS_HOLD_AT";

/// The environment variable that names the file to which a hold writes one line.
pub const HOLD_MARKER: &str = "GAPLESS_HOLD_MARKER";

/// An effect that is about to be carried out, or was.
#[derive(Clone, Debug)]
pub struct EffectContext {
    /// The service.
    pub service: ServiceName,
    /// The release that the rollout it belongs to leads to; without a rollout, the live release.
    pub release: Option<ReleaseNumber>,
    /// Its name for ever.
    pub id: EffectId,
    /// What is to be done. Never a `Notify`: telling needs nothing of the world.
    pub effect: Effect,
}

/// Called around each effect. In production it does nothing.
#[async_trait]
pub trait Checkpoint: Send + Sync {
    /// The effect's intent is durable and nothing of it is done yet.
    async fn before(&self, context: &EffectContext);
    /// The effect was carried out, or could not be; no one knows yet.
    async fn after(&self, context: &EffectContext);
    /// The engine is about to decide on the next event of a service.
    async fn decide(&self, service: &ServiceName);
}

/// Does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheckpoint;

#[async_trait]
impl Checkpoint for NoCheckpoint {
    async fn before(&self, _context: &EffectContext) {}
    async fn after(&self, _context: &EffectContext) {}
    async fn decide(&self, _service: &ServiceName) {}
}

/// Before or after an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its intent is durable, nothing of it is done.
    Before,
    /// It is done, its outcome is not in the journal.
    After,
}

/// A place in a rollout: `<service>:<release>:<effect name>:<nth>:<before|after>`, such as `hello/web:r4:Route:2:after`: after the second Route that
/// belongs to the rollout to r4 was applied and before its outcome reaches the journal. The release `*` is any. Effects are counted from 1 and from the start of this program;
/// an effect that is tried again counts again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The service.
    pub service: ServiceName,
    /// The release of the rollout; `None` for any.
    pub release: Option<ReleaseNumber>,
    /// The effect's name, as [`Effect::name`] gives it.
    pub effect: String,
    /// Which of these effects, from 1.
    pub nth: u32,
    /// Before or after it.
    pub side: Side,
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || {
            Error::new(format!("`{text}` is no place in a rollout"))
                .kind(ErrorKind::Invalid)
                .hint("write `<service>:<release or *>:<effect>:<nth>:<before|after>`, such as `hello/web:r4:Route:2:after`")
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [service, release, effect, nth, side] = parts.as_slice() else { return Err(refuse()) };
        Ok(Place {
            service: service.parse().map_err(|_| refuse())?,
            release: release_or_any(release).ok_or_else(refuse)?,
            effect: (*effect).to_string(),
            nth: nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(refuse)?,
            side: match *side {
                "before" => Side::Before,
                "after" => Side::After,
                _ => return Err(refuse()),
            },
        })
    }
}

fn release_or_any(text: &str) -> Option<Option<ReleaseNumber>> {
    match text {
        "*" => Some(None),
        _ => Some(Some(ReleaseNumber(text.strip_prefix('r')?.parse().ok()?))),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        match self.release {
            Some(release) => write!(f, "{}:{release}:{}:{}:{side}", self.service, self.effect, self.nth),
            None => write!(f, "{}:*:{}:{}:{side}", self.service, self.effect, self.nth),
        }
    }
}

/// A testing aid: holds the engine for ever at one [`Place`], so that a test or the demo can kill the program exactly there. From the moment the effect begins, the
/// service decides nothing more: the journal cannot learn of the effect in another way.
#[derive(Debug)]
pub struct HoldAt {
    place: Place,
    marker: Option<PathBuf>,
    counted: AtomicU32,
    /// The effect of the place has begun.
    begun: AtomicBool,
    held: watch::Sender<bool>,
}

impl HoldAt {
    /// Holds at `place`, and writes one line with the place to the file `marker` once it does.
    #[must_use]
    pub fn new(place: Place, marker: Option<PathBuf>) -> Self {
        Self { place, marker, counted: AtomicU32::new(0), begun: AtomicBool::new(false), held: watch::Sender::new(false) }
    }

    /// The hold that the environment asks for ([`HOLD_AT`], [`HOLD_MARKER`]), if it asks for one.
    ///
    /// # Errors
    /// When the variable is no [`Place`].
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let Ok(place) = std::env::var(HOLD_AT) else { return Ok(None) };
        let place = place.parse::<Place>().context(|| format!("reading the environment variable {HOLD_AT}"))?;
        tracing::warn!(%place, "a testing aid will hold the engine there");
        Ok(Some(Self::new(place, std::env::var_os(HOLD_MARKER).map(PathBuf::from))))
    }

    /// Waits until the engine is held.
    pub async fn held(&self) {
        let _ = self.held.subscribe().wait_for(|held| *held).await;
    }

    fn is_place(&self, context: &EffectContext) -> bool {
        context.service == self.place.service
            && self.place.release.is_none_or(|release| context.release == Some(release))
            && context.effect.name() == self.place.effect
    }

    async fn hold(&self) {
        self.mark();
        self.held.send_replace(true);
        std::future::pending::<()>().await;
    }

    fn mark(&self) {
        let Some(path) = &self.marker else { return };
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| writeln!(file, "{}", self.place).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            tracing::error!(place = %self.place, marker = %path.display(), %error, "the marker of a hold could not be written");
        }
    }
}

#[async_trait]
impl Checkpoint for HoldAt {
    async fn before(&self, context: &EffectContext) {
        if !self.is_place(context) || self.counted.fetch_add(1, Ordering::SeqCst) + 1 != self.place.nth {
            return;
        }
        self.begun.store(true, Ordering::SeqCst);
        if self.place.side == Side::Before {
            self.hold().await;
        }
    }

    async fn after(&self, context: &EffectContext) {
        let begun = self.begun.load(Ordering::SeqCst);
        if begun && self.is_place(context) && self.counted.load(Ordering::SeqCst) == self.place.nth {
            self.hold().await;
        }
    }

    async fn decide(&self, service: &ServiceName) {
        let begun = self.begun.load(Ordering::SeqCst);
        if begun && *service == self.place.service {
            std::future::pending::<()>().await;
        }
    }
}

/// The release of an effect's rollout, for [`EffectContext`].
pub(crate) fn release_of(to: Option<GroupId>, live: Option<GroupId>) -> Option<ReleaseNumber> {
    to.or(live).map(|group| group.release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written() {
        for text in ["hello/web:r4:Route:2:after", "hello/web:*:EnsureGroup:1:before"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).ok().as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "hello/web:r4:Route:2",
            "hello:r4:Route:2:after",
            "hello/web:4:Route:2:after",
            "hello/web:r4:Route:0:after",
            "hello/web:r4:Route:1:beside",
        ] {
            assert!(text.parse::<Place>().is_err(), "`{text}` was taken");
        }
    }
}
