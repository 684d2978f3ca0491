//! Builds: their numbers, their logs, and what they tell to any number of readers.

use crate::api::Teller;
use crate::server::Server;
use gapless_core::release::ArtifactVersion;
use gapless_engine::error::{Context, Error};
use gapless_engine::store::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::log::{LOG_LIMIT, Log};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The name of the value that holds the last build's number.
const LAST_NUMBER: &str = "builds/last";

/// The most lines of a build that are kept for readers: later output is in the log only.
const LINES_LIMIT: usize = 200_000;

/// The folder that a build works in, beside its log.
const WORKSPACE: &str = "workspace";

/// The builds of an installation.
pub(crate) struct Builds {
    folder: PathBuf,
    numbering: tokio::sync::Mutex<()>,
    running: Mutex<BTreeSet<u64>>,
    took: Mutex<BTreeMap<(String, ArtifactVersion), u64>>,
}

impl Builds {
    /// The builds in this folder. What a dead server's builds were working on is removed; their logs stay.
    pub(crate) fn new(folder: PathBuf) -> Self {
        for build in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let workspace = build.path().join(WORKSPACE);
            if workspace.exists()
                && let Err(error) = fs::remove_dir_all(&workspace)
            {
                tracing::warn!(workspace = %workspace.display(), %error, "what a dead server's build worked on could not be removed");
            }
        }
        Self { folder, numbering: tokio::sync::Mutex::default(), running: Mutex::default(), took: Mutex::default() }
    }

    /// The next number, used once.
    pub(crate) async fn next_number(&self, server: &Server) -> Result<u64, Error> {
        let _one_at_a_time = self.numbering.lock().await;
        let next = server.stored(|records| {
            let last = records.value(LAST_NUMBER)?.and_then(|last| last.parse::<u64>().ok()).unwrap_or(0);
            records.put_value(LAST_NUMBER, &(last + 1).to_string())?;
            Ok(last + 1)
        });
        next.await.context(|| "numbering a build".to_string())
    }

    /// Makes the folder of a build: an empty workspace and a log.
    pub(crate) fn open(&self, number: u64) -> Result<(PathBuf, File), Error> {
        let folder = self.folder.join(number.to_string());
        let workspace = folder.join(WORKSPACE);
        let making = || format!("making {}", workspace.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&workspace).context(making)?;
        let log = File::create(folder.join("log")).context(making)?;
        lock(&self.running).insert(number);
        Ok((workspace, log))
    }

    /// The build is over: its workspace goes, its log stays.
    pub(crate) fn close(&self, number: u64) {
        lock(&self.running).remove(&number);
        let workspace = self.folder.join(number.to_string()).join(WORKSPACE);
        if let Err(error) = fs::remove_dir_all(&workspace) {
            tracing::warn!(build = number, %error, "the workspace of a build could not be removed");
        }
    }

    pub(crate) fn remember(&self, artifact: &Artifact, took_ms: u64) {
        lock(&self.took).insert((artifact.name.clone(), artifact.version), took_ms);
    }

    /// How long the build of an artifact took, if this server made it.
    pub(crate) fn took_ms(&self, name: &str, version: ArtifactVersion) -> Option<u64> {
        lock(&self.took).get(&(name.to_string(), version)).copied()
    }

    /// The end of a build's log, if there is such a build.
    pub(crate) fn log(&self, number: u64) -> Result<Option<Log>, Error> {
        let path = self.folder.join(number.to_string()).join("log");
        let reading = || format!("reading {}", path.display());
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context(reading)?,
        };
        let length = file.metadata().context(reading)?.len();
        let start = length.saturating_sub(LOG_LIMIT);
        file.seek(SeekFrom::Start(start)).context(reading)?;
        let mut bytes = Vec::new();
        file.take(LOG_LIMIT).read_to_end(&mut bytes).context(reading)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some(Log { of: format!("build {number}"), text, shortened: start > 0, running: lock(&self.running).contains(&number) }))
    }
}

/// What a build tells: kept for readers that come late, and written to the build's log.
pub(crate) struct Feed {
    lines: Mutex<Vec<BuildLine>>,
    log: Mutex<Option<File>>,
    /// How many lines there are, and whether that is all.
    state: watch::Sender<(usize, bool)>,
}

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), log: Mutex::default(), state: watch::Sender::new((0, false)) })
    }

    /// From now on, lines are written to this file, too.
    pub(crate) fn record_to(&self, log: File) {
        *lock(&self.log) = Some(log);
    }

    pub(crate) fn push(&self, line: BuildLine) {
        if let Some(log) = lock(&self.log).as_mut() {
            // A log that cannot be written (no room) must not end the build: the build's own steps will say so.
            let _ = writeln!(log, "{}", text(&line));
        }
        let mut lines = lock(&self.lines);
        if lines.len() < LINES_LIMIT || !matches!(line, BuildLine::Output { .. }) {
            lines.push(line);
        }
        let count = lines.len();
        drop(lines);
        self.state.send_modify(|state| state.0 = count);
    }

    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.1 = true);
    }

    /// Tells every line to a reader, from the first to the last, unless the reader goes away.
    pub(crate) async fn tell_all(&self, teller: &Teller) {
        let mut state = self.state.subscribe();
        let mut told = 0;
        loop {
            let (count, closed) = *state.borrow_and_update();
            while told < count {
                let line = lock(&self.lines)[told].clone();
                if !teller.tell(&line).await {
                    return;
                }
                told += 1;
            }
            if closed || state.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A line for people.
fn text(line: &BuildLine) -> String {
    match line {
        BuildLine::Begun { build, artifact, commit, .. } => format!("build {build} of {artifact} at commit {commit}"),
        BuildLine::PhaseBegan { phase, .. } => format!("== {phase}"),
        BuildLine::PhaseEnded { phase, cached, layer, .. } => {
            let how = if *cached { "unchanged, nothing was run" } else { "done" };
            format!("== {phase}: {how} {}", layer.as_deref().unwrap_or_default())
        }
        BuildLine::Output { text, .. } => text.clone(),
        BuildLine::Puppet { run, changed } if changed.is_empty() => format!("Puppet, run {run}: nothing to change"),
        BuildLine::Puppet { run, changed } => format!("Puppet, run {run} changed: {}", changed.join(", ")),
        BuildLine::Published { artifact, took_ms, .. } => {
            format!("published {} version {} after {took_ms} ms", artifact.name, artifact.version)
        }
        BuildLine::AlreadyBuilt { artifact } => format!("{} version {} was built from this commit", artifact.name, artifact.version),
        BuildLine::Failed { problem, .. } => format!("failed: {}", problem.what),
        BuildLine::Done => "done".to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
