//! The receipts as a table for the terminal.

use super::paint::{self, Paint, Tone, duration, thousands};
use super::receipt::{Kind, Outcome, Rollout};

/// The columns' headings.
const HEADINGS: [&str; 12] = [
    "rollout",
    "outcome",
    "requests",
    "failed",
    "retried",
    "held",
    "cut",
    "in flight",
    "longest gap",
    "switch",
    "gone",
    "p99 steady → switch",
];

/// The table's lines.
pub fn draw(rollouts: &[Rollout], paint: Paint) -> Vec<String> {
    let rows: Vec<[String; 12]> = rollouts.iter().map(|rollout| row(rollout, paint)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| paint::width(&row[column])).chain([HEADINGS[column].chars().count()]).max().unwrap_or(0))
        .collect();
    let headings = HEADINGS.map(|heading| paint.text(Tone::Quiet, heading));
    let rule: String = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("──");
    let mut lines = vec![join(&headings, &widths), rule];
    lines.extend(rows.iter().map(|row| join(row, &widths)));
    lines
}

/// A line on the phases of each rollout, the longest named.
pub fn phases(rollouts: &[Rollout], paint: Paint) -> Vec<String> {
    rollouts
        .iter()
        .map(|rollout| {
            let reached = rollout.phases.named().into_iter().filter_map(|(name, took)| Some(format!("{name} {}", duration(took?))));
            let longest = rollout.phases.longest().map_or_else(String::new, |(name, _)| format!("   longest: {name}"));
            format!(
                "{}  {}{}",
                paint::padded(&title(rollout), 20),
                reached.collect::<Vec<_>>().join(" · "),
                paint.text(Tone::Quiet, &longest)
            )
        })
        .collect()
}

/// What a rollout was, in few words.
pub fn title(rollout: &Rollout) -> String {
    match (rollout.kind, &rollout.from) {
        (Kind::Deploy, None) => format!("first {}", rollout.to),
        (Kind::Deploy, Some(_)) => format!("deploy {}", rollout.to),
        (Kind::Rollback, _) => format!("rollback {}", rollout.to),
        (Kind::Eviction, _) => format!("eviction to {}", rollout.to),
    }
}

fn row(rollout: &Rollout, paint: Paint) -> [String; 12] {
    let outcome = match (rollout.outcome, rollout.server_killed) {
        (Outcome::Live, false) => paint.text(Tone::Good, "live"),
        (Outcome::Live, true) => paint.text(Tone::Good, "live, server killed"),
        (Outcome::Rejected, _) => paint.text(Tone::Bad, "rejected"),
    };
    let bad_above_zero = |count: u64| paint.text(if count == 0 { Tone::Good } else { Tone::Bad }, &thousands(count));
    let ms = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), duration);
    let quantile = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    [
        title(rollout),
        outcome,
        thousands(rollout.requests),
        bad_above_zero(rollout.failed),
        bad_above_zero(rollout.retried),
        bad_above_zero(rollout.held),
        bad_above_zero(rollout.cut),
        rollout.in_flight_at_switch.map_or_else(|| "–".to_owned(), thousands),
        rollout.longest_gap_ms.map_or_else(|| "–".to_owned(), |gap| format!("{gap:.0} ms")),
        ms(rollout.switch_ms),
        ms(rollout.gone_ms),
        format!("{} → {} ms", quantile(rollout.steady.p99_ms), quantile(rollout.switch.p99_ms)),
    ]
}

fn join(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| paint::padded(cell, *width));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::receipt::tests::rollout;
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let rollouts = [rollout("web-r2", Outcome::Live), rollout("web-r3", Outcome::Rejected)];
        let drawn = draw(&rollouts, Paint { colour: false }).join("\n");
        let expected = "\
rollout        outcome   requests  failed  retried  held  cut  in flight  longest gap  switch  gone   p99 steady → switch
─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
deploy web-r2  live      1,234     0       0        0     0    17         12 ms        612 ms  2.8 s  4.0 → 5.0 ms
deploy web-r3  rejected  1,234     0       0        0     0    –          12 ms        –       –      4.0 → 5.0 ms";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn phases_name_the_longest() {
        let lines = phases(&[rollout("web-r2", Outcome::Live)], Paint { colour: false });
        assert_eq!(
            lines,
            [
                "deploy web-r2         build 400 ms · boot 290 ms · gate 300 ms · shift 11 ms · drain 1.8 s · destroy 300 ms   longest: drain"
            ]
        );
    }
}
