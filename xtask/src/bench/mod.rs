//! `make bench-proxy`: gapless's proxy beside HAProxy, nginx, Caddy and Apache, all in one run on one machine, with load by other people's tools.
//!
//! Everything that is started is a child of this process, on free ports of the loopback address and in a temporary folder, and ends with it. No figure is asserted.

mod http;
mod interrupt;
mod load;
mod pairs;
mod peer;
mod place;
mod process;
mod report;
mod scenario;
mod template;
mod usage;

use pairs::Rounds;
use peer::{Kind, Members, Setup};
use place::Place;
use process::{Program, said_by};
use report::Report;
use scenario::{SCENARIOS, Scenario};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Fewer pairs give no median to speak of.
const PAIRS: usize = 5;

/// How long each proxy is measured in each pair: some hundred thousand small requests.
const TIME: Duration = Duration::from_secs(5);

/// The same where it is only to be seen that everything works.
const QUICK_TIME: Duration = Duration::from_secs(1);

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
        if let Some(unknown) = self.only.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name)) {
            let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            return Err(format!("there is no {unknown}; there are: {}", names.join(", ")));
        }
        Ok(SCENARIOS.iter().filter(|scenario| self.only.is_empty() || self.only.iter().any(|name| name == scenario.name)).collect())
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
    let program = choice.program.clone().map_or_else(|| build(root, target), Ok)?;
    let program = fs::canonicalize(&program).map_err(|error| format!("{}: {error}", program.display()))?;
    interrupt::watch()?;
    process::adopt_orphans()?;
    let place = Place::new()?;
    let certificate = certificate(&place)?;
    let (_backends, members) = backends(root, &place)?;
    let setup = Setup { root, place: &place, program: &program, certificate: &certificate, members };
    let mut report = Report::new(&kinds)?;
    report.set("rounds", json!({ "pairs": rounds.pairs, "seconds": rounds.time.as_secs(), "load": "wrk, h2load" }));
    report.set("program", json!(program.file_name().map(|name| name.to_string_lossy())));
    let results = target.join("bench/proxy.json");
    for scenario in scenarios {
        report.add(scenario.name, &pairs::measure(scenario, &kinds, rounds, &setup)?);
        report.write(&results)?;
    }
    println!("\nwritten to {}", results.display());
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

/// The release as it is shipped.
fn build(root: &Path, target: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--package", "gapless", "--bin", "gapless"]).current_dir(root);
    match command.status() {
        Ok(status) if status.success() => Ok(target.join("release/gapless")),
        Ok(status) => Err(format!("building gapless: {status}")),
        Err(error) => Err(format!("building gapless: {error}")),
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
