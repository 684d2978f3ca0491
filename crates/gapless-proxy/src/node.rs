//! A node as one worker knows it, and the claim that a request has on it.

use crate::error::ProxyError;
use crate::health::{Health, Outcome, Verdict};
use crate::record::now_ms;
use crate::route::split_place;
use crate::sync::{Changes, lock};
use gapless_wire::route::{Check, Member, NodeStatus};
use hyper::header::HeaderValue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Names a [`Node`] inside one worker; never used again, so that nothing late can touch a later node of the same name.
pub(crate) type NodeKey = u64;

/// The share of a node whose slow start is over.
pub(crate) const WARM: u64 = 1000;
/// The least share of a node: a few requests have to reach it, or it would stay cold.
const COLD: u64 = 20;

/// How long a node that lost requests in a row is left alone, in milliseconds: long enough for a process that is being restarted, short enough for one that had bad luck.
const EJECTED_MS: u64 = 10_000;

/// How a node stands in the applied route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Named with a weight.
    Weighted = 0,
    /// Named with weight 0: checked, no traffic.
    Probed = 1,
    /// Not named any more.
    Left = 2,
}

/// What is asked of a node to see how it is.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) check: Check,
    /// The `Host` to ask with.
    pub(crate) host: String,
}

/// A node. It outlives its place in the route until its last request is over.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) service: Arc<str>,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) release: Arc<str>,
    pub(crate) release_header: HeaderValue,
    pub(crate) name_header: HeaderValue,
    /// A check is due at once, or the node left.
    pub(crate) check_now: Notify,
    checking: AtomicBool,
    check_over: Notify,
    left: AtomicBool,
    requests_in_flight: AtomicU32,
    idle_connections: AtomicU32,
    standing: AtomicU8,
    draining: AtomicBool,
    cut: AtomicBool,
    verdict: AtomicU8,
    /// Requests in a row that came to nothing.
    failed_requests: AtomicU32,
    /// Until then it is left alone, in milliseconds since the Unix epoch; and why.
    ejected_until_ms: AtomicU64,
    ejection: Mutex<String>,
    /// When it got its first share of the traffic.
    weighted_since: OnceLock<Instant>,
    health: Mutex<Health>,
    probe: Mutex<Arc<Probe>>,
    changes: Arc<Changes>,
}

impl Node {
    /// A node that nobody checked yet.
    ///
    /// # Errors
    /// When its name or release cannot stand in a header.
    pub(crate) fn new(
        key: NodeKey,
        service: Arc<str>,
        name: &str,
        member: &Member,
        host: &str,
        changes: Arc<Changes>,
    ) -> Result<Self, ProxyError> {
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| ProxyError::new(format!("`{text}` cannot stand in a header")));
        Ok(Self {
            key,
            service,
            name: name.to_string(),
            address: member.address,
            release: Arc::from(member.release.as_str()),
            release_header: header(&member.release)?,
            name_header: header(name)?,
            check_now: Notify::new(),
            checking: AtomicBool::new(false),
            check_over: Notify::new(),
            left: AtomicBool::new(false),
            requests_in_flight: AtomicU32::new(0),
            idle_connections: AtomicU32::new(0),
            standing: AtomicU8::new(Standing::Probed as u8),
            draining: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            verdict: AtomicU8::new(Verdict::Unknown as u8),
            failed_requests: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            ejection: Mutex::default(),
            weighted_since: OnceLock::new(),
            health: Mutex::new(Health::default()),
            probe: Mutex::new(Arc::new(probe_of(member, host))),
            changes,
        })
    }

    /// Whether it is the node that this member describes, so that its counts and its health go on.
    pub(crate) fn is(&self, member: &Member) -> bool {
        let used_again = self.is_draining() && member.weight > 0;
        self.address == member.address && *self.release == *member.release && !used_again
    }

    /// Takes over what another object knew of the same node.
    pub(crate) fn inherit(&self, other: &Node) {
        let health = lock(&other.health).clone();
        self.verdict.store(health.verdict as u8, Ordering::SeqCst);
        *lock(&self.health) = health;
    }

    pub(crate) fn set_probe(&self, member: &Member, host: &str) {
        *lock(&self.probe) = Arc::new(probe_of(member, host));
    }

    pub(crate) fn probe(&self) -> Arc<Probe> {
        lock(&self.probe).clone()
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        if standing == Standing::Weighted {
            self.weighted_since.get_or_init(Instant::now);
        }
        self.standing.store(standing as u8, Ordering::SeqCst);
    }

    pub(crate) fn is_weighted(&self) -> bool {
        self.standing.load(Ordering::SeqCst) == Standing::Weighted as u8
    }

    /// A connection to it may wait for the next request.
    pub(crate) fn may_idle(&self) -> bool {
        self.is_weighted() && !self.is_draining()
    }

    pub(crate) fn set_draining(&self) -> bool {
        !self.draining.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(crate) fn set_cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Its drain deadline has passed.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::SeqCst) {
            1 => Verdict::Passing,
            2 => Verdict::Failing,
            3 => Verdict::Late,
            _ => Verdict::Unknown,
        }
    }

    pub(crate) fn requests_in_flight(&self) -> u32 {
        self.requests_in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn idle_added(&self) {
        self.idle_connections.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn idle_removed(&self) {
        self.idle_connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// Takes a check's outcome in.
    pub(crate) fn note(&self, outcome: Outcome) {
        let probe = self.probe();
        let mut health = lock(&self.health);
        let news = health.note(outcome, &probe.check);
        self.verdict.store(health.verdict as u8, Ordering::SeqCst);
        drop(health);
        if news {
            self.changes.bump();
        }
    }

    /// A request found nobody listening: no more requests, and a check at once.
    pub(crate) fn note_refused(&self, reason: &str) {
        let mut health = lock(&self.health);
        let news = health.note_refused(reason);
        self.verdict.store(health.verdict as u8, Ordering::SeqCst);
        drop(health);
        if news {
            self.changes.bump();
        }
        self.check_now.notify_one();
    }

    /// A request came to nothing on it. After `limit` in a row it is left alone for a while, if it has equals that are not.
    pub(crate) fn note_failed_request(&self, limit: Option<u32>, reason: &str) {
        let failed = self.failed_requests.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if limit.is_none_or(|limit| failed < limit) {
            return;
        }
        self.failed_requests.store(0, Ordering::Relaxed);
        self.ejected_until_ms.store(now_ms() + EJECTED_MS, Ordering::Relaxed);
        tracing::warn!(node = self.name, failed, reason, "a node is left alone for a while");
        *lock(&self.ejection) = format!("{failed} requests in a row came to nothing, the last one: {reason}");
        self.changes.bump();
    }

    /// It lost requests in a row a short while ago.
    pub(crate) fn is_ejected(&self) -> bool {
        let until_ms = self.ejected_until_ms.load(Ordering::Relaxed);
        until_ms > 0 && now_ms() < until_ms
    }

    /// A request was answered by it.
    pub(crate) fn note_answered_request(&self) {
        if self.failed_requests.load(Ordering::Relaxed) > 0 {
            self.failed_requests.store(0, Ordering::Relaxed);
        }
    }

    /// Its share among its equals, of [`WARM`]: it grows from its first share on for as long as the start is to be slow.
    pub(crate) fn warmth(&self, slow_start: Duration) -> u64 {
        let Some(since) = self.weighted_since.get() else { return WARM };
        if slow_start.is_zero() {
            return WARM;
        }
        let part = since.elapsed().as_millis() * u128::from(WARM) / slow_start.as_millis().max(1);
        u64::try_from(part).unwrap_or(WARM).clamp(COLD, WARM)
    }

    /// It is named no more, for good: who comes back under its name is another object.
    pub(crate) fn set_left(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// Whether a check may begin. One that left is not checked any more; together with [`Self::set_left`], whoever looks afterwards sees the check or there is none.
    pub(crate) fn begin_check(&self) -> bool {
        self.checking.store(true, Ordering::SeqCst);
        let may = !self.left.load(Ordering::SeqCst);
        if !may {
            self.end_check();
        }
        may
    }

    pub(crate) fn end_check(&self) {
        self.checking.store(false, Ordering::SeqCst);
        self.check_over.notify_waiters();
    }

    /// Waits until no check of it runs.
    pub(crate) async fn checks_ended(&self) {
        loop {
            // It hears of every end from here on.
            let over = self.check_over.notified();
            if !self.checking.load(Ordering::SeqCst) {
                return;
            }
            over.await;
        }
    }

    /// A request or a check is on its way to it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.requests_in_flight() > 0 || self.checking.load(Ordering::SeqCst)
    }

    /// It has no traffic, and has begun to pass the checks that it needs for any.
    pub(crate) fn is_on_trial(&self) -> bool {
        !self.is_weighted() && lock(&self.health).is_short_of_passes(&self.probe().check)
    }

    pub(crate) fn never_passed(&self) -> bool {
        lock(&self.health).never_passed()
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let health = lock(&self.health).clone();
        NodeStatus {
            requests_in_flight: self.requests_in_flight(),
            idle_connections: self.idle_connections.load(Ordering::SeqCst),
            passes: health.passes,
            failures: health.failures,
            failures_after_answer: health.failures_after_answer,
            failure: health.failure,
            ejected: self.is_ejected().then(|| lock(&self.ejection).clone()),
            ready: self.is_weighted() && matches!(health.verdict, Verdict::Passing | Verdict::Unknown),
        }
    }
}

fn probe_of(member: &Member, place: &str) -> Probe {
    let host = match split_place(place).0 {
        "*" => "localhost",
        host => host,
    };
    Probe { check: member.check.clone(), host: host.to_string() }
}

/// A request's hold on a node: counted from the claim to the end of the answer's body, however that comes.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) node: Arc<Node>,
}

impl Claim {
    /// Counts a request. Only `Routes::claim` may call it, under its lock: see the crate's documentation.
    pub(crate) fn take(node: Arc<Node>) -> Self {
        node.requests_in_flight.fetch_add(1, Ordering::SeqCst);
        Self { node }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let before = self.node.requests_in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && !self.node.is_weighted() {
            self.node.changes.bump();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_the_host_without_its_path() {
        let check = Check { path: "/healthz".into(), interval_ms: 1000, timeout_ms: 1000, passes: 1, failures: 1 };
        let member = Member { address: ([127, 0, 0, 1], 80).into(), weight: 1, release: "web-r1".into(), check };
        for (place, host) in
            [("*", "localhost"), ("*/api", "localhost"), ("shop.example", "shop.example"), ("shop.example/api", "shop.example")]
        {
            assert_eq!(probe_of(&member, place).host, host, "{place}");
        }
    }
}
