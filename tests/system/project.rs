//! Projects of the tests: fresh repositories made from the bundled folders.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Git repository with a `gapless.hcl`.
pub struct Project {
    pub path: PathBuf,
}

impl Project {
    /// A repository at `path` with the files of `source` (a folder of this tree) and one commit.
    pub fn copied(source: &str, path: &Path) -> Project {
        std::fs::create_dir_all(path).expect("making the project's folder");
        let project = Project { path: path.to_path_buf() };
        project.overlay(source);
        project.git(&["init", "-q"]);
        project
    }

    /// Puts the files of `source` over those of the project.
    pub fn overlay(&self, source: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(source);
        let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(&self.path).status().expect("running cp");
        assert!(copied.success(), "copying {}", from.display());
    }

    /// Replaces `old` by `new` in a file; the file must contain it.
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.path.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        assert!(text.contains(old), "{} does not contain `{old}`:\n{text}", path.display());
        std::fs::write(&path, text.replacen(old, new, 1)).expect("writing the project's file");
    }

    /// Commits everything and gives the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["-c", "user.name=Test", "-c", "user.email=test@example.test", "commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").arg("-C").arg(&self.path).args(arguments).output().expect("running git");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }
}
