//! Checks of workers. A worker answers no requests, so no proxy checks it: the platform does, by a program inside its node, or by how long its command has run.
//!
//! What has to outlive the server is in the machine's folder in `/run`, which goes with the machine: that it passed its gate, and that it was asked to end.

use super::cgroup::processes;
use super::machine::{Ground, runtime_error};
use super::names::Key;
use super::process::{self, Process};
use super::route::milliseconds;
use super::{Shared, blocking, file, lock};
use gapless_core::observation::{Evidence, Health};
use gapless_engine::declaration::{CheckKind, ServiceDeclaration, StopSignal};
use gapless_engine::error::{Context, Error, ErrorKind};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::PipeWriter;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

/// The grain of a process's age.
const TICK: Duration = Duration::from_millis(10);

/// How much of a failed check's last output is told, in bytes.
const OUTPUT_BYTES: usize = 200;

/// How much a pipe holds, in bytes (pipe(7)).
const PIPE_BYTES: usize = 65_536;

/// How the names of the folders begin that belong to the checks of a machine.
const CHECKS: &str = "check-";

/// Names the check that runs, in that folder.
const RUNNING: &str = "running.json";

/// How a worker is checked, as its record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCheck {
    /// What a check is.
    pub kind: WorkerCheckKind,
    /// From the start of one check to the start of the next, in milliseconds.
    pub interval_ms: u64,
    /// A program that has not ended after that failed, in milliseconds.
    pub timeout_ms: u64,
    /// How many passed checks in a row the gate asks for.
    pub passes: u32,
}

/// What a check of a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerCheckKind {
    /// A program inside the node; status 0 passes.
    Command(Vec<String>),
    /// The command has run for so long, in milliseconds.
    StayUp(u64),
}

impl WorkerCheck {
    /// The check of a declaration's nodes, if they are workers.
    ///
    /// # Errors
    /// When they are and their check asks for a port.
    pub fn of(declaration: &ServiceDeclaration) -> Result<Option<Self>, Error> {
        if declaration.node.port.is_some() {
            return Ok(None);
        }
        let kind = match &declaration.health.kind {
            CheckKind::Command { command } => WorkerCheckKind::Command(command.clone()),
            CheckKind::StayUp { span } => WorkerCheckKind::StayUp(milliseconds(*span)),
            CheckKind::Http { .. } => {
                return Err(Error::new(format!("{} has no port that its check could ask", declaration.service))
                    .kind(ErrorKind::Invalid)
                    .hint("check a worker by a command, or by how long it stays up"));
            }
        };
        let health = &declaration.health;
        Ok(Some(Self {
            kind,
            interval_ms: milliseconds(health.interval),
            timeout_ms: milliseconds(health.timeout),
            passes: declaration.policy.gate_passes,
        }))
    }

    fn name(&self) -> String {
        match &self.kind {
            WorkerCheckKind::Command(command) => format!("`{}`", command.join(" ")),
            WorkerCheckKind::StayUp(span) => format!("stays up for {:?}", Duration::from_millis(*span)),
        }
    }
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Checked {
    Passed,
    /// The program said no: an answer.
    Refused(String),
    /// There was no answer.
    Silent(String),
}

/// What the checks of a worker say so far.
#[derive(Clone, Debug, Default)]
struct Record {
    health: Health,
    answered: bool,
}

impl Record {
    fn add(&mut self, check: &WorkerCheck, checked: Checked) {
        let (result, is_answer) = match checked {
            Checked::Passed => {
                self.answered = true;
                self.health = Health { passes: self.health.passes.saturating_add(1), ..Health::default() };
                return;
            }
            Checked::Refused(result) => (result, true),
            Checked::Silent(result) => (result, false),
        };
        self.answered |= is_answer;
        let failures = self.health.failures.saturating_add(1);
        self.health = Health {
            passes: 0,
            failures,
            failures_after_answer: self.health.failures_after_answer.saturating_add(u32::from(self.answered)),
            evidence: Some(Evidence { check: check.name(), result, times: failures }),
        };
    }
}

/// What the checks of all workers say.
#[derive(Debug, Default)]
pub struct Checks(Mutex<BTreeMap<Key, Record>>);

impl Checks {
    /// A running worker's health.
    pub fn health(&self, key: &Key, check: &WorkerCheck, process: &Process) -> Health {
        match check.kind {
            WorkerCheckKind::Command(_) => lock(&self.0).get(key).map(|record| record.health.clone()).unwrap_or_default(),
            WorkerCheckKind::StayUp(span) => {
                let long_enough = process.age() >= Duration::from_millis(span);
                Health { passes: if long_enough { check.passes.max(1) } else { 0 }, ..Health::default() }
            }
        }
    }

    /// Forgets a worker.
    pub fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }

    /// Adds what came of a check; the health after it is kept before anybody can see it. Gives it, and whether whoever waits for a change has to hear of it: beyond the gate, one more pass is no news.
    fn add(&self, key: &Key, check: &WorkerCheck, checked: Checked, keep: impl FnOnce(&Health)) -> (Health, bool) {
        let mut records = lock(&self.0);
        let record = records.entry(key.clone()).or_default();
        let before = record.health.clone();
        record.add(check, checked);
        keep(&record.health);
        let is_news = record.health.failures != before.failures || before.passes < check.passes;
        (record.health.clone(), is_news)
    }

    /// A worker that had passed its gate under an earlier server has passed it: nothing of it has changed since.
    pub fn take_over(&self, ground: &Ground, key: &Key, check: &WorkerCheck) {
        if !passed_mark(ground, key).exists() {
            return;
        }
        let record = Record { health: Health { passes: check.passes, ..Health::default() }, answered: true };
        lock(&self.0).entry(key.clone()).or_insert(record);
    }
}

fn passed_mark(ground: &Ground, key: &Key) -> PathBuf {
    ground.marks.mounts(key).join("passed")
}

fn asked_mark(ground: &Ground, key: &Key) -> PathBuf {
    ground.marks.mounts(key).join("asked-to-end")
}

/// In the mark of a worker that was asked to end and did not listen to its signal yet.
const UNHEARD: &str = "unheard";

/// After that a worker that does not listen to its stop signal yet is looked at again: one that has just been started installs its handlers within that time.
const LISTEN_FIRST: Duration = Duration::from_millis(50);

/// The longest time until it is looked at once more: one that has not listened for so long will hardly ever do.
const LISTEN_LONGEST: Duration = Duration::from_secs(1);

/// Whether a worker was asked to end.
pub fn was_asked_to_end(ground: &Ground, key: &Key) -> bool {
    asked_mark(ground, key).exists()
}

/// Whether it was, and has not heard it.
pub fn is_unheard(ground: &Ground, key: &Key) -> bool {
    fs::read_to_string(asked_mark(ground, key)).is_ok_and(|text| text == UNHEARD)
}

/// Asks a worker to end by this signal, and writes that down. Gives whether it listens.
///
/// The mark is written after the signal was sent: if the server is killed in between, the signal is sent twice, which most programs take for one. Written before, it might
/// never be sent, and the worker would be killed at its deadline in the middle of its work.
///
/// # Errors
/// When it cannot be written.
pub fn ask_to_end(ground: &Ground, key: &Key, process: &Process, signal: StopSignal) -> Result<bool, Error> {
    let heard = process.descriptor().is_some_and(|descriptor| process.ask_to_end(&descriptor, signal));
    let path = asked_mark(ground, key);
    fs::write(&path, if heard { "" } else { UNHEARD }).context(|| format!("writing {}", path.display()))?;
    Ok(heard)
}

/// Asks a worker again that did not listen: a signal that a first process has no handler for is lost (pid_namespaces(7)).
pub(super) async fn ask_until_heard(shared: Weak<Shared>, key: Key, process: Process, signal: StopSignal) {
    let mut patience = LISTEN_FIRST;
    while timeout(patience, process.ended()).await.is_err() {
        patience = (patience * 2).min(LISTEN_LONGEST);
        let Some(shared) = shared.upgrade() else { return };
        match ask_to_end(&shared.ground, &key, &process, signal) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, node = %key, "it cannot be kept that a worker was asked to end"),
        }
    }
}

/// Checks a worker until its command ends.
pub(super) async fn check_until_end(shared: Weak<Shared>, key: Key, process: Process, check: WorkerCheck) {
    match check.kind.clone() {
        WorkerCheckKind::StayUp(span) => {
            let span = Duration::from_millis(span);
            // The kernel counts ages in whole ticks: after the exact time, one may still be missing.
            while process.age() < span {
                let left = span.saturating_sub(process.age()) + TICK;
                if timeout(left, process.ended()).await.is_ok() {
                    return;
                }
            }
            shared.upgrade().into_iter().for_each(|shared| shared.tell_news());
        }
        WorkerCheckKind::Command(command) => {
            if let Some(shared) = shared.upgrade() {
                end_earlier(&shared.ground, &key);
            }
            let namespace = process::pid_namespace(process.pid);
            let reap = || namespace.iter().for_each(|namespace| process::reap_in(namespace, &process));
            tokio::select! {
                () = check_for_ever(&shared, &key, &check, &command, &reap) => {}
                () = process.ended() => reap(),
            }
        }
    }
}

async fn check_for_ever(shared: &Weak<Shared>, key: &Key, check: &WorkerCheck, command: &[String], reap: &(impl Fn() + Sync)) {
    let interval = Duration::from_millis(check.interval_ms);
    loop {
        let begun = Instant::now();
        let Some(shared) = shared.upgrade() else { return };
        let checked = check_once(&shared, key, command, Duration::from_millis(check.timeout_ms), reap).await;
        let (_, is_news) = shared.checks.add(key, check, checked, |health| keep_passed(&shared.ground, key, check, health));
        if is_news {
            shared.tell_news();
        }
        drop(shared);
        sleep(interval.saturating_sub(begun.elapsed())).await;
    }
}

/// Keeps on the host that the gate is passed, so that the next server need not begin anew with a worker that is well. An earlier life keeps nothing any more: its checks fail
/// because the next one ends them.
fn keep_passed(ground: &Ground, key: &Key, check: &WorkerCheck, health: &Health) {
    let is_passed = health.passes == check.passes;
    if !is_passed && health.failures != 1 {
        return;
    }
    if let Err(error) = write_passed(ground, key, is_passed) {
        tracing::warn!(%error, node = %key, "it cannot be kept what a worker's checks say");
    }
}

fn write_passed(ground: &Ground, key: &Key, is_passed: bool) -> Result<(), Error> {
    if !ground.lease.is_latest(&ground.marks)? {
        return Ok(());
    }
    let mark = passed_mark(ground, key);
    if is_passed {
        return fs::write(&mark, "").context(|| format!("writing {}", mark.display()));
    }
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("removing {}", mark.display())),
        _ => Ok(()),
    }
}

async fn check_once(shared: &Arc<Shared>, key: &Key, command: &[String], limit: Duration, reap: &(impl Fn() + Sync)) -> Checked {
    let deadline = Instant::now() + limit;
    let (starting, own, command) = (Arc::clone(shared), key.clone(), command.to_vec());
    let (mut words, written) = match LastWords::new() {
        Ok(words) => words,
        Err(error) => return Checked::Silent(error.to_string()),
    };
    let process = match blocking(move || start(&starting.ground, &own, &command, written)).await {
        Ok(process) => process,
        Err(error) => {
            // A runtime that fails half way, as when the worker ends just then, leaves a process inside to this one. Unclaimed, it would keep the worker from ending for ever.
            reap();
            return Checked::Silent(error.to_string());
        }
    };
    if tokio::time::timeout_at(deadline, words.listen(&process)).await.is_err() {
        process.kill_group();
        process.ended().await;
        let _killed = process.end();
        return Checked::Silent(format!("no end within {limit:?}"));
    }
    match process.end() {
        Some(process::End::Exited(0)) => Checked::Passed,
        Some(end) => Checked::Refused(format!("status {}{}", end.code(), words.told())),
        None => Checked::Silent("nobody knows how it ended".to_string()),
    }
}

/// The last words of a check. All that it writes is read, or it would wait for a reader, and no more than that is kept, or it could fill the host's memory.
struct LastWords {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
    is_cut: bool,
}

impl LastWords {
    /// With what the check writes to.
    fn new() -> Result<(Self, PipeWriter), Error> {
        let (read, written) = std::io::pipe().context(|| "opening the output of a check".into())?;
        let pipe = pipe::Receiver::from_owned_fd(read.into()).context(|| "listening to a check".into())?;
        Ok((Self { pipe: Some(pipe), kept: Vec::new(), is_cut: false }, written))
    }

    /// Listens until the process has ended.
    async fn listen(&mut self, process: &Process) {
        let mut ended = std::pin::pin!(process.ended());
        while let Some(pipe) = &self.pipe {
            tokio::select! {
                () = &mut ended => return self.take(),
                readable = pipe.readable() => match readable {
                    Ok(()) => self.take(),
                    Err(_) => self.pipe = None,
                },
            }
            // One that writes without end must not hide that its time is over.
            tokio::task::yield_now().await;
        }
        ended.await;
    }

    /// Takes what is there, as much as a pipe holds at most.
    fn take(&mut self) {
        let mut buffer = [0; PIPE_BYTES];
        let Some(pipe) = &self.pipe else { return };
        match pipe.try_read(&mut buffer) {
            Ok(count) if count > 0 => self.keep(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => self.pipe = None,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let surplus = self.kept.len().saturating_sub(OUTPUT_BYTES);
        self.is_cut |= surplus > 0;
        self.kept.drain(..surplus);
    }

    fn told(&self) -> String {
        let text = file::last_lines(&self.kept, self.is_cut);
        if text.is_empty() { text } else { format!(": {text}") }
    }
}

/// Where this life of the server keeps what belongs to its checks of a machine.
fn check_folder(ground: &Ground, key: &Key) -> PathBuf {
    ground.marks.mounts(key).join(format!("{CHECKS}{}", ground.lease.life()))
}

/// Starts a program inside a machine, as its command is held: the same user, limits and confinement. It is a child of this process from then on: the runtime leaves it to the
/// next one above. It has to be waited for: as long as it is not, the machine's first process cannot end either.
fn start(ground: &Ground, key: &Key, program: &[String], written: PipeWriter) -> Result<Process, Error> {
    let folder = check_folder(ground, key);
    let records = records_without_network(ground, key)?;
    let (pid_file, errors) = (folder.join("pid"), folder.join("runtime.log"));
    // What the check before this one left would be taken for this one's.
    for earlier in [&errors, &pid_file, &folder.join(RUNNING)] {
        let _ = fs::remove_file(earlier);
    }
    let mut command = Command::new(&ground.runtime);
    command.arg("--root").arg(records);
    command.arg("--log").arg(&errors).args(["--log-format", "json", "exec", "--detach", "--pid-file"]).arg(&pid_file);
    command.arg(ground.marks.machine(key)).args(program);
    command.stdout(written.try_clone().context(|| "opening the output of a check twice".into())?).stderr(written);
    enter_network(&mut command, &ground.marks.network_namespace(key))?;
    if !ground.helpers.run_with_output(&mut command, "").context(|| format!("running `{}`", ground.runtime))? {
        return Err(Error::new(format!("it could not be run: {}", runtime_error(&errors))));
    }
    let pid = fs::read_to_string(&pid_file).context(|| format!("reading {}", pid_file.display()))?;
    let process = pid.trim().parse().ok().and_then(Process::of).ok_or_else(|| Error::new("it was gone before it could be waited for"))?;
    let _unwritten = serde_json::to_vec(&process).map(|text| fs::write(folder.join(RUNNING), text));
    Ok(process)
}

/// The runtime's record of a machine, without its network namespace, in a folder of its own. By the whole record, runc up to 1.1 can run nothing inside: it enters the machine's user
/// namespace first, and has no right any more to enter the network namespace, which belongs to the host's. What the record does not name is not entered
/// (libcontainer's `orderNamespacePaths`): so the runtime is started inside that namespace.
fn records_without_network(ground: &Ground, key: &Key) -> Result<PathBuf, Error> {
    let name = ground.marks.machine(key);
    let own = ground.runtime_root().join(&name).join("state.json");
    let mut state: serde_json::Value = file::read(&own)?.ok_or_else(|| Error::new("its node does not run"))?;
    if let Some(namespaces) = state["config"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "NEWNET");
    }
    let records = check_folder(ground, key).join("runtime");
    let copy = records.join(&name).join("state.json");
    if !copy.exists() {
        file::make_folder(&records.join(&name), 0o700)?;
        file::write(&copy, &state)?;
    }
    Ok(records)
}

/// Makes a command enter a network namespace just before its program begins.
fn enter_network(command: &mut Command, namespace: &Path) -> Result<(), Error> {
    let place = File::open(namespace).context(|| format!("opening {}", namespace.display()))?;
    let enter = move || {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(place.as_fd(), kind).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec only one system call happens: no lock, no allocation.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Ends the checks of a machine that earlier servers began and could not end any more.
fn end_earlier(ground: &Ground, key: &Key) {
    let (mounts, own) = (ground.marks.mounts(key), check_folder(ground, key));
    let is_inside = |pid| ground.cgroups.folders(&ground.marks.cgroup(key)).iter().any(|folder| processes(folder).contains(&pid));
    let names = file::names(&mounts).unwrap_or_default();
    for folder in names.iter().filter(|name| name.starts_with(CHECKS)).map(|name| mounts.join(name)).filter(|folder| *folder != own) {
        // The runtime writes the bare number down first.
        let number = || fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok().and_then(Process::of);
        let earlier = file::read::<Process>(&folder.join(RUNNING)).ok().flatten().or_else(number);
        earlier.filter(|earlier| earlier.is_alive() && is_inside(earlier.pid)).iter().for_each(Process::kill_group);
        let _ = file::remove_folder(&folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> WorkerCheck {
        let kind = WorkerCheckKind::Command(vec!["check".to_string(), "queue".to_string()]);
        WorkerCheck { kind, interval_ms: 10, timeout_ms: 100, passes: 2 }
    }

    fn key() -> Key {
        Key::parse("hello.web.r1-i1-n0").unwrap()
    }

    #[test]
    fn only_what_a_program_answered_counts_against_the_gate() {
        let (checks, check) = (Checks::default(), check());
        let refused = || Checked::Refused("status 3: empty".to_string());
        let silent = || Checked::Silent("no end within 1s".to_string());
        let (health, _) = checks.add(&key(), &check, silent(), |_| {});
        assert_eq!((health.passes, health.failures, health.failures_after_answer), (0, 1, 0));
        let (health, _) = checks.add(&key(), &check, refused(), |_| {});
        assert_eq!((health.failures, health.failures_after_answer), (2, 1));
        let evidence = Evidence { check: "`check queue`".to_string(), result: "status 3: empty".to_string(), times: 2 };
        assert_eq!(health.evidence, Some(evidence));
        let (health, _) = checks.add(&key(), &check, silent(), |_| {});
        assert_eq!((health.failures, health.failures_after_answer), (3, 2), "what comes after an answer counts, whatever it is");
        let (health, _) = checks.add(&key(), &check, Checked::Passed, |_| {});
        assert_eq!(health, Health { passes: 1, ..Health::default() });
    }

    #[test]
    fn passes_beyond_the_gate_are_no_news() {
        let (checks, check) = (Checks::default(), check());
        let mut news = Vec::new();
        for checked in [Checked::Passed, Checked::Passed, Checked::Passed, Checked::Silent(String::new()), Checked::Passed] {
            news.push(checks.add(&key(), &check, checked, |_| {}).1);
        }
        assert_eq!(news, [true, true, false, true, true]);
    }
}
