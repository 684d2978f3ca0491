//! gapless's own open-loop load, which never tries again: a program of its own, and what its recording says.

use crate::bench::node::LARGE_BYTES;
use crate::bench::process::Program;
use crate::bench::{interrupt, load::float};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Requests started each second: about half of what two cores carry with the witness, a proxy and two Apache nodes on them.
pub const RATE: u32 = 2500;

/// How long the witness may take to write its recording.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Classes whose times are compared: small GETs on kept connections and on fresh ones.
const SMALL: [&str; 2] = ["get-kept", "get-fresh"];

/// A witness at work.
pub struct Witness {
    program: Program,
    output: PathBuf,
}

impl Witness {
    /// Starts asking at `address`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, address: SocketAddr, folder: &Path) -> Result<Witness, String> {
        let (plan, output) = (folder.join("plan.json"), folder.join("recording.json"));
        fs::write(&plan, plan_for(address).to_string()).map_err(|error| format!("writing the plan: {error}"))?;
        let mut command = Command::new(program);
        command.arg(plan).arg(&output);
        let program = Program::start("the witness", &mut command, &folder.join("witness.log"), Signal::TERM)?;
        Ok(Witness { program, output })
    }

    /// Lets the requests in flight end, and reads what was recorded.
    ///
    /// # Errors
    /// When there is no recording.
    pub fn stop(mut self) -> Result<Recording, String> {
        self.program.signal(Signal::TERM)?;
        interrupt::wait_for("the witness's recording", STOP_PATIENCE, || Ok((!self.program.is_running()).then_some(())))?;
        let text = fs::read(&self.output).map_err(|error| format!("reading the recording: {error}"))?;
        let _ = fs::remove_file(&self.output);
        let whole: Value = serde_json::from_slice(&text).map_err(|error| format!("the recording cannot be read: {error}"))?;
        Ok(Recording::read(&whole))
    }
}

/// Kept and fresh connections, uploads that take a while, slow and large answers.
fn plan_for(address: SocketAddr) -> Value {
    let get = |name: &str, share: u32, path: &str, connection: &str, check: Value| json!({ "name": name, "share": share, "method": "GET", "path": path, "connection": connection, "check": check });
    let upload = |name: &str, share: u32, connection: &str| {
        json!({ "name": name, "share": share, "method": "POST", "path": "/upload", "connection": connection, "check": "complete",
            "body": { "upload": { "bytes": 100_000, "spread_ms": 300 } } })
    };
    json!({
        "target": { "url": format!("http://{address}") },
        "rate_per_second": RATE,
        "classes": [
            get(SMALL[0], 645, "/check.txt", "keep-alive", json!("self-digest")),
            get(SMALL[1], 300, "/check.txt", "one-shot", json!("self-digest")),
            upload("post-kept", 20, "keep-alive"),
            upload("post-fresh", 10, "one-shot"),
            get("slow-kept", 15, "/slow", "keep-alive", json!("complete")),
            get("slow-fresh", 5, "/slow", "one-shot", json!("complete")),
            get("large-kept", 5, "/large", "keep-alive", json!({ "sequence": { "bytes": LARGE_BYTES } })),
        ],
    })
}

/// Now, in microseconds since the Unix epoch, as the witness counts.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A span of time, in microseconds since the Unix epoch.
pub type Span = (u64, u64);

/// One request.
#[derive(Clone, Copy, Debug)]
struct Sample {
    class: usize,
    scheduled_us: u64,
    sent_us: u64,
    ended_us: u64,
    failed: bool,
}

/// What a witness recorded.
#[derive(Debug, Default)]
pub struct Recording {
    report: Value,
    classes: Vec<String>,
    samples: Vec<Sample>,
}

impl Recording {
    fn read(whole: &Value) -> Recording {
        let log = &whole["samples"];
        let classes = log["classes"].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_string)).collect();
        let samples = log["samples"].as_array().into_iter().flatten().map(sample).collect();
        Recording { report: whole["report"].clone(), classes, samples }
    }

    /// How many requests were started, and how many failed by which cause.
    #[must_use]
    pub fn totals(&self) -> Value {
        let by_class = self.report["by_class"].as_object().into_iter().flatten();
        let by_class: Map<String, Value> =
            by_class.map(|(name, class)| (name.clone(), json!({ "requests": class["requests"], "failed": class["failed"] }))).collect();
        let examples: Vec<&Value> = self.report["failure_examples"].as_array().into_iter().flatten().take(5).collect();
        json!({
            "requests": self.report["requests"],
            "failed": self.report["failed"],
            "failed_by_cause": self.report["failed_by_cause"],
            "failure_examples": examples,
            "late_starts": self.report["late_starts"],
            "stale_connections": self.report["stale_connections"],
            "by_class": by_class,
        })
    }

    /// Times of small GETs that were under way in one of these spans.
    #[must_use]
    pub fn small(&self, spans: &[Span]) -> Times {
        let under_way = |sample: &&Sample| spans.iter().any(|(from, until)| sample.scheduled_us < *until && sample.ended_us >= *from);
        let small = self.samples.iter().filter(|sample| self.is_small(sample) && !sample.failed);
        Times::of(small.filter(under_way).map(|sample| sample.ended_us - sample.scheduled_us).collect())
    }

    /// The longest time between two small answers that touches one of these spans, in milliseconds.
    #[must_use]
    pub fn longest_gap_ms(&self, spans: &[Span]) -> f64 {
        let mut ends: Vec<u64> =
            self.samples.iter().filter(|sample| self.is_small(sample) && !sample.failed).map(|sample| sample.ended_us).collect();
        ends.sort_unstable();
        let touching = |from: u64, until: u64| spans.iter().any(|span| from < span.1 && until > span.0);
        let gaps = ends.windows(2).filter(|pair| touching(pair[0], pair[1])).map(|pair| pair[1] - pair[0]);
        milliseconds(gaps.max().unwrap_or(0))
    }

    /// Requests in flight when these spans began, by class, in total.
    #[must_use]
    pub fn in_flight(&self, spans: &[Span]) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> = self.classes.iter().map(|name| (name.clone(), 0)).collect();
        for sample in &self.samples {
            let met = spans.iter().filter(|(from, _)| sample.sent_us <= *from && sample.ended_us > *from).count();
            if let Some(count) = self.classes.get(sample.class).and_then(|name| counts.get_mut(name)) {
                *count += met;
            }
        }
        counts
    }

    fn is_small(&self, sample: &Sample) -> bool {
        self.classes.get(sample.class).is_some_and(|name| SMALL.contains(&name.as_str()))
    }
}

fn sample(told: &Value) -> Sample {
    let number = |name: &str| told[name].as_u64();
    let scheduled_us = number("scheduled_us").unwrap_or(0);
    let ended_us = scheduled_us + number("latency_us").unwrap_or(0);
    Sample {
        class: number("class").and_then(|class| usize::try_from(class).ok()).unwrap_or(usize::MAX),
        scheduled_us,
        // What was never sent was never in flight.
        sent_us: number("from_send_us").map_or(ended_us, |from_send| ended_us.saturating_sub(from_send)),
        ended_us,
        failed: !told["failure"].is_null(),
    }
}

/// Times of many requests.
#[derive(Clone, Debug, Default)]
pub struct Times {
    sorted_us: Vec<u64>,
}

impl Times {
    fn of(mut times: Vec<u64>) -> Times {
        times.sort_unstable();
        Times { sorted_us: times }
    }

    /// That so many thousandths do not exceed, in milliseconds, by nearest rank.
    #[must_use]
    pub fn rank_ms(&self, thousandths: usize) -> f64 {
        let rank = (self.sorted_us.len() * thousandths).div_ceil(1000).max(1);
        milliseconds(self.sorted_us.get(rank - 1).copied().unwrap_or(0))
    }

    /// As they stand in the results.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "samples": self.sorted_us.len(),
            "p50_ms": self.rank_ms(500),
            "p99_ms": self.rank_ms(990),
            "p999_ms": self.rank_ms(999),
            "max_ms": self.rank_ms(1000),
        })
    }
}

/// Of microseconds.
#[must_use]
pub fn milliseconds(microseconds: u64) -> f64 {
    float(microseconds) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let sample = |class: u16, scheduled: u64, latency: u64, failure: Value| json!({ "class": class, "scheduled_us": scheduled, "latency_us": latency, "from_send_us": latency, "failure": failure });
        Recording::read(&json!({
            "report": { "requests": 4, "failed": 1, "by_class": {} },
            "samples": {
                "classes": ["get-kept", "slow-kept"],
                "samples": [sample(0, 1000, 500, Value::Null), sample(0, 2000, 1000, Value::Null), sample(0, 9000, 100, json!("reset")), sample(1, 0, 9000, Value::Null)],
            },
        }))
    }

    #[test]
    fn times_gaps_and_flights_are_counted_in_spans() {
        let recording = recording();
        let spans = [(2500, 4000)];
        assert_eq!(recording.small(&spans).sorted_us, [1000]);
        assert_eq!(recording.small(&[(0, u64::MAX)]).sorted_us, [500, 1000]);
        assert!((recording.longest_gap_ms(&spans) - 1.5).abs() < 1e-9);
        assert_eq!(recording.in_flight(&spans), BTreeMap::from([("get-kept".to_string(), 1), ("slow-kept".to_string(), 1)]));
        assert_eq!(recording.totals()["failed"], 1);
    }

    #[test]
    fn ranks_are_the_nearest() {
        let times = Times::of((1..=1000).map(|number| number * 1000).collect());
        assert!((times.rank_ms(990) - 990.0).abs() < 1e-9);
        assert!((times.rank_ms(1000) - 1000.0).abs() < 1e-9);
    }
}
