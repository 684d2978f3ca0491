//! The command line is told as it is meant, and what makes no sense is refused.

use super::Cli;
use clap::{CommandFactory, Parser};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/help.golden.txt");

#[test]
fn the_help_of_every_command_reads_as_reviewed() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut told = command.render_help().to_string();
    for sub in command.get_subcommands_mut().filter(|sub| !["demo", "proxy-worker", "load"].contains(&sub.get_name())) {
        let help = sub.render_help();
        told += &format!("\n### {}\n{help}", sub.get_name());
        let name = sub.get_name().to_string();
        for below in sub.get_subcommands_mut() {
            let help = below.render_help();
            told += &format!("\n### {name} {}\n{help}", below.get_name());
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &told).expect("golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("golden file");
    let difference = told.lines().zip(golden.lines()).find(|(told, golden)| told != golden);
    assert!(told == golden, "run with UPDATE_GOLDEN=1 and review the difference, which begins with {difference:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    Cli::command().debug_assert();
    for line in [
        "gapless",
        "gapless deploi",
        "gapless deploy --artifact three",
        "gapless rollback web",
        "gapless proxy --listen here",
        "gapless proxy --listen 127.0.0.1:8080 status",
        "gapless proxy status --listen 127.0.0.1:8080",
        "gapless proxy upgrade --settings proxy.hcl",
        "gapless proxy relaod",
        "gapless receipt --key 00",
        "gapless backup",
        "gapless restore",
        "gapless logs r1-i1-n0 --build 3",
        "gapless scale",
        "gapless scale 0",
        "gapless scale many",
        "gapless revoke hello/web",
        "gapless revoke hello/web 3",
        "gapless revoke hello/web 3 --lift --reason x",
        "gapless replay --step --json",
    ] {
        let refused = Cli::try_parse_from(line.split(' ')).expect_err(line);
        assert_eq!(refused.exit_code(), 2, "{line}");
    }
}

#[test]
fn what_makes_sense_is_taken() {
    for line in [
        "gapless init shop --name shop",
        "gapless deploy --plan --json --state /tmp/x",
        "gapless deploy --artifact latest --no-wait",
        "gapless rollback web-r3",
        "gapless server --state /tmp/x --proxy /tmp/x/proxy.sock --cache /tmp/cache",
        "gapless proxy --state /tmp/p --listen 127.0.0.1:8080 --listen 127.0.0.1:8081",
        "gapless proxy",
        "gapless proxy --settings /etc/gapless/proxy.hcl",
        "gapless proxy reload",
        "gapless proxy reload --state /tmp/p --settings /etc/gapless/proxy.hcl",
        "gapless proxy upgrade --state /tmp/p",
        "gapless proxy status --state /tmp/p --json",
        "gapless backup /tmp/backup.tar --state /tmp/x --json",
        "gapless restore /tmp/backup.tar --state /tmp/x",
        "gapless probe http://127.0.0.1:8080/ --seconds 1",
        "gapless receipt --verify receipt.json --key 00",
        "gapless deploy --urgent",
        "gapless rollback r3 --force",
        "gapless pause --service web",
        "gapless cancel --no-wait --json",
        "gapless scale 5 --service web",
        "gapless revoke hello/web v3 --reason leaks",
        "gapless revoke hello/web 3 --lift",
        "gapless replay 4 --step",
        "gapless prune --dry-run --json",
    ] {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
