//! What the server reads of a project's Git repository: commits, never the work tree.

use gapless_engine::error::{Context, Error, ErrorKind};
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

/// A commit of a project: the full id.
///
/// # Errors
/// When the folder is no repository or has no such commit, or git is missing.
pub async fn resolve(project: &Path, commit: &str) -> Result<String, Error> {
    if commit.starts_with('-') {
        return Err(Error::new(format!("`{commit}` is no commit")).kind(ErrorKind::Invalid).hint("name a commit, a branch or a tag"));
    }
    let prefix = git(project, &["rev-parse", "--show-prefix"]).await?;
    if !String::from_utf8_lossy(&prefix.stdout).trim().is_empty() {
        let what = format!("{} lies inside a repository", project.display());
        return Err(Error::new(what)
            .kind(ErrorKind::Invalid)
            .hint("a project is a whole repository: name its root folder with `--project`"));
    }
    let wanted = format!("{commit}^{{commit}}");
    let output = git(project, &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]).await?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if output.status.success() && !id.is_empty() {
        return Ok(id);
    }
    let inside = git(project, &["rev-parse", "--git-dir"]).await?;
    if inside.status.success() {
        let hint = "commit first: a commit is what is built (`git log` lists the commits)";
        return Err(Error::new(format!("{} has no commit `{commit}`", project.display())).kind(ErrorKind::Invalid).hint(hint));
    }
    let hint = "a project is a Git repository: `git init`, then commit; or name another folder with `--project`";
    Err(Error::new(format!("{} is no Git repository", project.display())).kind(ErrorKind::Invalid).hint(hint))
}

/// The text of a file of a commit.
///
/// # Errors
/// When the commit has no such file, or it is no text.
pub async fn text_of(project: &Path, commit: &str, file: &str) -> Result<String, Error> {
    let output = git(project, &["cat-file", "blob", &format!("{commit}:{file}")]).await?;
    if !output.status.success() {
        let short: String = commit.chars().take(12).collect();
        let hint = format!("add {file} to the root of the repository and commit it; `gapless init` writes one");
        return Err(Error::new(format!("commit {short} of {} has no {file}", project.display())).kind(ErrorKind::Invalid).hint(hint));
    }
    let hint = "save it as UTF-8";
    String::from_utf8(output.stdout).map_err(|_| Error::new(format!("{file} is no UTF-8 text")).kind(ErrorKind::Invalid).hint(hint))
}

/// Files of the work tree that differ from the commit that is checked out: they are not built.
///
/// # Errors
/// When git cannot tell.
pub async fn changed_files(project: &Path) -> Result<Vec<String>, Error> {
    let output = git(project, &["status", "--porcelain"]).await?;
    if !output.status.success() {
        return Err(
            Error::new(String::from_utf8_lossy(&output.stderr).trim().to_string()).context("asking git for the state of the work tree")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.get(3..).unwrap_or(line).to_string()).collect())
}

async fn git(project: &Path, arguments: &[&str]) -> Result<Output, Error> {
    if !project.is_dir() {
        return Err(Error::new(format!("{} is no folder", project.display()))
            .kind(ErrorKind::Invalid)
            .hint("name the project's folder with `--project`"));
    }
    // The server runs as root and projects belong to people: git would refuse to read a repository of somebody else. Only reading commands are run, none of which starts a
    // program that the repository names.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"])
        .arg("-C")
        .arg(project)
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .kill_on_drop(true)
        .output()
        .await;
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new("the program `git` is missing").hint("install the package git: `apt-get install git`"))
        }
        other => other.context(|| format!("running git in {}", project.display())),
    }
}
