//! The stories of all services, in memory: each is read from its journal once and then grows with what the engine tells.

use crate::journal::{self, Readable};
use gapless_core::name::ServiceName;
use gapless_core::notice::Notice;
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use gapless_engine::store::{Journal, Sequence};
use gapless_engine::{Engine, Told, engine};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

/// Everything that was told of a service, in order. It only grows at its end.
#[derive(Clone, Default)]
pub(crate) struct Story {
    pub(crate) facts: Arc<Vec<(Instant, Notice)>>,
    /// Why it begins late: what came before cannot be read.
    pub(crate) damage: Option<Error>,
}

/// The stories of all services.
pub(crate) struct Stories {
    journal: Arc<dyn Journal>,
    kept: Mutex<Kept>,
}

struct Kept {
    told: Receiver<Told>,
    by_service: BTreeMap<ServiceName, Known>,
}

/// A story, and the last record that its journal had when it was read.
struct Known {
    story: Story,
    read_until: Sequence,
}

impl Stories {
    pub(crate) fn new(engine: &Engine, journal: Arc<dyn Journal>) -> Self {
        let kept = Kept { told: engine.watch(), by_service: BTreeMap::new() };
        Self { journal, kept: Mutex::new(kept) }
    }

    /// The story of a service up to now: whoever was told of something finds it here.
    pub(crate) async fn of(&self, service: &ServiceName) -> Result<Story, Error> {
        let mut kept = self.kept.lock().await;
        kept.catch_up();
        if let Some(known) = kept.by_service.get(service) {
            return Ok(known.story.clone());
        }
        let Readable { records, damage } = journal::readable(&self.journal, service).await?;
        let facts = engine::story(&records).into_iter().map(|(_, at, notice)| (at, notice)).collect();
        let story = Story { facts: Arc::new(facts), damage };
        let read_until = records.last().map_or(Sequence(0), |(sequence, _)| *sequence);
        kept.by_service.insert(service.clone(), Known { story: story.clone(), read_until });
        Ok(story)
    }
}

impl Kept {
    /// Adds what was told since the last question.
    fn catch_up(&mut self) {
        loop {
            match self.told.try_recv() {
                Ok(told) => self.add(told),
                // What was missed is in the journals: they are read again when somebody asks.
                Err(TryRecvError::Lagged(_)) => self.by_service.clear(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn add(&mut self, told: Told) {
        let Some(known) = self.by_service.get_mut(&told.service) else { return };
        // What was told while the journal was being read stands in it already.
        if told.sequence > known.read_until {
            Arc::make_mut(&mut known.story.facts).push((told.at, told.notice));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::broadcast;

    fn told(sequence: u64, node: &str) -> Told {
        let notice = Notice::NodeReplaced { node: node.parse().expect("a node") };
        Told { service: "hello/web".parse().expect("a name"), sequence: Sequence(sequence), at: Instant(sequence), notice }
    }

    fn kept(told: Receiver<Told>) -> Kept {
        let known = Known { story: Story::default(), read_until: Sequence(4) };
        Kept { told, by_service: BTreeMap::from([("hello/web".parse().expect("a name"), known)]) }
    }

    #[test]
    fn what_the_journal_had_is_not_added_again_and_a_record_may_tell_twice() {
        let (tell, told_to) = broadcast::channel(8);
        let mut kept = kept(told_to);
        for news in [told(4, "r1-i1-n0"), told(5, "r1-i1-n1"), told(5, "r1-i1-n2")] {
            tell.send(news).expect("heard");
        }
        kept.catch_up();
        let known = kept.by_service.values().next().expect("kept");
        assert_eq!(known.story.facts.iter().map(|(at, _)| at.0).collect::<Vec<_>>(), [5, 5]);
    }

    #[test]
    fn a_story_with_a_hole_is_read_again() {
        let (tell, told_to) = broadcast::channel(1);
        let mut kept = kept(told_to);
        for sequence in 5..9 {
            tell.send(told(sequence, "r1-i1-n0")).expect("heard");
        }
        kept.catch_up();
        assert!(kept.by_service.is_empty());
    }
}
