//! Tasks on disk. A task's folder says how far it has come:
//!
//! | file | since |
//! |---|---|
//! | `task.json` | it was decided: nothing of its machine may exist without |
//! | `begun.json` | its command may run from now on: whoever finds it must not run it again |
//! | `keeper.json` | its keeper was started |
//! | `exit` | its command ended, or could not be started: the keeper's word |
//! | `gone.json` | its group was destroyed, or its deadline has passed: it is being ended |
//!
//! What came of it is written into another folder, and stays: a task that ended is never run again. Then the machine goes, and the task's folder with it; its output is kept as a node's is.

use crate::local::machine::runtime_error;
use crate::local::names::{Key, Named};
use crate::local::node::Nodes;
use crate::local::process::{self, Process};
use crate::local::{file, lock};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_engine::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How much of a task's last output is told with its end, in bytes: the last lines of a failed migration.
const TAIL_BYTES: usize = 1000;

/// What is decided of a task before anything of its machine exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its machine's address.
    pub address: Ipv4Addr,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may run from its start, in milliseconds. The first deadline stays.
    pub deadline_ms: u64,
    /// The name of the signal that asks it to end.
    pub stop_signal: String,
}

/// From when on its command may run.
#[derive(Serialize, Deserialize)]
struct Begun {
    /// In which start of the machine.
    boot: String,
}

/// Why a task is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its deadline has passed.
    DeadlinePassed,
    /// Its group was destroyed.
    GroupDestroyed,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnd {
    /// Its command ended by itself, with this status.
    Exited(i32),
    /// It was ended.
    Ended(Ending),
    /// Nobody can know: the machine was restarted, or its keeper was killed.
    Unknown,
    /// Whoever was asked by HTTP answered with this status.
    Answered(u16),
    /// Whoever was asked by HTTP did not answer within the deadline.
    Unanswered,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// How it ended.
    pub end: TaskEnd,
    /// What was run, for people.
    pub what: String,
    /// The last lines of its output.
    pub output: String,
    /// How long it was allowed to run, in milliseconds.
    pub deadline_ms: u64,
}

impl TaskResult {
    /// What the engine is told of it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it did not end well.
    pub fn outcome(&self, name: &str) -> Result<(), Error> {
        let (what, deadline) = (&self.what, Duration::from_millis(self.deadline_ms));
        let whole = format!("`gapless logs {name}` shows all that it wrote");
        let partly = format!("it may have run partly: look at what it has done ({whole}), put that right, then deploy again");
        let (why, hint) = match self.end {
            TaskEnd::Exited(0) | TaskEnd::Answered(200..=299) => return Ok(()),
            TaskEnd::Exited(status) => (format!("`{what}` ended with status {status}"), whole),
            TaskEnd::Ended(Ending::DeadlinePassed) => (format!("`{what}` was ended because it ran longer than {deadline:?}"), partly),
            TaskEnd::Ended(Ending::GroupDestroyed) => (format!("`{what}` was ended because its group was destroyed"), partly),
            TaskEnd::Unknown => {
                (format!("nobody knows how `{what}` ended: this machine or what watched it was restarted meanwhile"), partly)
            }
            TaskEnd::Answered(status) => {
                (format!("{what} was answered with {status}"), "a hook passes with a status from 200 to 299".to_string())
            }
            TaskEnd::Unanswered => (
                format!("{what} was not answered within {deadline:?}"),
                "it may have been received: look at what it has done, then deploy again".to_string(),
            ),
        };
        let last = if self.output.is_empty() { String::new() } else { format!("; its last output: {}", self.output) };
        Err(Error::new(format!("{why}{last}")).kind(ErrorKind::Invalid).hint(hint))
    }
}

/// What the host tells of a task of which nothing runs any more.
pub struct Left {
    /// Whether the runtime started its command.
    pub was_started: bool,
    /// The status that its keeper wrote down.
    pub exit: Option<i32>,
    /// Why it was ended, if it was.
    pub ending: Option<Ending>,
}

/// Writes down that, and why, a task is being ended: in the first of these places, and where that has no room, in the second. The first reason stays. One that is gone already needs none.
///
/// # Errors
/// When it can be written in neither.
pub fn write_ending(places: &[PathBuf; 2], ending: Ending) -> Result<(), Error> {
    if read_ending(places)?.is_some() {
        return Ok(());
    }
    match file::write_shared(&places[0], &ending) {
        Err(error) if error.error_kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => file::write_shared(&places[1], &ending).map_err(|_| error),
        Ok(()) => Ok(()),
    }
}

/// Why a task is ended, or was, if anybody wanted that.
///
/// # Errors
/// When it cannot be read.
pub fn read_ending(places: &[PathBuf; 2]) -> Result<Option<Ending>, Error> {
    let [first, second] = places;
    file::read(first).and_then(|ending| if ending.is_some() { Ok(ending) } else { file::read(second) })
}

/// What is to be done with a task whose folder is there.
#[derive(Debug)]
pub enum Stand {
    /// Nothing of it has run: it may be begun, if it still shall.
    Decided,
    /// It runs: this process ends when it has ended.
    Runs(Process),
    /// It ended.
    Ended(TaskEnd),
    /// Its command could not be started, for this reason: nothing of it has run.
    NotStarted(String),
}

/// The folders of tasks of which nothing is to be waited for: they were never begun, or ended and were written down.
///
/// # Errors
/// When they cannot be listed.
pub fn over(platform: &Path) -> Result<Vec<String>, Error> {
    let (folder, results) = (platform.join("tasks"), platform.join("results"));
    let mut over = Vec::new();
    for name in file::names(&folder)?.into_iter().filter(|name| Key::parse(name).is_some()) {
        if !file::exists(&folder.join(&name).join("begun.json"))? || file::exists(&results.join(&name))? {
            over.push(name);
        }
    }
    Ok(over)
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The folders of all tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    folder: PathBuf,
    results: PathBuf,
    /// One at a time for each task: whoever runs it, or waits for it, has its turn.
    turns: Mutex<BTreeMap<Key, Turn>>,
    /// One at a time for each service: whoever begins a command waits for the others' ends with it.
    beginnings: Mutex<BTreeMap<ServiceName, Turn>>,
    /// Held from the last look whether a command may begin until it is written down that it has.
    beginning: Mutex<()>,
}

impl Tasks {
    /// The tasks of the platform whose folder this is, to look at.
    pub fn of_platform(platform: &Path) -> Self {
        Self { folder: platform.join("tasks"), results: platform.join("results"), ..Self::default() }
    }

    /// The tasks of the platform whose folder this is.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(platform: &Path) -> Result<Self, Error> {
        let tasks = Self::of_platform(platform);
        [&tasks.folder, &tasks.results].into_iter().try_for_each(|folder| file::make_folder(folder, 0o700))?;
        Ok(tasks)
    }

    /// The turn of a task.
    pub fn turn(&self, key: &Key) -> Turn {
        Arc::clone(lock(&self.turns).entry(key.clone()).or_default())
    }

    /// The turn to begin a command of this service.
    pub fn turn_to_begin(&self, service: &ServiceName) -> Turn {
        Arc::clone(lock(&self.beginnings).entry(service.clone()).or_default())
    }

    /// A task's folder.
    pub fn folder(&self, key: &Key) -> PathBuf {
        self.folder.join(key.as_str())
    }

    /// Where a task's output goes.
    pub fn log(&self, key: &Key) -> PathBuf {
        self.folder(key).join("output.log")
    }

    fn place(&self, key: &Key, name: &str) -> PathBuf {
        self.folder(key).join(name)
    }

    /// Every task whose folder is there.
    pub fn standing(&self) -> Result<Vec<Key>, Error> {
        let keys = file::names(&self.folder)?;
        let is_task = |key: &Key| matches!(key.names(), Some(Named::Task(..)));
        Ok(keys.iter().filter_map(|name| Key::parse(name)).filter(is_task).collect())
    }

    /// Those of a service, with their groups.
    pub fn of(&self, service: &ServiceName) -> Result<Vec<(GroupId, Key)>, Error> {
        let of_service = |key: Key| match key.names() {
            Some(Named::Task(other, group, _)) if other == *service => Some((group, key)),
            _ => None,
        };
        Ok(self.standing()?.into_iter().filter_map(of_service).collect())
    }

    /// What was decided of a task.
    pub fn record(&self, key: &Key) -> Result<Option<TaskRecord>, Error> {
        file::read(&self.place(key, "task.json"))
    }

    /// Writes down what was decided.
    pub fn write_record(&self, key: &Key, record: &TaskRecord) -> Result<(), Error> {
        file::make_folder(&self.folder(key), 0o700)?;
        file::write(&self.place(key, "task.json"), record)
    }

    /// Writes down that the command may run from now on, if it still may.
    ///
    /// # Errors
    /// When it may not, and when it cannot be written.
    pub fn write_begun(&self, key: &Key, assert_may: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let _alone = lock(&self.beginning);
        assert_may()?;
        file::write(&self.place(key, "begun.json"), &Begun { boot: process::boot() })
    }

    /// Whether the command may run, or have run. Once this says no, whoever begins it sees whatever was written down before it was asked.
    pub fn is_begun(&self, key: &Key) -> Result<bool, Error> {
        let _no_other_begins = lock(&self.beginning);
        file::exists(&self.place(key, "begun.json"))
    }

    /// Every task that has begun, or has ended.
    pub fn begun(&self) -> Result<Vec<Key>, Error> {
        let mut begun = Vec::new();
        for key in self.standing()? {
            if file::exists(&self.place(&key, "begun.json"))? {
                begun.push(key);
            }
        }
        // After those that stand: who ends one writes down what came of it first.
        begun.extend(file::names(&self.results)?.iter().filter_map(|name| Key::parse(name)));
        Ok(begun)
    }

    /// A task of a later group of the service that has begun, or has ended.
    pub fn begun_later(&self, service: &ServiceName, group: GroupId) -> Result<Option<(GroupId, Task)>, Error> {
        let later = |key: &Key| match key.names() {
            Some(Named::Task(other, later, task)) if other == *service && later.instance > group.instance => Some((later, task)),
            _ => None,
        };
        Ok(self.begun()?.iter().find_map(later))
    }

    /// Writes down who keeps the command.
    pub fn write_keeper(&self, key: &Key, keeper: &Process) -> Result<(), Error> {
        file::write(&self.place(key, "keeper.json"), keeper)
    }

    fn keeper(&self, key: &Key) -> Result<Option<Process>, Error> {
        file::read(&self.place(key, "keeper.json"))
    }

    /// Where the keeper writes how the command ended.
    pub fn exit_file(&self, key: &Key) -> PathBuf {
        self.place(key, "exit")
    }

    /// Where it is written down that, and why, the task is ended.
    pub fn ending_file(&self, key: &Key) -> PathBuf {
        self.place(key, "gone.json")
    }

    /// How far a task has come. `keeper` are the processes of its keeper's control group, `machine` its command's process, if that runs. What is left of it is asked for only
    /// when neither runs: until then its end may just be written down.
    pub fn stand(
        &self,
        key: &Key,
        keeper: &[i32],
        machine: Option<Process>,
        left: impl FnOnce() -> Result<Left, Error>,
    ) -> Result<Stand, Error> {
        let Some(begun) = file::read::<Begun>(&self.place(key, "begun.json"))? else { return Ok(Stand::Decided) };
        // A server that was killed right after it started the keeper did not write down who that is: it is found by its group.
        let known = self.keeper(key)?.filter(Process::is_alive);
        let keeper = known.or_else(|| keeper.iter().filter_map(|pid| Process::of(*pid)).find(Process::is_alive));
        if let Some(running) = keeper.or(machine) {
            return Ok(Stand::Runs(running));
        }
        let this_start = begun.boot == process::boot();
        let left = left()?;
        Ok(match (left.ending, left.exit) {
            (Some(ending), _) => Stand::Ended(TaskEnd::Ended(ending)),
            (None, Some(status)) if left.was_started || !this_start => Stand::Ended(TaskEnd::Exited(status)),
            (None, Some(_)) => Stand::NotStarted(runtime_error(&self.runtime_errors(key))),
            (None, None) if this_start && !left.was_started => Stand::NotStarted("the server ended before it was started".to_string()),
            (None, None) => Stand::Ended(TaskEnd::Unknown),
        })
    }

    /// Where the runtime writes down why it could not start the command.
    pub fn runtime_errors(&self, key: &Key) -> PathBuf {
        self.place(key, "runtime.log")
    }

    /// What came of a task that ended.
    pub fn result(&self, key: &Key) -> Result<Option<TaskResult>, Error> {
        file::read(&self.results.join(key.as_str()))
    }

    /// Writes down what came of a task. The first word stays.
    pub fn write_result(&self, key: &Key, result: &TaskResult) -> Result<(), Error> {
        if self.result(key)?.is_some() {
            return Ok(());
        }
        file::write_shared(&self.results.join(key.as_str()), result)
    }

    /// What came of a task that ended so.
    pub fn conclude(&self, key: &Key, record: &TaskRecord, end: TaskEnd) -> TaskResult {
        TaskResult { end, what: record.command.join(" "), output: file::tail(&self.log(key), TAIL_BYTES), deadline_ms: record.deadline_ms }
    }

    /// Removes a task's folder, when nothing else is left of it; its output is kept.
    pub fn bury(&self, nodes: &Nodes, key: &Key) -> Result<(), Error> {
        nodes.keep_log(key, &self.log(key))?;
        file::remove_folder(&self.folder(key))
    }
}
