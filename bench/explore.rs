//! The long exploration of the core: every state of the modelled worlds, as far as time and memory go.
//!
//! `cargo bench -p gapless-core --bench explore`, which takes at most 10 minutes and 8 GiB on 2 cores. After `--`: `seconds=N` and `memory=GIB` set other limits, `only=WORDS` explores
//! the configurations with these words in their name.

#[path = "../crates/gapless-core/tests/model/mod.rs"]
mod model;

use model::configuration::{self, Configuration};
use model::explore::{Limits, Report, explore, memory};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Explorations at the same time: the cores of the machine that the limits are meant for.
const AT_ONCE: usize = 2;

/// Of the time for everything, what the last exploration needs to end well: its states are checked for where they lead.
const FOR_THE_END: u32 = 20;

/// What one of the small explorations may take of the time, at most one part in so many.
const PARTS: u32 = 12;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::args().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn main() -> ExitCode {
    let began = Instant::now();
    let whole = Duration::from_secs(setting("seconds").unwrap_or(600));
    let memory = (setting("memory").unwrap_or(8.0_f64) * f64::from(1 << 30) * 0.94) as u64;
    let only: String = setting("only").unwrap_or_default();
    let small = [configuration::blue_green(), configuration::strategies(), configuration::operations()].concat();
    let large = configuration::large();
    let chosen = |list: Vec<Configuration>| list.into_iter().filter(|known| known.name.contains(&only)).collect::<VecDeque<_>>();
    let deadline = began + whole - whole / FOR_THE_END;
    let shares = [(chosen(small), whole / PARTS), (chosen(large), whole)];
    let reports = Mutex::new(Vec::new());
    for (list, most) in shares {
        let list = Mutex::new(list);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| work(&list, most, deadline, memory, &reports));
            }
        });
    }
    conclude(&reports.into_inner().unwrap_or_default(), began)
}

/// Explores one configuration after the other, as long as there are some. The time is shared out evenly among what is left.
fn work(list: &Mutex<VecDeque<Configuration>>, most: Duration, deadline: Instant, memory: u64, reports: &Mutex<Vec<Report>>) {
    loop {
        let (next, left) = {
            let Ok(mut list) = list.lock() else { return };
            let left = list.len();
            (list.pop_front(), left)
        };
        let Some(configuration) = next else { return };
        let rounds = left.div_ceil(AT_ONCE).max(1) as u32;
        let time = (deadline.saturating_duration_since(Instant::now()) / rounds).min(most);
        let report = explore(&configuration, Limits { states: usize::MAX, time, memory });
        print(&report);
        if let Ok(mut reports) = reports.lock() {
            reports.push(report);
        }
    }
}

fn print(report: &Report) {
    let mut text = format!(
        "{}: {} states, {} transitions, depth {}, {} states of the core, {} at rest, {:.0} s, {} MiB, {}, {} violations",
        report.name,
        report.states,
        report.transitions,
        report.depth,
        report.cores,
        report.rests,
        report.seconds,
        memory().0 >> 20,
        if report.complete { "complete" } else { "bounded" },
        report.violations
    );
    text.push_str(&format!("\n    reached: {}", report.marks.iter().copied().collect::<Vec<_>>().join(", ")));
    for (fault, trace) in &report.traces {
        text.push_str(&format!("\n    {} is broken: {}", fault.rule, fault.evidence));
        for (number, line) in trace.iter().enumerate() {
            text.push_str(&format!("\n    {number:>4}. {line}"));
        }
    }
    println!("{text}");
}

fn conclude(reports: &[Report], began: Instant) -> ExitCode {
    let states: usize = reports.iter().map(|report| report.states).sum();
    let transitions: u64 = reports.iter().map(|report| report.transitions).sum();
    let violations: u64 = reports.iter().map(|report| report.violations).sum();
    let complete = reports.iter().filter(|report| report.complete).count();
    println!(
        "{complete} of {} configurations are complete, the others bounded; {:.0} s, {} MiB at most",
        reports.len(),
        began.elapsed().as_secs_f64(),
        memory().0 >> 20
    );
    println!("explored: {states} states, {transitions} transitions, {violations} violations");
    ExitCode::from(u8::from(violations > 0 || reports.is_empty()))
}
