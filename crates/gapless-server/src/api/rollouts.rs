//! Rollouts: lists, the story as it happens, explanations, receipts.

use super::Call;
use super::answer::{Answer, Teller, json, lines};
use super::{replays, services};
use crate::problem::{Refused, problem};
use crate::receipt::Account;
use crate::receipts;
use crate::server::Server;
use crate::story::{self, release_name};
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, Outcome, RolloutNumber};
use gapless_core::release::ReleaseNumber;
use gapless_core::service::{ServiceState, Stage};
use gapless_core::time::Instant;
use gapless_engine::Told;
use gapless_engine::error::Error;
use gapless_engine::store::Sequence;
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::replay::Replay;
use gapless_wire::rollout::{Counts, Explanation, NodeCounts, RolloutLine, RolloutSummary};
use hyper::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

/// How often a stream tells what was counted.
const COUNTS_EVERY: Duration = Duration::from_millis(250);

/// How long the end of a stream waits for the receipt.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn list(call: &Call, service: &str) -> Result<Response<Answer>, Refused> {
    let server = &call.server;
    let service = server.service(service)?;
    let mut found = Vec::new();
    for account in Account::told(&server.stories.of(&service).await?.facts) {
        found.push(summary(server, &service, &account).await?);
    }
    json(&found)
}

pub(super) async fn show(call: Call, service: &str, number: &str, noun: &str) -> Result<Response<Answer>, Refused> {
    let server = call.server;
    let service = server.service(service)?;
    // Its beginning may lie where the journal cannot be read, and what is yet to come can be told all the same.
    if let (Some(rollout), "events") = (in_progress(&server, &service, number), noun) {
        return Ok(events(server, service, rollout));
    }
    let account = account(&server, &service, number).await?;
    match noun {
        "events" => Ok(events(server, service, account.rollout)),
        "explain" => {
            let state = server.parts.engine.state(&service).unwrap_or_default();
            let release = state.declaration(account.to);
            let steps = account.facts.iter().map(|(at, notice)| story::step(&service, *at, notice, release)).collect();
            json(&Explanation { rollout: summary(&server, &service, &account).await?, steps })
        }
        "replay" => json(&replay(&server, &service, account.rollout).await?),
        "receipt" => json(&receipt(&server, &service, &account).await?),
        _ => Err(super::unknown(noun)),
    }
}

/// The rollout of this number, if it is the one in progress.
fn in_progress(server: &Server, service: &ServiceName, number: &str) -> Option<RolloutNumber> {
    let rollout = server.parts.engine.state(service)?.rollout.as_ref()?.number;
    (number == "latest" || number.parse() == Ok(rollout.0)).then_some(rollout)
}

async fn replay(server: &Server, service: &ServiceName, rollout: RolloutNumber) -> Result<Replay, Error> {
    let records = server.parts.engine.journal(service).await?;
    Ok(replays::replay(service, rollout, (Sequence(0), ServiceState::default()), &records))
}

async fn account(server: &Server, service: &ServiceName, number: &str) -> Result<Account, Refused> {
    let story = server.stories.of(service).await?;
    let accounts = Account::told(&story.facts);
    let count = accounts.len();
    let wanted = if number == "latest" { accounts.last().map(|account| account.rollout.0) } else { number.parse().ok() };
    accounts.into_iter().find(|account| Some(account.rollout.0) == wanted).ok_or_else(|| {
        if let Some(damage) = story.damage {
            return damage.context(format!("looking for rollout {number}")).into();
        }
        let hint =
            if count == 0 { "there was none yet: `gapless deploy`".into() } else { format!("its rollouts are numbered 1 to {count}") };
        Refused::not_found(format!("{service} has no rollout {number}"), hint)
    })
}

async fn receipt(server: &Server, service: &ServiceName, account: &Account) -> Result<SignedReceipt, Refused> {
    let what = format!("rollout {} of {service} has no receipt yet", account.rollout);
    let hint =
        if account.ended.is_none() { "it is in progress; a receipt is made at its end" } else { "it is being made; ask again in a moment" };
    receipts::stored(server, service, account.rollout).await?.ok_or_else(|| Refused::not_found(what, hint))
}

async fn summary(server: &Server, service: &ServiceName, account: &Account) -> Result<RolloutSummary, Error> {
    Ok(RolloutSummary {
        service: service.to_string(),
        number: account.rollout.0,
        kind: story::kind(account.kind),
        from: account.from.map(|release| release_name(service, release)),
        to: release_name(service, account.to),
        started_ms: account.started.0,
        ended_ms: account.ended.as_ref().map(|(at, _)| at.0),
        outcome: account.ended.as_ref().map(|(_, outcome)| story::outcome(outcome)),
        receipt: receipts::stored(server, service, account.rollout).await?.is_some(),
    })
}

/// The story of one rollout for one reader.
struct Stream {
    server: Arc<Server>,
    service: ServiceName,
    rollout: RolloutNumber,
    teller: Teller,
    started: Instant,
    /// The release that should be live.
    to: Option<ReleaseNumber>,
    /// How many notices of the service's story it has seen.
    seen: usize,
    /// That the bake window began was told.
    bakes: bool,
    /// The end of the bake window that was told last: a pause makes it later.
    baking: Option<Instant>,
}

fn events(server: Arc<Server>, service: ServiceName, rollout: RolloutNumber) -> Response<Answer> {
    let (teller, response) = lines();
    let mut stream = Stream { server, service, rollout, teller, started: Instant(0), to: None, seen: 0, bakes: false, baking: None };
    tokio::spawn(async move {
        if let Err(error) = stream.run().await {
            stream.teller.tell(&RolloutLine::Lost(problem(&error))).await;
        }
    });
    response
}

fn stopping() -> Error {
    Error::new("the server is stopping").hint("the rollout goes on when it is started again; `gapless status` picks up")
}

impl Stream {
    /// The story so far, then live. It ends with the rollout or with its reader; the rollout never ends with its reader.
    async fn run(&mut self) -> Result<(), Error> {
        let mut told = self.server.parts.engine.watch();
        if self.catch_up().await? {
            return Ok(());
        }
        let mut ticks = tokio::time::interval(COUNTS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            // Only what may be given up half way is waited for here; telling comes after, so that no line is told twice.
            let news = tokio::select! {
                () = self.teller.gone() => return Ok(()),
                () = self.server.stopped() => return Err(stopping()),
                news = told.recv() => Some(news),
                _ = ticks.tick() => None,
            };
            let over = match news {
                Some(news) => self.news(news).await?,
                None => !self.teller.tell(&RolloutLine::Counts(self.counts().await)).await,
            };
            if over {
                return Ok(());
            }
        }
    }

    /// Tells what the story has beyond what was told, and what is so at present. `true`: the stream is over.
    async fn catch_up(&mut self) -> Result<bool, Error> {
        let story = self.server.stories.of(&self.service).await?;
        for (at, notice) in story.facts.iter().skip(self.seen) {
            if self.tell(*at, notice).await? {
                return Ok(true);
            }
        }
        self.seen = self.seen.max(story.facts.len());
        Ok(!self.tell_baking().await)
    }

    /// Tells until when the way back is one step, if it is one now: a bake window of the story may be over. While it is paused nobody knows. `false`: the reader is gone.
    async fn tell_baking(&mut self) -> bool {
        let state = self.server.parts.engine.state(&self.service);
        let rollout = state.as_ref().and_then(|state| state.rollout.as_ref()).filter(|rollout| rollout.number == self.rollout);
        let until = match rollout.map(|rollout| (&rollout.stage, rollout.paused)) {
            Some((Stage::Bake { until }, None)) if self.bakes => *until,
            _ => return true,
        };
        if self.baking.replace(until) == Some(until) {
            return true;
        }
        let line = RolloutLine::Baking { until_ms: until.0, counts: self.counts().await };
        self.teller.tell(&line).await
    }

    async fn news(&mut self, news: Result<Told, RecvError>) -> Result<bool, Error> {
        match news {
            Ok(told) if told.service != self.service => Ok(false),
            Ok(_) => self.catch_up().await,
            Err(RecvError::Lagged(_)) => self.catch_up().await,
            Err(RecvError::Closed) => Err(Error::new("the engine has ended").hint("see the server's log")),
        }
    }

    /// Tells a notice, if it belongs to the rollout. `true`: the stream is over.
    async fn tell(&mut self, at: Instant, notice: &Notice) -> Result<bool, Error> {
        let of = notice.rollout();
        if let Notice::RolloutStarted { rollout, to, .. } = notice
            && *rollout == self.rollout
        {
            (self.started, self.to) = (at, Some(*to));
        }
        let mine = of == Some(self.rollout) || (of.is_none() && self.started > Instant(0));
        if !mine {
            return Ok(false);
        }
        let state = self.server.parts.engine.state(&self.service).unwrap_or_default();
        let release = self.to.and_then(|to| state.declaration(to));
        let reads = self.teller.tell(&RolloutLine::Step(story::step(&self.service, at, notice, release))).await;
        match notice {
            Notice::BakeBegan { .. } => self.bakes = true,
            Notice::RolloutEnded { outcome, .. } => {
                self.end(outcome).await?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(!reads)
    }

    async fn end(&self, outcome: &Outcome) -> Result<(), Error> {
        let receipt = self.receipt().await?.map(Box::new);
        let counts = self.counts().await;
        self.teller.tell(&RolloutLine::Counts(counts)).await;
        let reason = match outcome {
            Outcome::Live => None,
            Outcome::Rejected(why) => Some(story::reason(why)),
        };
        self.teller.tell(&RolloutLine::End { outcome: story::outcome(outcome), reason, receipt }).await;
        Ok(())
    }

    /// The receipt, once it is made.
    async fn receipt(&self) -> Result<Option<SignedReceipt>, Error> {
        let mut made = self.server.receipts_made.subscribe();
        let patience = tokio::time::Instant::now() + RECEIPT_PATIENCE;
        loop {
            if let Some(receipt) = receipts::stored(&self.server, &self.service, self.rollout).await? {
                return Ok(Some(receipt));
            }
            if !matches!(tokio::time::timeout_at(patience, made.changed()).await, Ok(Ok(()))) {
                return Ok(None);
            }
        }
    }

    async fn counts(&self) -> Counts {
        let server = &self.server;
        let now = server.parts.clock.now().0;
        let nodes = self.node_counts().await;
        Counts { nodes, ..server.keeper.counts(&self.service.to_string(), self.started.0, now) }
    }

    async fn node_counts(&self) -> NodeCounts {
        let Some(state) = self.server.parts.engine.state(&self.service) else { return NodeCounts::default() };
        let Some(group) = state.rollout.as_ref().filter(|rollout| rollout.number == self.rollout).map(|rollout| rollout.to) else {
            return NodeCounts::default();
        };
        let Ok(seen) = self.server.parts.platform.peek(&self.service).await else { return NodeCounts::default() };
        let wanted = state.size_of(group.release);
        services::count_nodes(&seen, group, wanted)
    }
}
