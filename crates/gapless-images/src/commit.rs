//! Reading the files of a commit, by calling Git. What is built is a commit, never a working tree.

use crate::git;
use gapless_engine::error::{Context, Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most that the files of one reading may have together, in bytes: they are held in memory. Larger things belong on a volume or into a package.
pub const SIZE_LIMIT: u64 = 512 * 1024 * 1024;

/// The most bytes that `git cat-file --batch` writes around the content of a file: a name of 64 digits, `blob`, a size of 20 digits, line feeds.
const HEADER_LIMIT: u64 = 128;

/// How Git lists a symbolic link and an executable file.
const LINK_MODE: &str = "120000";
const EXECUTABLE_MODE: &str = "100755";

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
        let answer = git::run(repository, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])?;
        let id = answer.text();
        if !answer.status.success() || id.is_empty() {
            return Err(Error::new(format!("no commit `{revision}` in {}: {}", repository.display(), answer.complaint))
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

    /// The files below these paths, by path, byte for byte as they were committed: no filter and no attribute of the repository changes them. Paths that the commit does not
    /// have are left out.
    ///
    /// # Errors
    /// When Git fails, or the files have more than [`SIZE_LIMIT`] bytes.
    pub fn files(&self, paths: &[&str]) -> Result<BTreeMap<String, CommitFile>, Error> {
        self.read(paths).context(|| format!("reading the commit {}", self.id))
    }

    fn read(&self, paths: &[&str]) -> Result<BTreeMap<String, CommitFile>, Error> {
        let listed = self.list(paths)?;
        check_paths(&listed)?;
        let size = listed.iter().map(|file| file.size).fold(0, u64::saturating_add);
        if size > SIZE_LIMIT {
            return Err(Error::new(format!("the files have more than {SIZE_LIMIT} bytes"))
                .kind(ErrorKind::Invalid)
                .hint("keep large files out of the repository: on a volume, or in a package that Puppet installs"));
        }
        if listed.is_empty() {
            return Ok(BTreeMap::new());
        }
        let objects: String = listed.iter().map(|file| format!("{}\n", file.object)).collect();
        let limit = size.saturating_add(HEADER_LIMIT.saturating_mul(listed.len() as u64));
        let answer = git::ask(&self.repository, &["cat-file", "--batch"], objects.into_bytes(), limit)?.succeeded()?;
        let mut rest = answer.output.as_slice();
        listed.into_iter().map(|file| Ok((file.path.clone(), file.taken_from(&mut rest)?))).collect()
    }

    /// When `path` was last changed, in seconds since the Unix epoch: the committer's time of the last commit that touched it.
    ///
    /// # Errors
    /// When Git fails.
    pub fn last_change(&self, path: &str) -> Result<u64, Error> {
        // Not `git log`, which can be set to check signatures.
        let answer = git::run(&self.repository, &["rev-list", "--max-count=1", "--timestamp", &self.id, "--", path])?.succeeded()?;
        Ok(answer.text().split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
    }

    fn list(&self, paths: &[&str]) -> Result<Vec<Listed>, Error> {
        let mut arguments = vec!["ls-tree", "-r", "-l", "-z", "--full-tree", &self.id, "--"];
        arguments.extend(paths);
        let answer = git::run(&self.repository, &arguments)?.succeeded()?;
        let lines = answer.output.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        lines.filter_map(|line| Listed::parse(line).transpose()).collect()
    }
}

/// A commit that Git itself made has only paths that can be written below a folder; one that was put together by hand may have any bytes in its trees.
fn check_paths(listed: &[Listed]) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for file in listed {
        let is_plain = file.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain || !known.insert(file.path.as_str()) {
            return Err(malformed(&file.path));
        }
    }
    let below_a_file = listed.iter().find(|file| folders(&file.path).any(|folder| known.contains(folder)));
    below_a_file.map_or(Ok(()), |file| Err(malformed(&file.path)))
}

/// The folders that a path leads through, the innermost first.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(crate::view::parent(path), |folder| crate::view::parent(folder))
}

fn malformed(path: &str) -> Error {
    Error::new(format!("the commit holds `{path}` in a way that no folder can"))
        .kind(ErrorKind::Invalid)
        .hint("Git did not make this commit; `git fsck` shows what is wrong with it")
}

/// A file as a commit lists it.
struct Listed {
    mode: String,
    object: String,
    size: u64,
    path: String,
}

impl Listed {
    /// Reads `mode type object size<TAB>path`; nothing for a submodule, whose files are another repository's.
    fn parse(line: &[u8]) -> Result<Option<Self>, Error> {
        let line = std::str::from_utf8(line)
            .map_err(|_| Error::new("a file of the commit has a name that is not UTF-8").kind(ErrorKind::Invalid))?;
        let unknown = || Error::new("git listed a file in a way that is not known");
        let (fields, path) = line.split_once('\t').ok_or_else(unknown)?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [mode, kind, object, size] = fields.as_slice() else { return Err(unknown()) };
        if *kind != "blob" {
            return Ok(None);
        }
        let size = size.parse().map_err(|_| Error::new(format!("the repository lacks the content of {path}")).kind(ErrorKind::Invalid))?;
        Ok(Some(Self { mode: (*mode).into(), object: (*object).into(), size, path: path.into() }))
    }

    /// Takes this file from what `git cat-file --batch` wrote: `object type size`, a line feed, the content, a line feed.
    fn taken_from(self, rest: &mut &[u8]) -> Result<CommitFile, Error> {
        let unknown = || Error::new(format!("git did not give the content of {}", self.path)).kind(ErrorKind::Invalid);
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(unknown)?;
        if rest[..end] != *format!("{} blob {}", self.object, self.size).as_bytes() {
            return Err(unknown());
        }
        let start = end + 1;
        let length = usize::try_from(self.size).map_err(|_| unknown())?;
        let content = rest.get(start..start + length).ok_or_else(unknown)?;
        *rest = rest.get(start + length + 1..).ok_or_else(unknown)?;
        if self.mode == LINK_MODE {
            return Ok(CommitFile::Link { target: String::from_utf8_lossy(content).into_owned() });
        }
        Ok(CommitFile::File { executable: self.mode == EXECUTABLE_MODE, content: content.into() })
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
