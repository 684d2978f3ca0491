//! Deliberate faults: small text files that say what is replaced by what, and what that breaks.
//!
//! ```text
//! Nodes are destroyed before every proxy acknowledged a route that does not name them.
//!
//! in src/leaving.rs
//! replace
//!     the lines as they are
//! by
//!     the lines as a careless hand would have them
//! end
//! ```
//!
//! A file may hold several such replacements; all of them make one fault. What is replaced must occur exactly once, so that a fault follows the code or says that it does not.

use std::fs;
use std::path::{Path, PathBuf};

/// A deliberate fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of its file, without the ending.
    pub name: String,
    /// What it is, in a sentence.
    pub says: String,
    /// What has to be done to the sources.
    pub changes: Vec<Change>,
}

/// One replacement.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The file, from the folder of the crate.
    pub file: PathBuf,
    /// What stands there.
    pub old: String,
    /// What shall stand there.
    pub new: String,
}

/// Every fault in a folder, in the order of their names.
///
/// # Errors
/// When a file cannot be read or is not as it has to be.
pub fn all(folder: &Path) -> Result<Vec<Fault>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("listing {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "fault"));
    files.sort();
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Fault, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &text).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// What a file of faults says.
///
/// # Errors
/// The line that is not understood.
pub fn parse(name: &str, text: &str) -> Result<Fault, String> {
    let mut lines = text.lines().enumerate();
    let mut fault = Fault { name: name.to_string(), says: String::new(), changes: Vec::new() };
    while let Some((at, line)) = lines.next() {
        match line.strip_prefix("in ") {
            Some(file) => {
                expect(lines.next(), "replace")?;
                let old = block(&mut lines, "by")?;
                let new = block(&mut lines, "end")?;
                fault.changes.push(Change { file: PathBuf::from(file), old, new });
            }
            None if fault.changes.is_empty() => fault.says = format!("{} {line}", fault.says).trim().to_string(),
            None if line.trim().is_empty() => {}
            None => return Err(format!("line {}: expected `in FILE`", at + 1)),
        }
    }
    match (fault.says.is_empty(), fault.changes.is_empty()) {
        (true, _) => Err("no sentence says what the fault is".to_string()),
        (_, true) => Err("nothing is replaced".to_string()),
        _ => Ok(fault),
    }
}

fn expect(line: Option<(usize, &str)>, word: &str) -> Result<(), String> {
    match line {
        Some((_, line)) if line == word => Ok(()),
        Some((at, line)) => Err(format!("line {}: expected `{word}`, not `{line}`", at + 1)),
        None => Err(format!("ends before `{word}`")),
    }
}

/// The lines up to one that is only this word.
fn block<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, end: &str) -> Result<String, String> {
    let mut found = Vec::new();
    for (_, line) in lines {
        if line == end {
            return Ok(found.join("\n"));
        }
        found.push(line);
    }
    Err(format!("ends before `{end}`"))
}

impl Change {
    /// The text of the file with the change made.
    ///
    /// # Errors
    /// When what is replaced does not occur exactly once, or nothing would change.
    pub fn applied(&self, text: &str) -> Result<String, String> {
        let found = text.matches(&self.old).count();
        if self.old.trim().is_empty() || found != 1 {
            return Err(format!("what it replaces in {} occurs {found} times and must occur once:\n{}", self.file.display(), self.old));
        }
        if self.old == self.new {
            return Err(format!("it changes nothing in {}", self.file.display()));
        }
        Ok(text.replacen(&self.old, &self.new, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "It does\nthe wrong thing.\n\nin src/a.rs\nreplace\n    one();\nby\nend\n\nin src/b.rs\nreplace\ntwo\nby\nthree\nend\n";

    #[test]
    fn a_fault_reads_as_it_is_written() {
        let fault = parse("wrong", TEXT).expect("a fault");
        assert_eq!(fault.says, "It does the wrong thing.");
        let change = |file: &str, old: &str, new: &str| Change { file: file.into(), old: old.into(), new: new.into() };
        assert_eq!(fault.changes, [change("src/a.rs", "    one();", ""), change("src/b.rs", "two", "three")]);
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["", "Only says something.\n", "in a\nreplace\nx\nby\ny\nend\n", "S.\nin a\nx\n", "S.\nin a\nreplace\nx\nby\ny\n"] {
            assert!(parse("wrong", text).is_err(), "taken: {text}");
        }
    }

    #[test]
    fn what_does_not_occur_exactly_once_is_refused() {
        let change = Change { file: "a".into(), old: "x".into(), new: "y".into() };
        assert_eq!(change.applied("a x b").as_deref(), Ok("a y b"));
        assert!(change.applied("x x").is_err());
        assert!(change.applied("b").is_err());
        let same = Change { file: "a".into(), old: "x".into(), new: "x".into() };
        assert!(same.applied("x").is_err());
    }

    #[test]
    fn each_fault_of_the_tree_fits_its_sources() {
        let root = crate::repository();
        let faults = all(&root.join(crate::mutants::FAULTS)).expect("the faults can be read");
        assert!(faults.len() >= 20, "only {} deliberate faults", faults.len());
        for fault in &faults {
            for change in &fault.changes {
                let path = root.join(crate::mutants::CORE).join(&change.file);
                let text = fs::read_to_string(&path).unwrap_or_default();
                assert!(change.applied(&text).is_ok(), "{}: {}", fault.name, change.applied(&text).unwrap_err());
            }
        }
    }
}
