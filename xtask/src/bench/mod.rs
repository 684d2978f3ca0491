//! `make bench-proxy`: gapless's proxy beside HAProxy, nginx, Caddy and Apache, all in one run on one machine, with load by other people's tools.
//!
//! Everything that is started is a child of this process, on free ports of the loopback address and in a temporary folder, and ends with it. No figure is asserted.

mod http;
mod interrupt;
mod load;
mod node;
mod pairs;
mod peer;
mod place;
mod process;
mod report;
mod scenario;
mod switch;
mod template;
mod usage;
mod witness;

use pairs::Rounds;
use peer::{Kind, Members, Setup};
use place::Place;
use process::{Program, said_by};
use report::Report;
use scenario::{SCENARIOS, Scenario};
use serde_json::{Map, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use switch::{Bench, Length, WAYS, Way};

/// Fewer pairs give no median to speak of.
const PAIRS: usize = 5;

/// How long each proxy is measured in each pair: some hundred thousand small requests.
const TIME: Duration = Duration::from_secs(5);

/// The same where it is only to be seen that everything works.
const QUICK_TIME: Duration = Duration::from_secs(1);

/// How often the nodes are switched: enough for thousands of requests that meet a switch.
const SWITCHES: usize = 50;

/// How often a proxy's own processes are replaced.
const UPGRADES: usize = 20;

/// The same where it is only to be seen that everything works.
const QUICK_TIMES: usize = 3;

/// The names of the parts that are no scenarios of steady load.
const SWITCH: &str = "switch";
const UPGRADE: &str = "upgrade";

/// What a certificate may take.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Once and briefly.
    pub quick: bool,
    /// Only these scenarios; empty: all.
    pub only: Vec<String>,
    /// Only these proxies; empty: all.
    pub peers: Vec<String>,
    /// How many alternating pairs.
    pub pairs: Option<usize>,
    /// How many switches and upgrades.
    pub times: Option<usize>,
    /// Our program instead of a release build of `gapless`.
    pub program: Option<PathBuf>,
}

impl Choice {
    /// From the words of the command line; none when they are not understood.
    #[must_use]
    pub fn parse(words: &[&str]) -> Option<Choice> {
        let mut choice = Choice::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--quick" => choice.quick = true,
                "--only" => choice.only.push(words.next()?.to_string()),
                "--peer" => choice.peers.push(words.next()?.to_string()),
                "--pairs" => choice.pairs = Some(words.next()?.parse().ok().filter(|pairs| *pairs > 0)?),
                "--times" => choice.times = Some(words.next()?.parse().ok().filter(|times| *times > 0)?),
                "--program" => choice.program = Some(words.next()?.into()),
                _ => return None,
            }
        }
        Some(choice)
    }

    fn rounds(&self) -> Rounds {
        let (pairs, time) = if self.quick { (1, QUICK_TIME) } else { (PAIRS, TIME) };
        Rounds { pairs: self.pairs.unwrap_or(pairs), time }
    }

    fn scenarios(&self) -> Result<Vec<&'static Scenario>, String> {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).chain([SWITCH, UPGRADE]).collect();
        if let Some(unknown) = self.only.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(format!("there is no {unknown}; there are: {}", names.join(", ")));
        }
        Ok(SCENARIOS.iter().filter(|scenario| self.wants(scenario.name)).collect())
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// How often something is done under load: so often, unless it is only to be seen that it works, or somebody says how often.
    fn length(&self, times: usize) -> Length {
        Length::new(self.times.unwrap_or(if self.quick { QUICK_TIMES } else { times }), self.quick)
    }

    /// Ours always takes part.
    fn kinds(&self) -> Result<Vec<Kind>, String> {
        let asked: Vec<Kind> = self
            .peers
            .iter()
            .map(|name| Kind::named(name).ok_or_else(|| format!("there is no {name}; there are: {}", Kind::ALL.map(Kind::name).join(", "))))
            .collect::<Result<_, _>>()?;
        Ok(Kind::ALL.into_iter().filter(|kind| asked.is_empty() || *kind == Kind::Gapless || asked.contains(kind)).collect())
    }
}

/// Measures what is asked for, prints it, and writes it to `bench/proxy.json` in the build's folder `target`.
///
/// # Errors
/// When something cannot be started or fails, or somebody asked to end. A bad result is a result.
pub fn run(root: &Path, target: &Path, choice: &Choice) -> Result<(), String> {
    let (scenarios, kinds, rounds) = (choice.scenarios()?, choice.kinds()?, choice.rounds());
    let program = choice.program.clone().map_or_else(|| build(root, target, "gapless", "gapless"), Ok)?;
    let program = fs::canonicalize(&program).map_err(|error| format!("{}: {error}", program.display()))?;
    interrupt::watch()?;
    process::adopt_orphans()?;
    let place = Place::new()?;
    let certificate = certificate(&place)?;
    let mut report = Report::new(&kinds)?;
    report.set("rounds", json!({ "pairs": rounds.pairs, "seconds": rounds.time.as_secs(), "load": "wrk, h2load" }));
    report.set("program", json!(program.file_name().map(|name| name.to_string_lossy())));
    let results = target.join("bench/proxy.json");
    if !scenarios.is_empty() {
        let (_backends, members) = backends(root, &place)?;
        let setup = Setup {
            root,
            place: &place,
            program: &program,
            certificate: &certificate,
            members,
            standby: Members::new(),
            retry_and_hold: true,
        };
        for scenario in scenarios {
            report.add(scenario.name, &pairs::measure(scenario, &kinds, rounds, &setup)?);
            report.write(&results)?;
        }
    }
    if choice.wants(SWITCH) || choice.wants(UPGRADE) {
        let witness = build(root, target, "gapless-load", "gapless-load-witness")?;
        let bench = Bench { root, place: &place, program: &program, witness: &witness, certificate: &certificate };
        under_load(choice, bench, &kinds, &mut report, &results)?;
    }
    println!("\nwritten to {}", results.display());
    Ok(())
}

/// Switches and upgrades of all these proxies.
fn under_load(choice: &Choice, bench: Bench, kinds: &[Kind], report: &mut Report, results: &Path) -> Result<(), String> {
    let ways: Vec<Way> = WAYS.iter().copied().filter(|way| kinds.contains(&way.kind)).collect();
    if choice.wants(SWITCH) {
        let mut found = Map::new();
        for way in &ways {
            found.insert(way.name.to_string(), switch::switches(bench, *way, choice.length(SWITCHES))?);
            report.set(SWITCH, found.clone().into());
            report.write(results)?;
        }
    }
    if choice.wants(UPGRADE) {
        let mut found = Map::new();
        for way in ways.iter().filter(|way| !way.naive) {
            found.insert(way.name.to_string(), switch::upgrades(bench, *way, choice.length(UPGRADES))?);
            report.set(UPGRADE, found.clone().into());
            report.write(results)?;
        }
    }
    Ok(())
}

/// Two nodes that all proxies share.
fn backends(root: &Path, place: &Place) -> Result<(Vec<Program>, Members), String> {
    let mut programs = Vec::new();
    let mut members = Members::new();
    for name in ["node-a", "node-b"] {
        let (program, address) = peer::backend(root, place, name)?;
        programs.push(program);
        members.push((name.to_string(), address));
    }
    Ok((programs, members))
}

/// A program of ours as it is released.
fn build(root: &Path, target: &Path, package: &str, program: &str) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--package", package, "--bin", program]).current_dir(root);
    match command.status() {
        Ok(status) if status.success() => Ok(target.join("release").join(program)),
        Ok(status) => Err(format!("building {program}: {status}")),
        Err(error) => Err(format!("building {program}: {error}")),
    }
}

/// A certificate for this run with its key, in one PEM file.
fn certificate(place: &Place) -> Result<PathBuf, String> {
    let (key, certificate, both) = (place.path("key.pem"), place.path("certificate.pem"), place.path("both.pem"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    said_by(&mut command, CERTIFICATE_PATIENCE)?;
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()));
    fs::write(&both, read(&certificate)? + &read(&key)?).map_err(|error| format!("writing {}: {error}", both.display()))?;
    Ok(both)
}
