//! One service's task: events in order, each decision durable before anything is done about it.

use crate::checkpoint::{EffectContext, release_of};
use crate::declaration::ServiceDeclaration;
use crate::effect::{carry_out, failure, releases_of};
use crate::engine::{Parts, Told};
use crate::error::{Context, Error, ErrorKind};
use crate::platform::Declarations;
use crate::recovery::{self, Replayed, blocking};
use crate::store::{JournalRecord, Sequence};
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::{Event, Failure};
use gapless_core::invariant::{Violation, check};
use gapless_core::name::ServiceName;
use gapless_core::release::ReleaseNumber;
use gapless_core::rollout::{Refusal, Step, step};
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

/// The world is looked at after this time even if nothing seems to have changed: the bound on what a missed hint can cost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The world is not looked at more often than this because of a deadline: one that has passed may still wait for something to be seen.
const LOOK_LEAST: Duration = Duration::from_millis(10);

/// The longest that a look may take: wishes and outcomes wait for it.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// The first wait after the journal or the world refused. It doubles up to [`PAUSE_LIMIT`].
const PAUSE: Duration = Duration::from_millis(50);

/// The longest such wait: how long room may be there before the engine notices.
const PAUSE_LIMIT: Duration = Duration::from_secs(2);

/// Something a person wants of a service.
pub(crate) struct Wish {
    pub(crate) event: Event,
    pub(crate) reply: oneshot::Sender<Result<Taken, Error>>,
}

/// What came of an event.
pub(crate) enum Taken {
    /// It was refused.
    Refused(Refusal),
    /// It changed nothing.
    Unchanged(Arc<ServiceState>),
    /// It is durable, and what follows is on its way.
    Changed(Arc<ServiceState>),
}

/// What the task does next.
enum Turn {
    Stop,
    Ended(Result<(Id, Ended), JoinError>),
    Wish(Wish),
    Look,
}

/// An effect that was carried out, or could not be.
type Ended = (EffectId, Result<(), Failure>);

pub(crate) struct Service {
    parts: Parts,
    name: ServiceName,
    state: Arc<ServiceState>,
    last: Sequence,
    at: Instant,
    published: watch::Sender<Arc<ServiceState>>,
    troubled: watch::Sender<Option<Error>>,
    told: broadcast::Sender<Told>,
    declarations: BTreeMap<Digest, Arc<ServiceDeclaration>>,
    running: JoinSet<Ended>,
    tasks: HashMap<Id, EffectId>,
    /// Events that must not be lost and are not in the journal yet, the oldest first.
    unwritten: VecDeque<Event>,
    /// The journal failed so that nobody knows whether its last record is there.
    in_doubt: bool,
    pause: Option<Duration>,
    look: bool,
}

impl Service {
    pub(crate) fn new(
        parts: Parts,
        name: ServiceName,
        replayed: Replayed,
        published: watch::Sender<Arc<ServiceState>>,
        troubled: watch::Sender<Option<Error>>,
        told: broadcast::Sender<Told>,
    ) -> Self {
        let recovered = replayed.last != Sequence::default();
        Self {
            parts,
            name,
            state: Arc::new(replayed.state),
            last: replayed.last,
            at: replayed.at,
            published,
            troubled,
            told,
            declarations: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            unwritten: if recovered { VecDeque::from([Event::Restarted]) } else { VecDeque::new() },
            in_doubt: false,
            pause: None,
            look: recovered,
        }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Wish>, mut stopping: watch::Receiver<bool>) {
        self.settle().await;
        loop {
            match self.next_turn(&mut inbox, &mut stopping).await {
                Turn::Stop => break,
                Turn::Ended(end) => self.effect_ended(end).await,
                Turn::Wish(wish) => self.grant(wish).await,
                Turn::Look => self.look().await,
            }
        }
        // Refused from here on, while the last effects end.
        drop(inbox);
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(crate::engine::STOP_GRACE, rest).await.is_err() {
            tracing::warn!(service = %self.name, "effects that have not ended are carried out again at the next start");
        }
    }

    async fn next_turn(&mut self, inbox: &mut mpsc::Receiver<Wish>, stopping: &mut watch::Receiver<bool>) -> Turn {
        let until_look = wait_for_look(&self.parts, &self.name, &self.state, self.pause, self.look);
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); Turn::Stop }
            Some(end) = self.running.join_next_with_id() => Turn::Ended(end),
            wish = inbox.recv() => wish.map_or(Turn::Stop, Turn::Wish),
            () = until_look => Turn::Look,
        }
    }

    /// An outcome is not lost when the journal has no room for it: it waits.
    async fn effect_ended(&mut self, end: Result<(Id, Ended), JoinError>) {
        let (effect, result) = match end {
            Ok((task, ended)) => {
                self.tasks.remove(&task);
                ended
            }
            Err(error) => match self.tasks.remove(&error.id()) {
                Some(effect) => (effect, Err(Failure { reason: format!("it broke off: {error}"), is_final: false })),
                None => return,
            },
        };
        if let Err(failure) = &result {
            tracing::warn!(service = %self.name, %effect, reason = %failure.reason, "an effect could not be carried out");
        }
        self.look = true;
        self.unwritten.push_back(Event::EffectEnded { effect, result });
        self.settle().await;
    }

    async fn grant(&mut self, wish: Wish) {
        let taken = if self.settle().await { self.take(wish.event).await } else { Err(self.present_trouble()) };
        // The person may have gone away: the decision stands all the same.
        let _ = wish.reply.send(taken);
    }

    async fn look(&mut self) {
        if !self.settle().await {
            return;
        }
        let seen = tokio::time::timeout(LOOK_LIMIT, self.parts.platform.observe(&self.name)).await;
        match seen.unwrap_or_else(|_| Err(Error::new(format!("the world was not seen within {LOOK_LIMIT:?}")))) {
            Ok(seen) => {
                self.look = false;
                if let Err(error) = self.take(Event::Observed(seen)).await {
                    self.hesitate(error);
                } else {
                    self.go_on();
                }
            }
            Err(error) => self.hesitate(error.context(format!("looking at {}", self.name))),
        }
    }

    /// Writes what is still unwritten. Whether all of it is durable now.
    async fn settle(&mut self) -> bool {
        while let Some(event) = self.unwritten.front().cloned() {
            if let Err(error) = self.take(event).await {
                self.hesitate(error);
                return false;
            }
            self.unwritten.pop_front();
            self.go_on();
        }
        true
    }

    /// The engine's only way to change anything: decide, write, act.
    async fn take(&mut self, event: Event) -> Result<Taken, Error> {
        self.parts.checkpoint.decide(&self.name).await;
        if self.in_doubt {
            self.resolve_doubt().await?;
        }
        let now = self.parts.clock.now().max(self.at);
        let Step { state, effects, refusal } = step(&self.state, &event, now);
        if let Some(refusal) = refusal {
            return Ok(Taken::Refused(refusal));
        }
        if state == *self.state && effects.is_empty() {
            return Ok(Taken::Unchanged(self.state.clone()));
        }
        let record = Arc::new(JournalRecord { at: now, event, effects });
        let sequence = self.write(record.clone()).await?;
        self.act_on(sequence, &record, state).await;
        Ok(Taken::Changed(self.state.clone()))
    }

    async fn write(&mut self, record: Arc<JournalRecord>) -> Result<Sequence, Error> {
        let (journal, name) = (self.parts.journal.clone(), self.name.clone());
        let written = blocking(move || journal.append(&name, &record)).await;
        if let Err(error) = &written {
            self.in_doubt = error.error_kind() != ErrorKind::NoRoom;
        }
        written.context(|| format!("writing to the journal of {}", self.name))
    }

    /// After a failure that leaves open whether the record was written: reads the journal, and acts on the record if it is there.
    async fn resolve_doubt(&mut self) -> Result<(), Error> {
        let records = recovery::read(&self.parts, &self.name).await?;
        let known = self.last;
        for (sequence, record) in records.into_iter().filter(|(sequence, _)| *sequence > known) {
            let state = step(&self.state, &record.event, record.at).state;
            self.act_on(sequence, &record, state).await;
        }
        self.in_doubt = false;
        Ok(())
    }

    /// The record is durable: from here on it is so.
    async fn act_on(&mut self, sequence: Sequence, record: &JournalRecord, state: ServiceState) {
        let before = std::mem::replace(&mut self.state, Arc::new(state));
        self.last = sequence;
        self.at = record.at;
        self.look = true;
        self.published.send_replace(self.state.clone());
        let to = self.state.rollout.as_ref().or(before.rollout.as_ref()).map(|rollout| rollout.to);
        let release = release_of(to, self.state.live);
        let faulted = faulted(&before, record, &self.state);
        for (id, effect) in &record.effects {
            match (effect, faulted.get(id)) {
                (Effect::Notify(notice), _) => self.tell(sequence, record.at, notice, release),
                (_, None) => self.begin(*id, effect.clone(), release).await,
                (_, Some(violation)) => self.withhold(*id, violation),
            }
        }
    }

    /// An effect that breaks an invariant is not sent. That is a fault of gapless, and it is written down as the effect's end.
    fn withhold(&mut self, effect: EffectId, violation: &Violation) {
        tracing::error!(service = %self.name, %effect, %violation, "an effect was withheld: this is a fault of gapless, please report it");
        let failure = Failure { reason: format!("it was withheld: {violation}"), is_final: false };
        self.unwritten.push_back(Event::EffectEnded { effect, result: Err(failure) });
    }

    fn tell(&self, sequence: Sequence, at: Instant, notice: &gapless_core::notice::Notice, release: Option<ReleaseNumber>) {
        tracing::info!(service = %self.name, release = %label(&self.name, release), ?notice, "told");
        // Nobody listening is no fault: the journal keeps the story.
        let _ = self.told.send(Told { service: self.name.clone(), sequence, at, notice: notice.clone() });
    }

    async fn begin(&mut self, id: EffectId, effect: Effect, release: Option<ReleaseNumber>) {
        let declarations = self.declarations(&effect).await;
        let context = EffectContext { service: self.name.clone(), release, id, effect };
        let span =
            tracing::info_span!("effect", service = %self.name, release = %label(&self.name, release), %id, name = context.effect.name());
        let parts = self.parts.clone();
        let work = async move {
            parts.checkpoint.before(&context).await;
            let result = match declarations {
                Ok(declarations) => carry_out(&*parts.platform, &context, &declarations).await,
                Err(error) => Err(error),
            };
            parts.checkpoint.after(&context).await;
            (id, result.map_err(|error| failure(&error)))
        };
        let task = self.running.spawn(work.instrument(span));
        self.tasks.insert(task.id(), id);
    }

    async fn declarations(&mut self, effect: &Effect) -> Result<Declarations, Error> {
        let mut found = Declarations::new();
        for release in releases_of(effect) {
            let content = self.state.releases.get(&release).map(|declaration| declaration.content);
            let content = content.ok_or_else(|| Error::new(format!("there is no release {release} of {}", self.name)))?;
            if !self.declarations.contains_key(&content) {
                let records = self.parts.records.clone();
                let read = blocking(move || records.declaration(content)).await;
                let declaration = read.context(|| format!("reading the declaration of {release} of {}", self.name))?;
                self.declarations.insert(content, Arc::new(declaration));
            }
            found.insert(release, self.declarations[&content].clone());
        }
        Ok(found)
    }

    fn hesitate(&mut self, error: Error) {
        if self.pause.is_none() {
            tracing::error!(service = %self.name, %error, "the service cannot go on by itself; it is tried again");
        }
        self.pause = Some(self.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_LIMIT)));
        self.troubled.send_replace(Some(error));
    }

    fn go_on(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!(service = %self.name, "the service goes on");
            self.troubled.send_replace(None);
        }
    }

    fn present_trouble(&self) -> Error {
        self.troubled.borrow().clone().unwrap_or_else(|| Error::new("the journal cannot be written"))
    }
}

/// Returns when the world should be looked at.
async fn wait_for_look(parts: &Parts, name: &ServiceName, state: &ServiceState, pause: Option<Duration>, at_once: bool) {
    match pause {
        // Nothing tells when a disk has room again.
        Some(pause) => tokio::time::sleep(pause).await,
        None if at_once => {}
        None => {
            let until_deadline = state.next_deadline().map(|deadline| deadline.since(parts.clock.now()));
            let at_most = until_deadline.map_or(LOOK_INTERVAL, |until| until.clamp(LOOK_LEAST, LOOK_INTERVAL));
            parts.platform.changed(name, at_most).await;
        }
    }
}

/// The effects of a record that break an invariant, each on its own.
fn faulted(before: &ServiceState, record: &JournalRecord, state: &ServiceState) -> BTreeMap<EffectId, Violation> {
    let whole = Step { state: state.clone(), effects: record.effects.clone(), refusal: None };
    if check(before, &record.event, record.at, &whole).is_ok() {
        return BTreeMap::new();
    }
    let alone = |(id, effect): &(EffectId, Effect)| {
        let step = Step { effects: vec![(*id, effect.clone())], ..whole.clone() };
        check(before, &record.event, record.at, &step).err().map(|violation| (*id, violation))
    };
    record.effects.iter().filter_map(alone).collect()
}

/// A release, as it stands in log lines, tags and headers: `web-r7`.
fn label(service: &ServiceName, release: Option<ReleaseNumber>) -> String {
    release.map_or_else(|| service.service().to_string(), |release| format!("{}-{release}", service.service()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::node::{GroupId, InstanceId};
    use gapless_core::observation::Observation;
    use gapless_core::route::{Generation, Route, Weight};
    use std::collections::BTreeSet;

    #[test]
    fn only_the_effect_that_breaks_an_invariant_is_withheld() {
        let group = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };
        let (named, unknown) = (group.node(0), group.node(7));
        let route = Route { generation: Generation(3), members: BTreeMap::from([(named, Weight::EQUAL)]) };
        let before = ServiceState { route, ..ServiceState::default() };
        let destroy = |node| Effect::DestroyNodes { nodes: BTreeSet::from([node]) };
        let effects = vec![(EffectId(1), destroy(named)), (EffectId(2), destroy(unknown))];
        let mut state = ServiceState { pending: effects.iter().cloned().collect(), ..before.clone() };
        state.next.effects = EffectId(2);
        let proxies = BTreeMap::from([("one".to_string(), Some(Generation(3)))]);
        let event = Event::Observed(Observation { nodes: BTreeMap::new(), proxies });
        let record = JournalRecord { at: Instant(1), event, effects };
        let faulted = faulted(&before, &record, &state);
        assert_eq!(faulted.keys().collect::<Vec<_>>(), [&EffectId(1)], "{faulted:?}");
    }
}
