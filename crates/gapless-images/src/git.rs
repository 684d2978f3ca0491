//! Calling Git: the one place that says how, for everything of ours that reads a repository.
//!
//! A repository is the project's, and its `.git/config` can name programs that Git starts by itself (signatures, filters, transports, monitors). Hence Git runs as the owner of
//! the repository and can gain nothing beyond that, keeps its own check that everything belongs to this owner, and is told to start none of these programs. Callers use
//! commands that only read objects.

use gapless_engine::error::{Context, Error, ErrorKind};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The longest that one call may take: reading half a gigabyte of objects takes seconds, and a pipe put in the place of a file would hold us for ever.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The most bytes that a call may answer unless it says otherwise: the list of some hundred thousand files.
pub const OUTPUT_LIMIT: u64 = 64 * 1024 * 1024;

/// The most bytes of Git's complaints that are kept: enough to hold the reason.
const COMPLAINT_LIMIT: u64 = 64 * 1024;

/// The group of a Git that is not root's: one that owns nothing. That of the folder would not do, because a person can own a folder of a group that is not theirs.
const NO_GROUP: u32 = 65_534;

/// What the shell and `setpriv` say when there is no such program.
const PROGRAM_MISSING: i32 = 127;

/// Takes the programs away that a repository's settings could name, one by one: the last guard, for a repository that is root's own.
const SETTINGS: [&str; 9] = [
    "log.showSignature=false",
    "gpg.program=/bin/false",
    "protocol.allow=never",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=/bin/false",
    "core.askPass=/bin/false",
    "core.pager=cat",
    "credential.helper=",
];

/// The whole environment beside `PATH`. What is set here counts more than what a repository says of the same.
const ENVIRONMENT: [(&str, &str); 14] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    // A missing object is an error, never a reason to call another machine; and no protocol at all is allowed.
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_SSH_COMMAND", "/bin/false"),
    // An id names what it is the digest of, not what a repository would rather show.
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "/bin/false"),
    ("GIT_PAGER", "cat"),
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
];

/// What a call of Git gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub output: Vec<u8>,
    /// What it complained of, without white space at its ends.
    pub complaint: String,
}

impl Answer {
    /// The output as text, without white space at its ends.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }

    /// The same, if Git succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with Git's complaint when it did not.
    pub fn succeeded(self) -> Result<Self, Error> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Error::new(format!("git said: {}", self.complaint)).kind(ErrorKind::Invalid))
    }
}

/// Runs Git in a repository, as [`ask`], with nothing to read and at most [`OUTPUT_LIMIT`] bytes to answer. Blocks the thread.
///
/// # Errors
/// As there.
pub fn run(repository: &Path, arguments: &[&str]) -> Result<Answer, Error> {
    ask(repository, arguments, Vec::new(), OUTPUT_LIMIT)
}

/// Runs Git in a repository, with `input` to read and at most `limit` bytes to answer. Blocks the thread, at most for [`DEADLINE`].
///
/// # Errors
/// [`ErrorKind::Invalid`] when `repository` is no folder, belongs to several users, or the answer is longer; when Git is missing or not done at the deadline. That Git itself
/// found an error is an [`Answer`].
pub fn ask(repository: &Path, arguments: &[&str], input: Vec<u8>, limit: u64) -> Result<Answer, Error> {
    let running = || format!("running git in {}", repository.display());
    let mut child = command(repository, arguments)?.spawn().map_err(|error| missing("setpriv", "util-linux", &error.to_string()))?;
    let answer = attended(&mut child, input, limit);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context(running)?;
    let (output, complaint) = answer.context(running)?;
    let answer = Answer { status, output, complaint };
    if answer.status.code() == Some(PROGRAM_MISSING) {
        return Err(missing("git", "git", &answer.complaint));
    }
    if answer.complaint.contains("dubious ownership") {
        return Err(Error::new(format!("{} and its `.git` do not belong to the same user", repository.display()))
            .kind(ErrorKind::Invalid)
            .hint("give all of it to the one who owns the folder: `chown -R`"));
    }
    Ok(answer)
}

/// The command, as the owner of the repository. There is no `safe.directory` in it: Git's own check must find that all belongs to this owner.
fn command(repository: &Path, arguments: &[&str]) -> Result<Command, Error> {
    let metadata = repository.metadata().ok().filter(std::fs::Metadata::is_dir).ok_or_else(|| {
        Error::new(format!("{} is no folder", repository.display()))
            .kind(ErrorKind::Invalid)
            .hint("a project is the folder of a Git repository")
    })?;
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    if rustix::process::geteuid().is_root() && metadata.uid() != 0 {
        command.arg(format!("--reuid={}", metadata.uid())).arg(format!("--regid={NO_GROUP}"));
        command.args(["--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]);
    }
    command.args(["git", "--no-pager"]);
    SETTINGS.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    command.args(arguments).current_dir(repository);
    command.env_clear().envs(ENVIRONMENT).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Gives a child its input and takes what it says, all at once: a full pipe would stop both.
fn attended(child: &mut Child, input: Vec<u8>, limit: u64) -> Result<(Vec<u8>, String), Error> {
    let end = Instant::now() + DEADLINE;
    if let Some(mut stdin) = child.stdin.take() {
        // Git that ends early says why itself.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let output = child.stdout.take().map(|stdout| collected(stdout, limit));
    let complaint = child.stderr.take().map(|stderr| collected(stderr, COMPLAINT_LIMIT));
    let output = taken(output, end)?;
    if output.len() as u64 > limit {
        return Err(Error::new(format!("its answer has more than {limit} bytes")).kind(ErrorKind::Invalid));
    }
    let mut complaint = taken(complaint, end)?;
    complaint.truncate(usize::try_from(COMPLAINT_LIMIT).unwrap_or(usize::MAX));
    Ok((output, String::from_utf8_lossy(&complaint).trim().to_owned()))
}

type Collected = mpsc::Receiver<Result<Vec<u8>, std::io::Error>>;

/// Reads a stream on a thread of its own, up to one byte more than `limit`, which tells that there was more. What follows blocks or ends the writer.
fn collected(stream: impl Read + Send + 'static, limit: u64) -> Collected {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        // Whoever waited may have given up at the deadline.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

fn taken(collected: Option<Collected>, end: Instant) -> Result<Vec<u8>, Error> {
    let Some(collected) = collected else { return Ok(Vec::new()) };
    let left = end.saturating_duration_since(Instant::now());
    let bytes = collected.recv_timeout(left).map_err(|_| {
        Error::new(format!("it was not done after {} seconds", DEADLINE.as_secs()))
            .hint("see whether all files of the repository can be read")
    })?;
    bytes.context(|| "reading what it said".into())
}

fn missing(program: &str, package: &str, why: &str) -> Error {
    Error::new(format!("the program `{program}` could not be started: {why}")).hint(format!("install it: apt-get install {package}"))
}
