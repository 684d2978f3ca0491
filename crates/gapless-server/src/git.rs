//! What the server reads of a project's Git repository: commits, never the work tree.

use gapless_engine::error::{Error, ErrorKind};
use gapless_images::git::Answer;
use std::path::Path;

/// A commit of a project: the full id.
///
/// # Errors
/// When the folder is no repository or has no such commit, or git is missing.
pub async fn resolve(project: &Path, commit: &str) -> Result<String, Error> {
    if commit.starts_with('-') {
        return Err(Error::new(format!("`{commit}` is no commit")).kind(ErrorKind::Invalid).hint("name a commit, a branch or a tag"));
    }
    let wanted = format!("{commit}^{{commit}}");
    let verify = ["rev-parse", "--verify", "--quiet", "--end-of-options", wanted.as_str()];
    let (prefix, answer) = tokio::try_join!(git(project, &["rev-parse", "--show-prefix"]), git(project, &verify))?;
    if !prefix.text().is_empty() {
        let what = format!("{} lies inside a repository", project.display());
        return Err(Error::new(what)
            .kind(ErrorKind::Invalid)
            .hint("a project is a whole repository: name its root folder with `--project`"));
    }
    let id = answer.text();
    if answer.status.success() && !id.is_empty() {
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
    let answer = git(project, &["cat-file", "blob", &format!("{commit}:{file}")]).await?;
    if !answer.status.success() {
        let short: String = commit.chars().take(12).collect();
        let hint = format!("add {file} to the root of the repository and commit it; `gapless init` writes one");
        return Err(Error::new(format!("commit {short} of {} has no {file}", project.display())).kind(ErrorKind::Invalid).hint(hint));
    }
    let hint = "save it as UTF-8";
    String::from_utf8(answer.output).map_err(|_| Error::new(format!("{file} is no UTF-8 text")).kind(ErrorKind::Invalid).hint(hint))
}

/// Files of the work tree that differ from the commit that is checked out: they are not built.
///
/// # Errors
/// When git cannot tell.
pub async fn changed_files(project: &Path) -> Result<Vec<String>, Error> {
    // This one may start the repository's filters, as its owner and with nothing beyond that owner's rights. Submodules have settings of their own, and are not built.
    let answer = git(project, &["status", "--porcelain", "--ignore-submodules=all"]).await?;
    if !answer.status.success() {
        return Err(Error::new(answer.complaint).context("asking git for the state of the work tree"));
    }
    Ok(String::from_utf8_lossy(&answer.output).lines().map(|line| line.get(3..).unwrap_or(line).to_string()).collect())
}

async fn git(project: &Path, arguments: &[&str]) -> Result<Answer, Error> {
    if !project.is_dir() {
        return Err(Error::new(format!("{} is no folder", project.display()))
            .kind(ErrorKind::Invalid)
            .hint("name the project's folder with `--project`"));
    }
    let (folder, arguments) = (project.to_path_buf(), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
    let asked = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        gapless_images::git::run(&folder, &arguments)
    });
    asked.await.map_err(|error| Error::new(format!("running git in {} ended early: {error}", project.display())))?
}
