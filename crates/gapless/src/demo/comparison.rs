//! The same change of version, with gapless and without, side by side.

use super::paint::{self, Paint, Tone, thousands};
use super::receipt::{Latencies, Rollout};
use super::seen::Stretch;
use gapless_load::{Recording, SMALL_CLASSES};

/// What one way of changing a version cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Requests that were looked at.
    pub requests: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// The failed ones by cause, in words.
    pub causes: String,
    /// The longest time between two successive successful small GETs, in milliseconds.
    pub longest_gap_ms: f64,
    /// Small GETs.
    pub latencies: Latencies,
}

impl Cost {
    /// What a rollout cost. Its failures are the witness's of the whole run, which is harder on us.
    pub fn of_rollout(rollout: &Rollout, recording: &Recording) -> Cost {
        Cost {
            requests: rollout.requests,
            failed: recording.report.failed,
            causes: causes(recording),
            longest_gap_ms: rollout.longest_gap_ms.unwrap_or(0.0),
            latencies: rollout.switch,
        }
    }

    /// What a swap without care cost in its stretch of a run of the witness. Its failures are those of the whole run too.
    pub fn of_swap(recording: &Recording, swap: Stretch) -> Cost {
        let log = &recording.samples;
        let quantiles = log.quantiles(&SMALL_CLASSES, swap.window());
        let ended = log.samples.iter().filter(|sample| swap.window().contains(sample.ended_us())).count();
        Cost {
            requests: ended as u64,
            failed: recording.report.failed,
            causes: causes(recording),
            longest_gap_ms: log.longest_gap_ms(&SMALL_CLASSES, swap.window()),
            latencies: Latencies::new(quantiles.p50_ms, quantiles.p99_ms, quantiles.max_ms),
        }
    }
}

fn causes(recording: &Recording) -> String {
    let named = recording.report.failed_by_cause.iter().map(|(cause, count)| format!("{count} {cause}"));
    named.collect::<Vec<_>>().join(", ")
}

/// The rows of the comparison: what, with gapless, without.
pub fn rows(ours: &Cost, naive: &Cost) -> Vec<[String; 3]> {
    let row = |name: &str, of: fn(&Cost) -> String| [name.to_owned(), of(ours), of(naive)];
    let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} ms"));
    vec![
        row("requests meanwhile", |cost| thousands(cost.requests)),
        row("failed", |cost| thousands(cost.failed)),
        row("causes", |cost| if cost.causes.is_empty() { "–".to_owned() } else { cost.causes.clone() }),
        row("longest gap", |cost| format!("{:.0} ms", cost.longest_gap_ms)),
        ["p99 of small GETs".to_owned(), ms(ours.latencies.p99_ms), ms(naive.latencies.p99_ms)],
        ["slowest small GET".to_owned(), ms(ours.latencies.max_ms), ms(naive.latencies.max_ms)],
    ]
}

/// The comparison as lines for the terminal.
pub fn draw(ours: &Cost, naive: &Cost, paint: Paint) -> Vec<String> {
    let rows = rows(ours, naive);
    let heading = ["".to_owned(), "gapless".to_owned(), "create before destroy".to_owned()];
    let width = |column: usize| rows.iter().chain([&heading]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1)];
    let line = |row: &[String; 3], tones: [Tone; 3]| {
        let cell = |column: usize| paint.text(tones[column], &row[column]);
        format!("  {}  {}  {}", paint::padded(&cell(0), widths[0]), paint::padded(&cell(1), widths[1]), cell(2))
    };
    let mut lines = vec![line(&heading, [Tone::Quiet; 3])];
    lines.extend(rows.iter().map(|row| line(row, tones(&row[0], naive))));
    lines
}

fn tones(name: &str, naive: &Cost) -> [Tone; 3] {
    let bad = name == "failed" && naive.failed > 0;
    [Tone::Quiet, if bad { Tone::Good } else { Tone::Strong }, if bad { Tone::Bad } else { Tone::Strong }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stand_side_by_side() {
        let ours =
            Cost { requests: 1_500, failed: 0, causes: String::new(), longest_gap_ms: 14.2, latencies: Latencies::new(1.0, 6.5, 20.0) };
        let naive = Cost {
            requests: 3_000,
            failed: 131,
            causes: "81 status-502, 50 truncated".to_owned(),
            longest_gap_ms: 214.0,
            latencies: Latencies::new(1.0, 90.0, 1_200.0),
        };
        let drawn = draw(&ours, &naive, Paint { colour: false }).join("\n");
        let expected = "                      gapless  create before destroy
  requests meanwhile  1,500    3,000
  failed              0        131
  causes              –        81 status-502, 50 truncated
  longest gap         14 ms    214 ms
  p99 of small GETs   6.5 ms   90.0 ms
  slowest small GET   20.0 ms  1200.0 ms";
        assert_eq!(drawn, expected);
    }
}
