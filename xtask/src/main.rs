//! Tasks for the people who develop gapless: `tidy` checks the rules that a compiler does not, `mutants` puts faults into the core and asks its tests
//! whether they notice, `prove` runs every proof there is, `bench-proxy` measures the proxy beside others.

mod bench;
mod fault;
mod generated;
mod mutants;
mod prove;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy
       cargo xtask mutants [--generated] [--quick] [--shard K/N] [--only NAME]... [--jobs N]
       cargo xtask prove [--seeds N]
       cargo xtask bench-proxy [--quick] [--only NAME]... [--peer NAME]... [--pairs N] [--times N] [--program PATH]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tidy"] => tidy(),
        ["mutants", options @ ..] => mutants(options),
        ["prove", options @ ..] => prove(options),
        ["bench-proxy", options @ ..] => bench_proxy(options),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn tidy() -> ExitCode {
    let findings = tidy::check(&repository());
    for finding in &findings {
        eprintln!("{finding}");
    }
    eprintln!("tidy: {} found", findings.len());
    ExitCode::from(u8::from(!findings.is_empty()))
}

fn mutants(options: &[&str]) -> ExitCode {
    let mut choice = mutants::Choice::default();
    let mut options = options.iter().copied();
    while let Some(option) = options.next() {
        match (option, if ["--generated", "--quick"].contains(&option) { None } else { options.next() }) {
            ("--generated", _) => choice.generated = true,
            ("--quick", _) => choice.quick = true,
            ("--only", Some(name)) => choice.only.push(name.to_string()),
            ("--shard", Some(text)) => match shard(text) {
                Some(shard) => choice.shard = shard,
                None => return usage(),
            },
            ("--jobs", Some(text)) => match text.parse() {
                Ok(jobs) if jobs > 0 => choice.jobs = jobs,
                _ => return usage(),
            },
            _ => return usage(),
        }
    }
    match mutants::run(&repository(), &target(), &choice) {
        Ok(tally) => {
            println!("{tally}");
            ExitCode::from(u8::from(!tally.is_complete()))
        }
        Err(problem) => {
            eprintln!("mutants: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// `0/4`: the first of four parts.
fn shard(text: &str) -> Option<(usize, usize)> {
    let (part, parts) = text.split_once('/')?;
    let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
    (part < parts).then_some((part, parts))
}

fn prove(options: &[&str]) -> ExitCode {
    let seeds = match options {
        [] => Some(prove::SEEDS),
        ["--seeds", count] => count.parse().ok().filter(|count| *count > 0),
        _ => None,
    };
    let Some(seeds) = seeds else { return usage() };
    match prove::run(&repository(), &target(), seeds) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in &problems {
                eprintln!("not proved: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

fn bench_proxy(options: &[&str]) -> ExitCode {
    let Some(choice) = bench::Choice::parse(options) else { return usage() };
    match bench::run(&repository(), &target(), &choice) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench-proxy: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The build's folder: nothing that a task makes is elsewhere.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}
