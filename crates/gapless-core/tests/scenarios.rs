//! Every story in `tests/scenarios`, played plainly against its golden outcome, and again with every kind of accident.
//!
//! `UPDATE_GOLDEN=1` writes the golden outcomes anew.

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use world::engine::Mode;
use world::script::{Story, play};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn stories() -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = fs::read_dir(folder())
        .expect("the folder of scenarios can be listed")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).expect("a scenario can be read")))
        .collect();
    list.sort();
    assert!(list.len() >= 30, "only {} scenarios were found", list.len());
    list
}

fn golden(name: &str) -> PathBuf {
    folder().join(format!("{name}.golden"))
}

/// Plays a story under an accident and compares where it ends with the plain run.
fn same_end(name: &str, text: &str, mode: Mode, late: bool, plain: &Story) {
    let run = std::panic::catch_unwind(|| play(text, mode, late));
    let story = run.unwrap_or_else(|_| panic!("{name} fails under {mode:?}, late deliveries: {late}"));
    assert_eq!(
        story.engine.summary(),
        plain.engine.summary(),
        "{name} ends elsewhere under {mode:?}, late deliveries: {late}\n{}",
        story.engine.log.join("\n")
    );
}

/// What `make prove` reads: how many stories were played, and in which way.
fn tell(way: &str) {
    println!("scenarios: {} stories, {way}", stories().len());
}

/// Plays each story and again as `replay` does; all that fail are named.
fn each_story(way: &str, replay: impl Fn(&str, &str, &Story)) {
    let again = |name: &str, text: &str| replay(name, text, &play(text, Mode::Plain, false));
    let fails = |(name, text): &(String, String)| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| again(name, text))).is_err();
    let wrong: Vec<String> = stories().into_iter().filter(fails).map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "these stories end elsewhere when something goes wrong: {}", wrong.join(", "));
    tell(way);
}

#[test]
fn each_story_has_its_golden_outcome() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, text) in stories() {
        println!("playing {name}");
        let Ok(story) = std::panic::catch_unwind(|| play(&text, Mode::Plain, false)) else {
            wrong.push(format!("{name} does not end as it says"));
            continue;
        };
        let outcome = story.engine.log.join("\n") + "\n";
        if update {
            fs::write(golden(&name), &outcome).expect("a golden outcome can be written");
        }
        if outcome != fs::read_to_string(golden(&name)).unwrap_or_default() {
            wrong.push(format!("{name} differs from its golden outcome; if that is right, run with UPDATE_GOLDEN=1 and review"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    tell("as they are written");
}

#[test]
fn a_crash_after_any_record_changes_no_end() {
    each_story("with a crash after each record", |name, text, plain| {
        for record in 1..=plain.engine.journal.len() {
            same_end(name, text, Mode::CrashAt(record), false, plain);
        }
    });
}

#[test]
fn an_effect_whose_outcome_is_lost_changes_no_end() {
    each_story("with each outcome lost", |name, text, plain| {
        for outcome in 1..=plain.engine.outcomes {
            same_end(name, text, Mode::LoseOutcome(outcome), false, plain);
        }
    });
}

#[test]
fn effects_delivered_twice_change_no_end() {
    each_story("with each effect twice", |name, text, plain| same_end(name, text, Mode::Twice, false, plain));
}

#[test]
fn effects_delivered_again_at_the_very_end_change_nothing() {
    each_story("with every effect again at the end", |name, text, plain| same_end(name, text, Mode::Plain, true, plain));
}
