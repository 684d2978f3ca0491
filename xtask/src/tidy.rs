//! The rules of the house that can be executed: which crate may use which, module docs, the paths that the map names, lengths.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. A crate that is not here may not exist.
const EDGES: &[(&str, &[&str])] = &[
    ("gapless-core", &[]),
    ("gapless-wire", &[]),
    ("gapless-load", &[]),
    ("gapless-engine", &["gapless-core"]),
    ("gapless-store", &["gapless-core", "gapless-engine"]),
    ("gapless-images", &["gapless-core", "gapless-engine"]),
    ("gapless-platforms", &["gapless-core", "gapless-engine", "gapless-wire"]),
    ("gapless-proxy", &["gapless-wire"]),
    ("gapless-server", &["gapless-core", "gapless-engine", "gapless-images", "gapless-store", "gapless-wire"]),
    ("gapless", &["*"]),
];

/// Longer files tell more than one story, in lines.
const FILE_LIMIT: usize = 1000;

/// Longer functions cannot be read at a glance, in lines.
const FUNCTION_LIMIT: usize = 60;

/// The documents whose paths must exist.
const MAPS: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];

/// Everything that breaks a rule, one line each, in the order of the files.
pub fn check(root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    findings.extend(crate_edges(root));
    for file in sources(root) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        findings.extend(module_docs(&name, &text));
        findings.extend(lengths(&name, &text));
    }
    for map in MAPS {
        let text = fs::read_to_string(root.join(map)).unwrap_or_default();
        findings.extend(named_paths(root, map, &text));
    }
    findings
}

fn crate_edges(root: &Path) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut findings = Vec::new();
    for folder in folders(&root.join("crates")) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(may_use) = allowed.get(name.as_str()) else {
            findings.push(format!(
                "crates/{name}: not a crate of the design: add it to ARCHITECTURE.md and to xtask/src/tidy.rs with its verb and its edges"
            ));
            continue;
        };
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        for used in our_dependencies(&manifest) {
            if !may_use.contains(&"*") && !may_use.contains(&used.as_str()) {
                findings.push(format!("crates/{name}/Cargo.toml: {name} may not use {used}"));
            }
        }
    }
    findings
}

/// Our crates in the `[dependencies]` table (tests and examples may use more).
fn our_dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.starts_with("[dependencies") || (line.starts_with("[target.") && line.ends_with(".dependencies]"));
            if let Some(name) = line.strip_prefix("[dependencies.") {
                found.extend(ours(name.trim_end_matches(']')));
            }
        } else if inside {
            found.extend(ours(line.split(['=', '.', ' ']).next().unwrap_or_default()));
        }
    }
    found
}

fn ours(name: &str) -> Option<String> {
    (name == "gapless" || name.starts_with("gapless-")).then(|| name.to_string())
}

fn module_docs(name: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"))?;
    (!first.starts_with("//!")).then(|| format!("{name}: begins without a module doc: say in `//!` what the file is for"))
}

fn lengths(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE_LIMIT {
        findings.push(format!("{name}: {} lines, more than {FILE_LIMIT}", lines.len()));
    }
    for (start, line) in lines.iter().enumerate() {
        let Some(length) = function_length(&lines[start..], line) else { continue };
        if length > FUNCTION_LIMIT {
            findings.push(format!("{name}:{}: a function of {length} lines, more than {FUNCTION_LIMIT}", start + 1));
        }
    }
    findings
}

/// The lines of the function that begins with `line`: rustfmt closes it with a brace at the same indentation.
fn function_length(rest: &[&str], line: &str) -> Option<usize> {
    let code = line.trim_start();
    let indentation = line.len() - code.len();
    let signature = [
        "fn ",
        "pub fn ",
        "async fn ",
        "pub async fn ",
        "pub(crate) fn ",
        "pub(crate) async fn ",
        "pub(super) fn ",
        "pub(super) async fn ",
        "const fn ",
        "pub const fn ",
    ];
    if !signature.iter().any(|start| code.starts_with(start)) {
        return None;
    }
    if line.trim_end().ends_with([';', '}']) {
        return Some(1); // A trait's method without a body, or a body on the same line.
    }
    let close = format!("{}}}", " ".repeat(indentation));
    rest.iter().position(|line| line.starts_with(&close) && line.trim_end() == close).map(|end| end + 1)
}

/// Paths in backquotes that look like files or folders of this repository.
fn named_paths(root: &Path, map: &str, text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| is_path(quoted))
        .filter(|path| !root.join(path.trim_end_matches('/')).exists())
        .map(|path| format!("{map}: names `{path}`, which is not there"))
        .collect()
}

fn is_path(quoted: &str) -> bool {
    const TOPS: &[&str] = &["crates/", "examples/", "docs/", "tests/", "xtask/", "packaging/", "bench/", ".ci/"];
    TOPS.iter().any(|top| quoted.starts_with(top)) && !quoted.contains([' ', '*', '<', '{'])
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in ["crates", "tests", "xtask"] {
        collect_sources(&root.join(top), &mut found);
    }
    found.sort();
    found
}

fn collect_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(&crate::repository());
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\ngapless-core = { workspace = true }\nserde = \"1\"\ngapless-wire.workspace = true\n[dev-dependencies]\ngapless-load = { workspace = true }\n";
        assert_eq!(our_dependencies(manifest), ["gapless-core", "gapless-wire"]);
    }

    #[test]
    fn a_missing_module_doc_and_a_long_function_are_found() {
        assert!(module_docs("a.rs", "use std::fs;\n").is_some());
        assert!(module_docs("a.rs", "#![no_std]\n//! Says what it is.\n").is_none());
        let long = format!("fn long() {{\n{}}}\n", "    call();\n".repeat(FUNCTION_LIMIT));
        assert_eq!(lengths("a.rs", &long).len(), 1);
        assert!(lengths("a.rs", "fn short() {\n    call();\n}\n").is_empty());
    }

    #[test]
    fn a_path_that_is_not_there_is_found() {
        let root = crate::repository();
        assert_eq!(named_paths(&root, "MAP", "see `crates/gapless-core` and `crates/nothing/here.rs`").len(), 1);
    }
}
