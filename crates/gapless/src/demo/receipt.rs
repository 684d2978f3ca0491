//! `receipt.json`: the demo's result as others read it, and the arithmetic behind it.

use gapless_wire::receipt as wire;
use gapless_wire::record::{Record, Slice};
use gapless_wire::rollout::{self, RolloutKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// What the witness counted.
    pub client: Client,
    /// What the proxy counted.
    pub proxy: Proxy,
    /// Every rollout, the oldest first.
    pub rollouts: Vec<Rollout>,
}

/// What the witness counted in the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Requests that it started.
    pub requests: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// The failed ones by cause.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Requests by class.
    pub by_class: BTreeMap<String, u64>,
}

/// What the proxy counted in the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Requests that ended.
    pub requests: u64,
    /// Of these, how many the promise counts as failed.
    pub failed: u64,
    /// The failed ones by cause.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Requests that were sent again to another node.
    pub retried: u64,
    /// Requests that waited because no node was ready.
    pub held: u64,
    /// Requests that were cut at a drain deadline.
    pub cut: u64,
    /// Connections that the kernel dropped at the listening sockets.
    pub listen_drops: u64,
}

/// Why a rollout was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A declaration changed.
    Deploy,
    /// An earlier release was asked for.
    Rollback,
    /// The live release's artifact was revoked.
    Eviction,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new release has the traffic.
    Live,
    /// The old release kept it.
    Rejected,
}

/// One rollout. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// `project/service`.
    pub service: String,
    /// Why it was begun.
    pub kind: Kind,
    /// The release that was live; none before the first.
    pub from: Option<String>,
    /// The release that was wanted.
    pub to: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Requests that ended at the proxy while it ran.
    pub requests: u64,
    /// Of these, how many the promise counts as failed.
    pub failed: u64,
    /// Of these, how many were sent again to another node.
    pub retried: u64,
    /// Of these, how many waited because no node was ready.
    pub held: u64,
    /// Of these, how many were cut at the drain deadline.
    pub cut: u64,
    /// Requests that were in flight on the old nodes when the switch was complete; none: it was never complete.
    pub in_flight_at_switch: Option<u64>,
    /// The longest time between two successive successful small GETs, as the witness saw it.
    pub longest_gap_ms: Option<f64>,
    /// From the artifact ready (a rollback: from its start) to the last acknowledgement of the route.
    pub switch_ms: Option<u64>,
    /// From the same instant to the last old node destroyed.
    pub gone_ms: Option<u64>,
    /// From the call for a build to the artifact.
    pub build_ms: Option<u64>,
    /// How long each phase took.
    pub phases: Phases,
    /// Small GETs in the quiet stretch before the rollout and its build.
    pub steady: Latencies,
    /// Small GETs from the rollout's start to its end.
    pub switch: Latencies,
    /// Whether the server was killed in the middle.
    pub server_killed: bool,
}

/// How long each phase of a rollout took, in milliseconds; none: not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// From the commit to the artifact.
    pub build: Option<u64>,
    /// The new nodes come up.
    pub boot: Option<u64>,
    /// The new nodes prove themselves.
    pub gate: Option<u64>,
    /// The route goes to every proxy.
    pub shift: Option<u64>,
    /// The old nodes end their last requests.
    pub drain: Option<u64>,
    /// The nodes that are not wanted any more are taken down.
    pub destroy: Option<u64>,
}

/// Latencies of small GETs as the witness saw them, in milliseconds; none: there was no such request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// Half of them were at most that slow.
    pub p50_ms: Option<f64>,
    /// 99 of 100 were at most that slow.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
}

impl Phases {
    /// Every phase with its name, in order.
    pub fn named(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("build", self.build),
            ("boot", self.boot),
            ("gate", self.gate),
            ("shift", self.shift),
            ("drain", self.drain),
            ("destroy", self.destroy),
        ]
    }

    /// The phase that took longest.
    pub fn longest(&self) -> Option<(&'static str, u64)> {
        self.named().into_iter().filter_map(|(name, took)| Some((name, took?))).max_by_key(|(_, took)| *took)
    }
}

impl Latencies {
    /// The figures of `count` samples, rounded to hundredths of a millisecond.
    pub fn new(p50_ms: f64, p99_ms: f64, max_ms: f64) -> Self {
        Self { p50_ms: Some(hundredths(p50_ms)), p99_ms: Some(hundredths(p99_ms)), max_ms: Some(hundredths(max_ms)) }
    }
}

/// Rounded to two digits behind the point: finer than any clock here is true.
pub fn hundredths(milliseconds: f64) -> f64 {
    (milliseconds * 100.0).round() / 100.0
}

/// What the witness saw of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Requests in flight on the old nodes when the switch was complete; none: it was never complete.
    pub in_flight_at_switch: Option<u64>,
    /// The longest time between two successive successful small GETs.
    pub longest_gap_ms: Option<f64>,
    /// In the quiet stretch before.
    pub steady: Latencies,
    /// From the rollout's start to its end.
    pub switch: Latencies,
}

/// A rollout as the file tells it: what the server signed, and what the witness saw of it.
pub fn rollout(signed: &wire::Receipt, seen: Seen, server_killed: bool) -> Rollout {
    let measured = signed.measured.clone().unwrap_or_default();
    Rollout {
        service: signed.service.clone(),
        kind: match signed.kind {
            RolloutKind::Deploy => Kind::Deploy,
            RolloutKind::Rollback => Kind::Rollback,
            RolloutKind::Eviction => Kind::Eviction,
        },
        from: signed.from.as_ref().map(|ran| ran.release.clone()),
        to: signed.to.release.clone(),
        outcome: match signed.outcome {
            rollout::Outcome::Live => Outcome::Live,
            rollout::Outcome::Rejected => Outcome::Rejected,
        },
        requests: measured.requests,
        failed: measured.failed,
        retried: measured.retried,
        held: measured.held,
        cut: measured.cut,
        in_flight_at_switch: seen.in_flight_at_switch,
        longest_gap_ms: seen.longest_gap_ms,
        switch_ms: signed.switch_ms,
        gone_ms: signed.gone_ms,
        build_ms: signed.build_ms,
        phases: phases(signed.phases),
        steady: seen.steady,
        switch: seen.switch,
        server_killed,
    }
}

fn phases(signed: wire::Phases) -> Phases {
    // The demo's rollouts are blue/green without hooks: they have no other phases.
    let wire::Phases { build, boot, gate, shift, drain, destroy, .. } = signed;
    Phases { build, boot, gate, shift, drain, destroy }
}

/// What the proxy's records say of the whole run.
pub fn proxy(records: &[Record]) -> Proxy {
    let mut proxy = Proxy::default();
    for record in records {
        proxy.listen_drops += record.listen_drops;
        for slice in &record.slices {
            proxy.add(slice);
        }
    }
    proxy
}

impl Proxy {
    fn add(&mut self, slice: &Slice) {
        self.requests += slice.requests;
        self.retried += slice.retried;
        self.held += slice.held;
        self.cut += slice.cut;
        for (cause, count) in &slice.failed {
            self.failed += count;
            *self.failed_by_cause.entry(cause.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A rollout of the demo with this outcome.
    pub fn rollout(to: &str, outcome: Outcome) -> Rollout {
        let live = |value: u64| Some(value).filter(|_| outcome == Outcome::Live);
        Rollout {
            service: "hello/web".to_owned(),
            kind: Kind::Deploy,
            from: Some("web-r1".to_owned()),
            to: to.to_owned(),
            outcome,
            requests: 1_234,
            failed: 0,
            retried: 0,
            held: 0,
            cut: 0,
            in_flight_at_switch: live(17),
            longest_gap_ms: Some(12.5),
            switch_ms: live(612),
            gone_ms: live(2_800),
            build_ms: Some(400),
            phases: Phases { build: Some(400), boot: Some(290), gate: Some(300), shift: live(11), drain: live(1_880), destroy: Some(300) },
            steady: Latencies::new(1.234, 4.0, 9.0),
            switch: Latencies::new(1.5, 5.0, 12.0),
            server_killed: false,
        }
    }

    fn ran(release: &str) -> wire::Ran {
        wire::Ran {
            release: release.to_owned(),
            artifact: "hello/web".to_owned(),
            version: 2,
            commit: None,
            image: "sha256:00".to_owned(),
            layers: BTreeMap::new(),
            declaration: "00".to_owned(),
        }
    }

    /// A signed receipt of an ordinary rollout.
    pub fn signed() -> wire::Receipt {
        let measured = wire::Measured { requests: 1_234, ..wire::Measured::default() };
        wire::Receipt {
            version: wire::RECEIPT_VERSION,
            installation: "a1b2c3".to_owned(),
            service: "hello/web".to_owned(),
            rollout: 2,
            kind: RolloutKind::Deploy,
            outcome: gapless_wire::rollout::Outcome::Live,
            reason: None,
            from: Some(ran("web-r1")),
            to: ran("web-r2"),
            started_ms: 1,
            ended_ms: 2,
            steps: Vec::new(),
            measured: Some(measured),
            switch_ms: Some(612),
            gone_ms: Some(2_800),
            build_ms: Some(400),
            outage_ms: None,
            phases: wire::Phases {
                build: Some(400),
                boot: Some(290),
                gate: Some(300),
                shift: Some(11),
                drain: Some(1_880),
                destroy: Some(300),
                ..wire::Phases::default()
            },
            longest_phase: Some("drain".to_owned()),
            server_restarts: 0,
            incomplete: Vec::new(),
        }
    }

    #[test]
    fn a_rollout_is_what_was_signed_and_what_was_seen() {
        let expected = rollout("web-r2", Outcome::Live);
        let seen = Seen { in_flight_at_switch: Some(17), longest_gap_ms: Some(12.5), steady: expected.steady, switch: expected.switch };
        assert_eq!(super::rollout(&signed(), seen, false), expected);
        assert_eq!(expected.phases.longest(), Some(("drain", 1_880)));
    }

    #[test]
    fn the_proxy_s_slices_add_up() {
        let failed = BTreeMap::from([("truncated".to_owned(), 2)]);
        let slice = Slice { requests: 10, failed, retried: 1, held: 3, cut: 4, ..Slice::default() };
        let record = Record { slices: vec![slice.clone(), slice], listen_drops: 5, ..Record::default() };
        let sum = proxy(&[record.clone(), record]);
        assert_eq!((sum.requests, sum.failed, sum.retried, sum.held, sum.cut, sum.listen_drops), (40, 8, 4, 12, 16, 10));
        assert_eq!(sum.failed_by_cause, BTreeMap::from([("truncated".to_owned(), 8)]));
    }

    #[test]
    fn the_file_has_exactly_the_agreed_shape() {
        let receipt = Receipt {
            client: Client { by_class: BTreeMap::from([("small".to_owned(), 3)]), requests: 3, ..Client::default() },
            proxy: Proxy { requests: 3, ..Proxy::default() },
            rollouts: vec![rollout("web-r2", Outcome::Live)],
        };
        let expected = r#"{"client":{"requests":3,"failed":0,"failed_by_cause":{},"by_class":{"small":3}},"proxy":{"requests":3,"failed":0,"failed_by_cause":{},"retried":0,"held":0,"cut":0,"listen_drops":0},"rollouts":[{"service":"hello/web","kind":"deploy","from":"web-r1","to":"web-r2","outcome":"live","requests":1234,"failed":0,"retried":0,"held":0,"cut":0,"in_flight_at_switch":17,"longest_gap_ms":12.5,"switch_ms":612,"gone_ms":2800,"build_ms":400,"phases":{"build":400,"boot":290,"gate":300,"shift":11,"drain":1880,"destroy":300},"steady":{"p50_ms":1.23,"p99_ms":4.0,"max_ms":9.0},"switch":{"p50_ms":1.5,"p99_ms":5.0,"max_ms":12.0},"server_killed":false}]}"#;
        assert_eq!(serde_json::to_string(&receipt).unwrap(), expected);
    }
}
