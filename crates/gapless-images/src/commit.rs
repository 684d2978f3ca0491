//! Reading the files of a commit, by calling Git. What is built is a commit, never a working tree.

use gapless_engine::error::{Context, Error, ErrorKind};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The most that the files of one reading may have together, in bytes: they are held in memory. Larger things belong on a volume or into a package.
pub const SIZE_LIMIT: u64 = 512 * 1024 * 1024;

/// A commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    repository: PathBuf,
    id: String,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFile {
    /// With content.
    File {
        /// Whether it is marked as executable.
        executable: bool,
        /// Its bytes.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

impl Commit {
    /// Finds the commit that `revision` names (a branch, a tag, an id) in a repository, bare or not.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when there is no such repository or commit, in Git's own words.
    pub fn find(repository: &Path, revision: &str) -> Result<Self, Error> {
        if revision.starts_with('-') {
            return Err(Error::new(format!("`{revision}` is no commit")).kind(ErrorKind::Invalid));
        }
        let output = git(repository, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || id.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::new(format!("no commit `{revision}` in {}: {said}", repository.display()))
                .kind(ErrorKind::Invalid)
                .hint("gapless builds commits: `git init`, `git add` and `git commit` first"));
        }
        Ok(Self { repository: repository.into(), id })
    }

    /// Its id: 40 hexadecimal digits (64 with SHA-256 repositories).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The files below these paths, by path. Paths that the commit does not have are left out.
    ///
    /// # Errors
    /// When Git fails, or the files have more than [`SIZE_LIMIT`] bytes.
    pub fn files(&self, paths: &[&str]) -> Result<BTreeMap<String, CommitFile>, Error> {
        let present = self.present(paths)?;
        if present.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut arguments = vec!["archive", "--format=tar", &self.id, "--"];
        arguments.extend(present.iter().map(String::as_str));
        let output = succeeded(git(&self.repository, &arguments)?).context(|| format!("reading the commit {}", self.id))?;
        read_archive(&output.stdout).context(|| format!("reading the commit {}", self.id))
    }

    /// When `path` was last changed, in seconds since the Unix epoch: the committer's time of the last commit that touched it.
    ///
    /// # Errors
    /// When Git fails.
    pub fn last_change(&self, path: &str) -> Result<u64, Error> {
        let output = succeeded(git(&self.repository, &["log", "-1", "--format=%ct", &self.id, "--", path])?)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0))
    }

    fn present(&self, paths: &[&str]) -> Result<Vec<String>, Error> {
        let mut arguments = vec!["ls-tree", "--full-tree", "--name-only", "-z", &self.id, "--"];
        arguments.extend(paths);
        let output = succeeded(git(&self.repository, &arguments)?)?;
        Ok(output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    }
}

fn git(repository: &Path, arguments: &[&str]) -> Result<Output, Error> {
    let mut command = Command::new("git");
    // The server reads repositories of other users. It only reads objects, for which the owner of the folder does not matter.
    command.arg("-C").arg(repository).args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]).args(arguments);
    command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    command.output().map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::NotFound { "install it: apt-get install git" } else { "see the message" };
        Error::new(format!("starting git: {error}")).hint(hint)
    })
}

fn succeeded(output: Output) -> Result<Output, Error> {
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::new(format!("git said: {}", String::from_utf8_lossy(&output.stderr).trim())).kind(ErrorKind::Invalid))
}

fn read_archive(tar: &[u8]) -> Result<BTreeMap<String, CommitFile>, Error> {
    let reading = || "reading an archive".to_owned();
    let mut files = BTreeMap::new();
    let mut size = 0;
    for entry in tar::Archive::new(tar).entries().context(reading)? {
        let mut entry = entry.context(reading)?;
        let path = entry.path().context(reading)?.to_str().map(str::to_owned);
        let Some(path) = path else {
            return Err(Error::new("a file of the commit has a name that is not UTF-8").kind(ErrorKind::Invalid));
        };
        size += entry.size();
        if size > SIZE_LIMIT {
            return Err(Error::new(format!("the files have more than {SIZE_LIMIT} bytes"))
                .kind(ErrorKind::Invalid)
                .hint("keep large files out of the repository: on a volume, or in a package that Puppet installs"));
        }
        if let Some(file) = read_entry(&mut entry).context(|| format!("reading {path}"))? {
            files.insert(path, file);
        }
    }
    Ok(files)
}

fn read_entry<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<CommitFile>, std::io::Error> {
    match entry.header().entry_type() {
        tar::EntryType::Regular => {
            let executable = entry.header().mode()? & 0o100 != 0;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            Ok(Some(CommitFile::File { executable, content }))
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name()?.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
            Ok(Some(CommitFile::Link { target }))
        }
        _ => Ok(None),
    }
}

/// Writes files into an empty folder, readable by everybody, links included.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write_files(files: &BTreeMap<String, CommitFile>, folder: &Path) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    for (path, file) in files {
        let place = folder.join(path);
        let writing = || format!("writing {}", place.display());
        if let Some(parent) = place.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).context(writing)?;
        }
        match file {
            CommitFile::File { executable, content } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&place).context(writing)?;
                opened.write_all(content).context(writing)?;
            }
            CommitFile::Link { target } => std::os::unix::fs::symlink(target, &place).context(writing)?,
        }
    }
    Ok(())
}
