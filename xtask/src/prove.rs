//! `make prove`: one proof after the other, and one line of figures at the end. Each figure is what the proof itself printed. Only the generated faults take too long to be tried here: what came of
//! them is looked up.

use crate::generated;
use crate::mutants::{self, Choice, Tally};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// How many seeds are simulated unless somebody wants another number: some minutes' worth.
pub const SEEDS: u64 = 10_000;

/// Fewer distinct states are no exploration, as the project's promise has it.
const LEAST_STATES: u64 = 100_000;

/// Fewer scenarios leave a strategy, an operation or a class of faults out.
const LEAST_SCENARIOS: u64 = 30;

/// Fewer deliberate faults say little of the tests.
const LEAST_MUTANTS: usize = 20;

/// In how many ways every scenario is played: as it is written, with a crash after each record, with the outcome of each effect lost, with every effect twice, and with every effect
/// again at the end. The three in the middle are the accidents at every step.
const WAYS: usize = 5;

/// What was proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    states: u64,
    scenarios: u64,
    seeds: u64,
    mutants: u64,
    kills: u64,
    requests: u64,
}

impl fmt::Display for Figures {
    /// Only what is proved has figures, so nothing failed and nothing was violated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { states, scenarios, seeds, mutants, kills, requests } = self;
        write!(
            f,
            "proved: {states} states, {scenarios} scenarios x 3, {seeds} seeds, {mutants} mutants caught of {mutants}, {kills} kills, {requests} requests, 0 failed, 0 violations"
        )
    }
}

/// Runs every proof, also after one has failed.
///
/// # Errors
/// Everything that is not proved.
pub fn run(root: &Path, target: &Path, seeds: u64) -> Result<Figures, Vec<String>> {
    let mut figures = Figures::default();
    let mut problems = Vec::new();
    let mut proof = |name: &str, result: Result<(), String>| {
        if let Err(problem) = result {
            eprintln!("not proved: {name}: {problem}");
            problems.push(format!("{name}: {problem}"));
        }
    };
    // First what takes longest, and is most easily disturbed by what else the machine does.
    proof("chaos", chaos(root).map(|(kills, requests)| (figures.kills, figures.requests) = (kills, requests)));
    proof("scenarios", scenarios(root).map(|count| figures.scenarios = count));
    proof("simulation", simulation(root, seeds).map(|count| figures.seeds = count));
    proof("exploration", exploration(root).map(|count| figures.states = count));
    proof("mutants", faults(root, target).map(|count| figures.mutants = count));
    proof("generated faults", generated_faults(root));
    if problems.is_empty() { Ok(figures) } else { Err(problems) }
}

fn scenarios(root: &Path) -> Result<u64, String> {
    let said = said_by(cargo(root, &["test", "--quiet", "--package", "gapless-core", "--test", "scenarios", "--", "--nocapture"]))?;
    let counts: Vec<u64> = lines_of(&said, "scenarios: ").iter().filter_map(|line| figure(line, "stories")).collect();
    let Some(least) = counts.iter().min().copied().filter(|_| counts.len() == WAYS) else {
        return Err(format!("{} of {WAYS} ways to play the scenarios say how many there were", counts.len()));
    };
    if counts.iter().any(|count| *count != least) || least < LEAST_SCENARIOS {
        return Err(format!("each way must play all scenarios, at least {LEAST_SCENARIOS}: {counts:?}"));
    }
    Ok(least)
}

fn simulation(root: &Path, seeds: u64) -> Result<u64, String> {
    let mut command = cargo(root, &["test", "--quiet", "--package", "gapless-platforms", "--test", "sim_seeds", "--", "--nocapture"]);
    command.env("GAPLESS_SEEDS", seeds.to_string());
    let said = said_by(command)?;
    let line = last_line_of(&said, "simulated: ")?;
    no_violations(line)?;
    match figure(line, "seeds") {
        Some(count) if count >= seeds => Ok(count),
        _ => Err(format!("{seeds} seeds were asked for: {line}")),
    }
}

fn exploration(root: &Path) -> Result<u64, String> {
    let said = said_by(cargo(root, &["bench", "--quiet", "--package", "gapless-core", "--bench", "explore"]))?;
    let line = last_line_of(&said, "explored: ")?;
    no_violations(line)?;
    match figure(line, "states") {
        Some(count) if count >= LEAST_STATES => Ok(count),
        _ => Err(format!("fewer than {LEAST_STATES} states: {line}")),
    }
}

fn faults(root: &Path, target: &Path) -> Result<u64, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let tally: Tally = mutants::run(root, target, &Choice { jobs, ..Choice::default() })?;
    println!("{tally}");
    if !tally.is_complete() || tally.all < LEAST_MUTANTS {
        return Err(format!("at least {LEAST_MUTANTS} deliberate faults, and all of them caught: {tally}"));
    }
    u64::try_from(tally.all).map_err(|error| error.to_string())
}

/// No generated fault is known to survive without an argument.
fn generated_faults(root: &Path) -> Result<(), String> {
    let unjudged = generated::unjudged(root)?;
    match unjudged.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} survive and nobody has judged them: {first}, … (see {})", unjudged.len(), generated::SURVIVORS)),
    }
}

/// How many kills there were, and how many requests meanwhile. None may have failed but those that the promise excludes.
fn chaos(root: &Path) -> Result<(u64, u64), String> {
    let mut command =
        cargo(root, &["test", "--quiet", "--package", "gapless", "--test", "system", "chaos", "--", "--nocapture", "--test-threads=1"]);
    command.env("GAPLESS_CHAOS", "whole");
    let said = said_by(command)?;
    let lines = lines_of(&said, "chaos: ");
    let sum = |unit: &str| lines.iter().filter_map(|line| figure(line, unit)).sum::<u64>();
    match (sum("kills"), sum("requests"), sum("failed")) {
        (0, _, _) | (_, 0, _) => Err(format!("{} tests said what they did, and not both kills and requests", lines.len())),
        (kills, requests, 0) => Ok((kills, requests)),
        (_, _, failed) => Err(format!("{failed} requests failed")),
    }
}

fn no_violations(line: &str) -> Result<(), String> {
    match figure(line, "violations") {
        Some(0) => Ok(()),
        _ => Err(format!("not without violations: {line}")),
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    println!("> cargo {}", arguments.join(" "));
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root);
    command
}

/// Runs a command that must end well; what it prints is shown and kept.
fn said_by(mut command: Command) -> Result<String, String> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let mut said = String::new();
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line.map_err(|error| format!("reading what it says: {error}"))?;
        println!("{line}");
        said = said + &line + "\n";
    }
    let status = child.wait().map_err(|error| format!("waiting for its end: {error}"))?;
    if status.success() { Ok(said) } else { Err(format!("it failed ({status}), see above")) }
}

/// What follows a mark, wherever in a line: the frame of tests may have written before it.
fn lines_of<'a>(said: &'a str, mark: &str) -> Vec<&'a str> {
    said.lines().filter_map(|line| line.split_once(mark)).map(|(_, rest)| rest).collect()
}

fn last_line_of<'a>(said: &'a str, mark: &str) -> Result<&'a str, String> {
    lines_of(said, mark).pop().ok_or_else(|| format!("it says nowhere `{mark}…`"))
}

/// The number before a unit in a line such as `7 kills, 120 requests, 0 failed`.
fn figure(line: &str, unit: &str) -> Option<u64> {
    let parts = line.split(", ").filter_map(|part| part.split_once(' '));
    let known: BTreeMap<&str, &str> = parts.filter_map(|(number, rest)| Some((rest.split_whitespace().next()?, number))).collect();
    known.get(unit)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_lines_of_the_proofs() {
        let said = "noise\ntest a ... explored: 12 states, 30 transitions, 0 violations\nexplored: 120 states, 300 transitions, 1 violations\nok\n";
        let line = last_line_of(said, "explored: ").expect("a line");
        assert_eq!(figure(line, "states"), Some(120));
        assert_eq!(figure(line, "transitions"), Some(300));
        assert_eq!(figure(line, "seeds"), None);
        assert!(no_violations(line).is_err());
        assert!(no_violations("5 seeds").is_err(), "a line that says nothing of violations proves nothing");
        assert!(last_line_of(said, "simulated: ").is_err());
    }

    #[test]
    fn the_last_line_is_as_promised() {
        let figures = Figures { states: 1, scenarios: 2, seeds: 3, mutants: 4, kills: 5, requests: 6 };
        assert_eq!(
            figures.to_string(),
            "proved: 1 states, 2 scenarios x 3, 3 seeds, 4 mutants caught of 4, 5 kills, 6 requests, 0 failed, 0 violations"
        );
    }
}
