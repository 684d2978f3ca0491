//! The project that the demo delivers: a fresh Git repository with the bundled example in it.

use gapless_engine::error::{Context, Error};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file of the bundled example by its path, from the build script.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/hello.rs"));

/// The project's service.
pub const SERVICE: &str = "hello/web";

/// The file that says which version the site shows.
const VERSION_FILE: &str = "app/public/version";

/// The program that the health gate asks.
const HEALTH_FILE: &str = "app/cgi/healthz";

/// The Puppet manifest whose change needs a new run of Packer.
const MANIFEST_FILE: &str = "puppet/modules/apache/manifests/init.pp";

/// A repository on disk.
#[derive(Clone, Debug)]
pub struct Project {
    folder: PathBuf,
}

impl Project {
    /// Makes the repository in a folder that is not there yet, and its first commit. The old group is not kept warm in the demo (`bake = "0s"`): each rollout shall be
    /// seen to its end.
    ///
    /// # Errors
    /// When a file cannot be written or git fails.
    pub fn create(folder: &Path) -> Result<Project, Error> {
        for (name, content) in FILES {
            write_file(&folder.join(name), content)?;
        }
        let project = Project { folder: folder.to_owned() };
        project.edit("gapless.hcl", without_bake)?;
        project.git(&["init", "--quiet", "--initial-branch=main"])?;
        project.commit("The first version")?;
        Ok(project)
    }

    /// The repository's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Commits a version of the application that shows this number. Answers with the commit's id.
    ///
    /// # Errors
    /// When a file cannot be written or git fails.
    pub fn commit_version(&self, version: u32) -> Result<String, Error> {
        self.edit(VERSION_FILE, |_| Some(format!("{version}\n")))?;
        self.commit(&format!("The site is at version {version}"))
    }

    /// Commits a version whose health check answers 500.
    ///
    /// # Errors
    /// When a file cannot be written or git fails.
    pub fn commit_broken_version(&self, version: u32) -> Result<String, Error> {
        self.edit(VERSION_FILE, |_| Some(format!("{version}\n")))?;
        self.edit(HEALTH_FILE, |text| replaced(text, "status=200", "status=500"))?;
        self.commit(&format!("Version {version}: a health check that fails"))
    }

    /// Commits a version with a sound health check and more Apache workers, which is Puppet's to arrange.
    ///
    /// # Errors
    /// When a file cannot be written or git fails.
    pub fn commit_changed_manifest(&self, version: u32) -> Result<String, Error> {
        self.edit(VERSION_FILE, |_| Some(format!("{version}\n")))?;
        self.edit(HEALTH_FILE, |text| replaced(text, "status=500", "status=200"))?;
        self.edit(MANIFEST_FILE, |text| replaced(text, "$workers = 256", "$workers = 320"))?;
        self.commit(&format!("Version {version}: more Apache workers, by Puppet"))
    }

    fn edit(&self, name: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<(), Error> {
        let path = self.folder.join(name);
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let changed =
            change(&text).ok_or_else(|| Error::new(format!("{name} of the bundled example has not the line that the demo changes")))?;
        std::fs::write(&path, changed).context(|| format!("write {}", path.display()))
    }

    fn commit(&self, message: &str) -> Result<String, Error> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs git without the settings and hooks of this machine: the demo's commits are the same everywhere.
    fn git(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("git");
        command.args(["-c", "commit.gpgSign=false", "-c", "core.hooksPath=/dev/null"]).args(arguments).current_dir(&self.folder);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "gapless demo").env(format!("GIT_{role}_EMAIL"), "demo@gapless.invalid");
        }
        let output =
            command.output().context(|| format!("start git {}", arguments.join(" "))).map_err(|error| error.hint("install git"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("git {} ended with {}: {}", arguments.join(" "), output.status, complaint.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(|| format!("make the folder {}", parent.display()))?;
    }
    std::fs::write(path, content).context(|| format!("write {}", path.display()))?;
    // The table of files has no modes; what names its interpreter is a program.
    let mode = if content.starts_with(b"#!") { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context(|| format!("set the mode of {}", path.display()))
}

fn replaced(text: &str, from: &str, to: &str) -> Option<String> {
    text.contains(from).then(|| text.replacen(from, to, 1))
}

/// The same settings with a bake window of nothing.
fn without_bake(text: &str) -> Option<String> {
    let is_bake = |line: &str| line.trim_start().strip_prefix("bake").is_some_and(|rest| rest.trim_start().starts_with('='));
    let mut changed: Vec<String> = Vec::new();
    let mut found = false;
    for line in text.lines() {
        let bake = is_bake(line);
        found |= bake;
        let inset: String = line.chars().take_while(|character| character.is_whitespace()).collect();
        changed.push(if bake { format!("{inset}bake     = \"0s\"  # the demo shows each rollout to its end") } else { line.to_owned() });
    }
    found.then(|| changed.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_a_commit_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::create(&folder.path().join("project")).unwrap();
        let read = |name: &str| std::fs::read_to_string(project.folder().join(name)).unwrap();
        assert!(read("gapless.hcl").contains("bake     = \"0s\""));
        let two = project.commit_version(2).unwrap();
        assert_eq!((two.len(), read(VERSION_FILE).as_str()), (40, "2\n"));
        project.commit_broken_version(3).unwrap();
        assert!(read(HEALTH_FILE).contains("status=500"));
        project.commit_changed_manifest(4).unwrap();
        assert!(read(HEALTH_FILE).contains("status=200") && read(MANIFEST_FILE).contains("$workers = 320"));
        assert_eq!(project.git(&["rev-list", "--count", "HEAD"]).unwrap().trim(), "4");
        assert_eq!(project.git(&["status", "--porcelain"]).unwrap(), "");
    }

    #[test]
    fn programs_of_the_example_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let project = Project::create(&folder.path().join("project")).unwrap();
        let mode = std::fs::metadata(project.folder().join(HEALTH_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn a_file_without_the_line_is_told() {
        assert_eq!(without_bake("rollout {\n}\n"), None);
        assert_eq!(without_bake("  bake = \"5m\"\n  baker = 1\n").unwrap().lines().count(), 2);
        assert_eq!(replaced("a", "b", "c"), None);
    }
}
