//! Generated faults: cargo-mutants names them, and they are tried as the deliberate ones are. Those that nobody notices have to stand, with an argument, in `docs/proof/survivors.md`.

use crate::fault::{Change, Fault};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where survivors are argued.
pub const SURVIVORS: &str = "docs/proof/survivors.md";

/// What a generated fault says of itself.
pub const SAYS: &str = "generated";

/// Every fault that cargo-mutants can put into the core.
///
/// # Errors
/// When cargo-mutants is not there, or says something that is not understood.
pub fn all(root: &Path) -> Result<Vec<Fault>, String> {
    let output = Command::new("cargo")
        .args(["mutants", "--list", "--json", "--package", "gapless-core"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("running cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("listing generated faults: {said}\nhint: `cargo install cargo-mutants --locked`"));
    }
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).map_err(|error| format!("reading cargo-mutants' list: {error}"))?;
    list.iter().map(|mutant| fault(root, mutant)).collect()
}

fn fault(root: &Path, mutant: &Value) -> Result<Fault, String> {
    let text_of = |value: &Value| value.as_str().map(str::to_string).ok_or_else(|| format!("not as expected: {mutant}"));
    let file = PathBuf::from(text_of(&mutant["file"])?);
    let old = fs::read_to_string(root.join(&file)).map_err(|error| format!("reading {}: {error}", file.display()))?;
    let place = |side: &str| {
        let position = &mutant["span"][side];
        let (line, column) = (position["line"].as_u64()?, position["column"].as_u64()?);
        offset(&old, usize::try_from(line).ok()?, usize::try_from(column).ok()?)
    };
    let (Some(from), Some(until)) = (place("start"), place("end")) else { return Err(format!("no place of {mutant}")) };
    let new = format!("{}{}{}", &old[..from], text_of(&mutant["replacement"])?, &old[until..]);
    let inside = file.strip_prefix(crate::mutants::CORE).map_err(|error| error.to_string())?.to_path_buf();
    let name = text_of(&mutant["name"])?;
    let name = name.strip_prefix(crate::mutants::CORE).unwrap_or(&name).trim_start_matches("/src/").to_string();
    Ok(Fault { says: SAYS.into(), name, changes: vec![Change { file: inside, old, new }] })
}

/// The byte at which a line and a column lie, both counted from 1, the column in characters.
fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let start = if line == 1 { 0 } else { text.match_indices('\n').nth(line.checked_sub(2)?)?.0 + 1 };
    let inside = text.get(start..)?.char_indices().nth(column.checked_sub(1)?)?.0;
    Some(start + inside)
}

/// A generated fault's name without its line and column, which change with every edit.
pub fn lasting(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(_), Some(_), Some(what)) => format!("{file}:{what}"),
        _ => name.to_string(),
    }
}

/// The survivors that are argued: what stands in backquotes at the beginning of a line of the list.
///
/// # Errors
/// When the page cannot be read.
pub fn argued(root: &Path) -> Result<Vec<String>, String> {
    Ok(listed(&page(root)?, "- `"))
}

/// The survivors that nobody has judged: the same in lines that begin with a star.
///
/// # Errors
/// When the page cannot be read.
pub fn unjudged(root: &Path) -> Result<Vec<String>, String> {
    Ok(listed(&page(root)?, "* `"))
}

fn page(root: &Path) -> Result<String, String> {
    let path = root.join(SURVIVORS);
    fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))
}

fn listed(page: &str, mark: &str) -> Vec<String> {
    page.lines().filter_map(|line| line.strip_prefix(mark)?.split('`').next()).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_line_and_column() {
        let text = "ab\ncäd\ne";
        assert_eq!(offset(text, 1, 1), Some(0));
        assert_eq!(offset(text, 2, 3), Some(6));
        assert_eq!(offset(text, 3, 1), Some(8));
        assert_eq!(offset(text, 4, 1), None);
    }

    #[test]
    fn what_is_argued_and_what_is_not_judged_are_told_apart() {
        let page = "# Survivors\n- `a.rs: x`: equivalent, as `y` is\n* `b.rs: z`\nnot - `c`\n";
        assert_eq!(listed(page, "- `"), ["a.rs: x"]);
        assert_eq!(listed(page, "* `"), ["b.rs: z"]);
    }

    #[test]
    fn a_name_outlasts_an_edit_above_it() {
        assert_eq!(lasting("canary.rs:153:13: delete match arm a::b in c::d"), "canary.rs: delete match arm a::b in c::d");
        assert_eq!(lasting("by-hand"), "by-hand");
    }
}
