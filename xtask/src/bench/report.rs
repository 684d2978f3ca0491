//! The results: a table for people, and `bench/proxy.json` in the build's folder.

use crate::bench::load::float;
use crate::bench::pairs::{Measured, Run, Spread, json_of, ratios};
use crate::bench::peer::Kind;
use crate::bench::usage;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The scenario whose figures stand at the top of the results.
const YARDSTICK: &str = "small-64";

/// Everything that a run found.
#[derive(Debug, Default)]
pub struct Report {
    fields: Map<String, Value>,
    scenarios: Map<String, Value>,
}

impl Report {
    /// A report that says on what machine and with which versions it was made.
    ///
    /// # Errors
    /// When a peer does not say its version.
    pub fn new(kinds: &[Kind]) -> Result<Report, String> {
        let mut report = Report::default();
        let mut versions = Map::new();
        for kind in kinds {
            versions.insert(kind.name().to_string(), kind.version()?.into());
        }
        report.set("machine", usage::machine());
        report.set("versions", versions.into());
        Ok(report)
    }

    /// Puts a field into the results.
    pub fn set(&mut self, name: &str, value: Value) {
        self.fields.insert(name.to_string(), value);
    }

    /// Adds what a scenario came to, and prints its table.
    pub fn add(&mut self, scenario: &str, measured: &Measured) {
        println!("{}", table(scenario, measured));
        self.scenarios.insert(scenario.to_string(), json_of(measured));
        if scenario == YARDSTICK {
            self.yardstick(measured);
        }
    }

    fn yardstick(&mut self, measured: &Measured) {
        let medians = measured.iter().filter_map(|(kind, runs)| Some((kind.name().to_string(), json!(median(runs, Run::cpu_us)?))));
        self.fields.insert("cpu_us_per_request".to_string(), Value::Object(medians.collect()));
        for kind in [Kind::Haproxy, Kind::Nginx] {
            let ratio = Spread::of(ratios(measured, kind)).map(|spread| spread.json()["median"].clone());
            self.fields.insert(format!("ratio_to_{}", kind.name()), json!(ratio));
        }
    }

    /// Writes everything so far as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let mut whole = self.fields.clone();
        whole.insert("machine_at_the_end".to_string(), usage::machine());
        whole.insert("scenarios".to_string(), self.scenarios.clone().into());
        let text = format!("{:#}\n", Value::Object(whole));
        let written = fs::create_dir_all(path.parent().unwrap_or(path)).and_then(|()| fs::write(path, text));
        written.map_err(|error| format!("writing {}: {error}", path.display()))
    }
}

fn median(runs: &[Run], value: fn(&Run) -> f64) -> Option<f64> {
    Some(crate::bench::pairs::rounded(Spread::of(runs.iter().map(value))?.median))
}

fn table(scenario: &str, measured: &Measured) -> String {
    let mut lines = vec![format!(
        "\n{scenario:<17} {:>8} {:>17} {:>10} {:>9} {:>9} {:>9} {:>8} {:>7}  gapless to it",
        "CPU µs", "(least–most)", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "MiB", "failed"
    )];
    for (kind, runs) in measured {
        lines.push(row(*kind, runs).unwrap_or_else(|| format!("{:<17} not yet", kind.name())) + &ratio_text(measured, *kind));
    }
    lines.join("\n")
}

fn row(kind: Kind, runs: &[Run]) -> Option<String> {
    let cpu = Spread::of(runs.iter().map(Run::cpu_us))?;
    let middle = |value: fn(&Run) -> f64| median(runs, value).unwrap_or(0.0);
    Some(format!(
        "{:<17} {:>8.2} {:>17} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>8.1} {:>7}",
        kind.name(),
        cpu.median,
        format!("({:.2}–{:.2})", cpu.least, cpu.greatest),
        middle(|run| run.counted.per_second),
        middle(|run| float(run.counted.p50_us) / 1000.0),
        middle(|run| float(run.counted.p99_us) / 1000.0),
        middle(|run| float(run.counted.p999_us) / 1000.0),
        middle(|run| float(run.usage.memory_kib) / 1024.0),
        runs.iter().map(|run| run.counted.failed).sum::<u64>(),
    ))
}

fn ratio_text(measured: &Measured, kind: Kind) -> String {
    match Spread::of(ratios(measured, kind)).filter(|_| kind != Kind::Gapless) {
        Some(Spread { median, least, greatest }) => format!("  {median:.3} ({least:.3}–{greatest:.3})"),
        None => String::new(),
    }
}
