//! The core's tests in a workspace of their own, where its sources may be spoiled: built target by target, run test by test.

use crate::fault::Fault;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What of the tree the core's tests need.
const NEEDED: [&str; 2] = [crate::mutants::CORE, "bench"];

/// The memory that a test of a spoiled core may take, in KiB: a fault that fills a list for ever ends there and not with the machine.
const MEMORY_KIB: u64 = 12 << 20;

/// How often it is looked whether a test has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A test: the target of cargo that it stands in, and its name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub target: String,
    pub name: String,
}

/// How a test ended.
#[derive(Debug)]
pub enum Verdict {
    Passed,
    /// With the first line of what it said.
    Failed(String),
    /// It did not end in time.
    Endless,
    /// There is no such test, for the sources do not compile: why.
    NotCompiled(String),
}

/// A copy of the core with its tests.
pub struct Suite {
    folder: PathBuf,
    sources: PathBuf,
    built: BTreeMap<String, PathBuf>,
}

impl Suite {
    /// A copy in `folder`, as the sources are now. What was built there before is used again.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn new(sources: &Path, folder: &Path) -> Result<Suite, String> {
        let suite = Suite { folder: folder.to_path_buf(), sources: sources.to_path_buf(), built: BTreeMap::new() };
        suite.copy().map_err(|error| format!("copying the core into {}: {error}", folder.display()))?;
        Ok(suite)
    }

    fn copy(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let manifest = fs::read_to_string(self.sources.join("Cargo.toml"))?;
        let alone: Vec<&str> =
            manifest.lines().map(|line| if line.starts_with("members = ") { "members = [\"crates/*\"]" } else { line }).collect();
        write_changed(&self.folder.join("Cargo.toml"), (alone.join("\n") + "\n").as_bytes())?;
        write_changed(&self.folder.join("Cargo.lock"), &fs::read(self.sources.join("Cargo.lock"))?)?;
        NEEDED.iter().try_for_each(|part| copy_folder(&self.sources.join(part), &self.folder.join(part)))
    }

    /// Puts a fault into the copy, and nothing else.
    ///
    /// # Errors
    /// When the sources are no more what the fault replaces.
    pub fn spoil(&mut self, fault: &Fault) -> Result<(), String> {
        let mut texts: BTreeMap<&Path, String> = BTreeMap::new();
        for change in &fault.changes {
            let path = self.sources.join(crate::mutants::CORE).join(&change.file);
            let read = || fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()));
            let text = texts.remove(change.file.as_path()).map_or_else(read, Ok)?;
            texts.insert(&change.file, change.applied(&text)?);
        }
        self.restore()?;
        for (file, text) in texts {
            let path = self.folder.join(crate::mutants::CORE).join(file);
            fs::write(&path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// The sources as they are, again.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn restore(&mut self) -> Result<(), String> {
        self.built.clear();
        self.copy().map_err(|error| format!("restoring {}: {error}", self.folder.display()))
    }

    /// The targets that hold tests: the crate itself, and each file and each program of its folder of tests.
    pub fn targets(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.join(crate::mutants::CORE).join("tests")).into_iter().flatten().flatten();
        let is_target = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        let tests = files.map(|entry| entry.path()).filter(is_target);
        let named: BTreeSet<String> = tests.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
        std::iter::once("lib".to_string()).chain(named).collect()
    }

    /// Every test of a target.
    ///
    /// # Errors
    /// When it cannot be built or does not list its tests.
    pub fn tests(&mut self, target: &str) -> Result<Vec<Test>, String> {
        let program = self.program(target)??;
        let output = Command::new(program).arg("--list").output().map_err(|error| format!("listing the tests of {target}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(|name| Test { target: target.to_string(), name: name.to_string() }).collect())
    }

    /// The program of a target, built if it has to be; the inner error: what the compiler says against the sources.
    fn program(&mut self, target: &str) -> Result<Result<PathBuf, String>, String> {
        if let Some(program) = self.built.get(target) {
            return Ok(Ok(program.clone()));
        }
        let mut command = Command::new("cargo");
        command.args(["test", "--quiet", "--package", "gapless-core", "--no-run", "--message-format=json"]);
        match target {
            "lib" => command.arg("--lib"),
            name => command.args(["--test", name]),
        };
        command.current_dir(&self.folder).env("CARGO_TARGET_DIR", self.folder.join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("running cargo: {error}"))?;
        if !output.status.success() {
            return Ok(Err(format!("it does not compile:\n{}", diagnostics(&output.stdout, &output.stderr))));
        }
        let program = executable(&output.stdout).ok_or_else(|| format!("cargo names no program for the tests of {target}"))?;
        self.built.insert(target.to_string(), program.clone());
        Ok(Ok(program))
    }

    /// Runs one test, at most `limit` long.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn run(&mut self, test: &Test, limit: Duration) -> Result<Verdict, String> {
        let program = match self.program(&test.target)? {
            Ok(program) => program,
            Err(problem) => return Ok(Verdict::NotCompiled(problem)),
        };
        let said = self.folder.join("said.txt");
        let file = fs::File::create(&said).map_err(|error| format!("making {}: {error}", said.display()))?;
        let errors = file.try_clone().map_err(|error| format!("sharing {}: {error}", said.display()))?;
        let limited = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &limited])
            .arg(program)
            .args(["--exact", &test.name, "--nocapture"])
            .current_dir(self.folder.join(crate::mutants::CORE))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", test.name))?;
        let begun = Instant::now();
        loop {
            match child.try_wait().map_err(|error| format!("waiting for {}: {error}", test.name))? {
                Some(status) if status.success() => return Ok(Verdict::Passed),
                Some(_) => return Ok(Verdict::Failed(first_panic(&fs::read_to_string(&said).unwrap_or_default()))),
                None if begun.elapsed() > limit => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(Verdict::Endless);
                }
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

/// Copies what differs and removes what is not there, so that what is unchanged is not built again.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        names.insert(entry.file_name());
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            write_changed(&target, &fs::read(entry.path())?)?;
        }
    }
    for entry in fs::read_dir(to)?.flatten().filter(|entry| !names.contains(&entry.file_name())) {
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn write_changed(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|known| known == content) { Ok(()) } else { fs::write(path, content) }
}

/// The program that cargo's messages name.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(messages);
    let mut values = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    values.find_map(|value| value["executable"].as_str().map(PathBuf::from))
}

/// What the compiler says against it.
fn diagnostics(messages: &[u8], errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(messages);
    let values = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let errors_only = values.filter(|value| value["message"]["level"] == "error");
    let rendered: String = errors_only.filter_map(|value| value["message"]["rendered"].as_str().map(str::to_string)).collect();
    if rendered.is_empty() { String::from_utf8_lossy(errors).into_owned() } else { rendered }
}

/// The first line of the first panic's message.
fn first_panic(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at "));
    lines.next();
    lines.next().unwrap_or("it ended without a word").trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_told() {
        let said = "playing a\n\nthread 'x' panicked at tests/world/engine.rs:94:9:\nI2 is broken: r1-i1-n0\n  0.0s > declare\npanicked at b:\nother\n";
        assert_eq!(first_panic(said), "I2 is broken: r1-i1-n0");
        assert_eq!(first_panic("Segmentation fault"), "it ended without a word");
    }

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let messages = b"{\"reason\":\"x\",\"executable\":null}\n{\"reason\":\"y\",\"executable\":\"/a/b\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/a/b")));
    }

    #[test]
    fn no_program_of_tests_is_passed_over() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let output =
            Command::new(env!("CARGO")).args(["metadata", "--offline", "--no-deps", "--format-version=1"]).current_dir(sources).output();
        let metadata: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let core = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "gapless-core").unwrap();
        let of_kind = |kind: &'static str| core["targets"].as_array().unwrap().iter().filter(move |target| target["kind"][0] == kind);
        let named = of_kind("test").map(|target| target["name"].as_str().unwrap().to_string());
        assert_eq!(of_kind("lib").count(), 1);
        let folder = std::env::temp_dir().join(format!("gapless-suite-{}", std::process::id()));
        let targets = Suite::new(sources, &folder).unwrap().targets();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(targets.into_iter().collect::<BTreeSet<_>>(), named.chain(["lib".to_string()]).collect());
    }
}
