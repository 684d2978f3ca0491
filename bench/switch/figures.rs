//! What was measured: medians with their spread, as a table, as JSON, and as the last line.

use crate::cold::Started;
use crate::{NODES, RATE, Switched, last_answer};
use gapless_load::Recording;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// One cold start and one switch. All times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// What is measured, by name.
    pub times_ms: BTreeMap<&'static str, f64>,
    /// Requests that the proxies saw end during the rollout.
    pub requests: u64,
    /// Of these, those that the proxies count as failed, sent again, held or cut: none, in a planned rollout.
    pub disturbed: u64,
    #[serde(skip)]
    asked_us: u64,
    #[serde(skip)]
    replaced: Option<String>,
}

/// The median and the spread of one quantity, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    least: f64,
    quarter: f64,
    median: f64,
    three_quarters: f64,
    most: f64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    profile: String,
    cores: usize,
    nodes: u32,
    requests_per_second: u32,
    load_average_before: String,
    load_average_after: String,
    rounds: Vec<Round>,
    spreads_ms: BTreeMap<&'static str, Spread>,
    /// What the witness counted over the whole run.
    witness: Witnessed,
    /// The median switch in median cold starts.
    switch_ratio: f64,
    gone_ratio: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Witnessed {
    requests: u64,
    failed: u64,
    failed_by_cause: BTreeMap<String, u64>,
    slowest_ms: f64,
}

/// The quantities in the order of the table, with what they mean.
const QUANTITIES: &[(&str, &str)] = &[
    ("cold", "one node from nothing to its first 200"),
    ("cold made", "  until the platform said that it runs"),
    ("switch", "deploy asked for to all traffic on the new nodes"),
    ("gone", "deploy asked for to the last old node gone"),
    ("declare", "  to the declaration's answer"),
    ("boot", "  the rollout's start to all new nodes running"),
    ("gate", "  to the gate passed"),
    ("shift", "  to every proxy's acknowledgement"),
    ("drain", "  old nodes out of the routes to their last request over"),
    ("destroy", "  to the last old node destroyed"),
    ("last answer", "deploy asked for to the last answer of an old node, as the witness saw it"),
];

impl Round {
    /// What a round came to.
    pub fn new(cold: &Started, switched: &Switched) -> Round {
        let phases = &switched.receipt.phases;
        let mut times_ms = BTreeMap::from([
            ("cold", milliseconds(cold.took)),
            ("cold made", milliseconds(cold.made)),
            ("switch", milliseconds(switched.shifted)),
            ("gone", milliseconds(switched.gone)),
            ("declare", milliseconds(switched.declared)),
        ]);
        let named =
            [("boot", phases.boot), ("gate", phases.gate), ("shift", phases.shift), ("drain", phases.drain), ("destroy", phases.destroy)];
        times_ms.extend(named.iter().filter_map(|(name, took)| Some((*name, (*took)? as f64))));
        let measured = switched.receipt.measured.clone().unwrap_or_default();
        Round {
            times_ms,
            requests: measured.requests,
            disturbed: measured.failed + measured.retried + measured.held + measured.cut,
            asked_us: switched.asked_us,
            replaced: switched.replaced.clone(),
        }
    }
}

impl Figures {
    /// The figures of all rounds.
    pub fn new(mut rounds: Vec<Round>, recording: &Recording, load_average_before: String) -> Figures {
        for round in &mut rounds {
            let last = round.replaced.as_ref().and_then(|release| last_answer(recording, release, round.asked_us));
            round.times_ms.extend(last.map(|last| ("last answer", milliseconds(last))));
        }
        let values = |name: &str| rounds.iter().filter_map(|round| round.times_ms.get(name).copied()).collect::<Vec<f64>>();
        let spreads_ms: BTreeMap<&'static str, Spread> =
            QUANTITIES.iter().filter_map(|(name, _)| Some((*name, Spread::of(values(name))?))).collect();
        let median = |name: &str| spreads_ms.get(name).map_or(f64::NAN, |spread| spread.median);
        let report = &recording.report;
        Figures {
            profile: profile(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            nodes: NODES,
            requests_per_second: RATE,
            load_average_before,
            load_average_after: load_average(),
            witness: Witnessed {
                requests: report.requests,
                failed: report.failed,
                failed_by_cause: report.failed_by_cause.clone(),
                slowest_ms: report.by_class.values().map(|class| class.max_ms).fold(0.0, f64::max),
            },
            switch_ratio: median("switch") / median("cold"),
            gone_ratio: median("gone") / median("cold"),
            rounds,
            spreads_ms,
        }
    }

    /// Traffic was in flight during every switch, and nothing of it failed.
    pub fn sound(&self) -> bool {
        self.witness.failed == 0 && self.rounds.iter().all(|round| round.requests > 0 && round.disturbed == 0)
    }

    /// Writes everything as JSON.
    pub fn write(&self, path: &Path) {
        let text = serde_json::to_vec_pretty(self).expect("figures are JSON");
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("making the folder of the results");
        std::fs::write(path, text).expect("writing the results");
        println!("every round: {}", path.display());
    }

    /// Prints the table and the last line.
    pub fn show(&self) {
        println!(
            "{} rounds, {} nodes, {} requests/s, profile {}, {} cores, load average {} before and {} after",
            self.rounds.len(),
            self.nodes,
            self.requests_per_second,
            self.profile,
            self.cores,
            self.load_average_before,
            self.load_average_after
        );
        println!("{:<12} {:>8} {:>8} {:>8} {:>8} {:>8}  milliseconds", "", "least", "quarter", "median", "3/4", "most");
        for (name, meaning) in QUANTITIES {
            let Some(Spread { least, quarter, median, three_quarters, most }) = self.spreads_ms.get(name) else { continue };
            println!("{name:<12} {least:>8.1} {quarter:>8.1} {median:>8.1} {three_quarters:>8.1} {most:>8.1}  {meaning}");
        }
        let (requests, disturbed) = self.rounds.iter().fold((0, 0), |sum, round| (sum.0 + round.requests, sum.1 + round.disturbed));
        let fewest = self.rounds.iter().map(|round| round.requests).min().unwrap_or(0);
        println!("requests during rollouts: {requests}, at least {fewest} in each; failed, sent again, held or cut: {disturbed}");
        let Witnessed { requests, failed, failed_by_cause, slowest_ms } = &self.witness;
        println!("the witness: {requests} requests, {failed} failed {failed_by_cause:?}, slowest answer {slowest_ms:.1} ms");
        println!("switch: {:.2} x cold start, gone: {:.2} x", self.switch_ratio, self.gone_ratio);
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Between two values in proportion, so that the median of an even number is the middle of both.
        let at = |part: f64| {
            let place = last as f64 * part;
            let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Spread { least: values[0], quarter: at(0.25), median: at(0.5), three_quarters: at(0.75), most: values[last] })
    }
}

/// The load of the machine over 1, 5 and 15 minutes: others may compile beside.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join("/")
}

/// How the measured program was compiled: the folder that cargo puts it into.
fn profile() -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_gapless")).parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if folder == "debug" { "dev (as for the demo)".to_owned() } else { folder.into_owned() }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
