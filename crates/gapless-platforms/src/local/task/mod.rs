//! Tasks: release commands and hooks, each run once for its group.
//!
//! A command runs in a node of its own, set up as the group's nodes are. Its keeper outlives the server and writes its status down. A task that was begun is never begun again: whoever
//! asks for it, this server or the next, waits for the one that runs, or is told what came of it.

mod backup;
mod hook;
mod keeper;
mod record;

pub use backup::{RESULTS_FOLDER, begun_tasks, copy_results};
pub use record::{Tasks, over};

use self::hook::Call;
use self::keeper::Words;
use self::record::{Ending, Stand, TaskRecord, TaskResult};
use super::blueprint::{Blueprint, Planned};
use super::cgroup::processes;
use super::machine::{MachineRemains, STOP_GRACE};
use super::names::{Key, task_node};
use super::process::Process;
use super::route::milliseconds;
use super::{LocalPlatform, Shared, blocking, file};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_engine::declaration::{Hook, ServiceDeclaration, StopSignal, Tasks as Declared};
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::UnpackedImage;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// A task as it is asked for.
#[derive(Clone)]
struct Asked {
    declaration: Arc<ServiceDeclaration>,
    group: GroupId,
    task: Task,
    deadline: Duration,
}

impl Asked {
    fn key(&self) -> Key {
        Key::task(&self.declaration.service, self.group, self.task)
    }

    fn name(&self) -> String {
        task_node(self.group, self.task)
    }
}

/// What a task of a declaration is.
enum Work<'a> {
    Command(&'a [String]),
    Post(&'a str),
}

fn declared(tasks: &Declared, task: Task) -> Option<Work<'_>> {
    let hook = match task {
        Task::ReleaseCommand => return tasks.release_command.as_deref().map(Work::Command),
        Task::BeforeShift => tasks.before_shift.as_ref(),
        Task::AfterShift => tasks.after_shift.as_ref(),
    };
    hook.map(|hook| match hook {
        Hook::Command(command) => Work::Command(command),
        Hook::Http { url } => Work::Post(url),
    })
}

impl LocalPlatform {
    /// Runs a task once. It goes on when nobody waits for it any more.
    pub(super) async fn run_task_once(
        &self,
        declaration: Arc<ServiceDeclaration>,
        group: GroupId,
        task: Task,
        deadline: Duration,
    ) -> Result<(), Error> {
        let at = format!("running the {task} of group {group} of {}", declaration.service);
        let (platform, asked) = (self.clone(), Asked { declaration, group, task, deadline });
        let work = tokio::spawn(async move { platform.run_asked(&asked).await }.in_current_span());
        work.await.unwrap_or_else(|error| Err(Error::new(format!("it broke off: {error}")))).context(|| at)
    }

    async fn run_asked(&self, asked: &Asked) -> Result<(), Error> {
        let (key, tasks) = (asked.key(), &self.shared.tasks);
        let _turn = tasks.turn(&key).lock_owned().await;
        if let Some(result) = tasks.result(&key)? {
            self.remove_remains(&key).await;
            return result.outcome(&asked.name());
        }
        match declared(&asked.declaration.tasks, asked.task) {
            None => Ok(()),
            Some(Work::Command(command)) => {
                if !tasks.is_begun(&key)? {
                    self.begin(asked, command).await?;
                }
                self.finish(&key).await?.outcome(&asked.name())
            }
            Some(Work::Post(url)) => {
                self.shared.assert_may_begin(asked)?;
                let call = Call {
                    installation: self.shared.ground.marks.installation(),
                    content: asked.declaration.content(),
                    service: &asked.declaration.service,
                    group: asked.group,
                    task: asked.task,
                };
                let result = hook::post(&call, url, asked.deadline).await?;
                tasks.write_result(&key, &result)?;
                result.outcome(&asked.name())
            }
        }
    }

    /// Makes the task's machine and starts its command, when no other task of the service runs.
    async fn begin(&self, asked: &Asked, command: &[String]) -> Result<(), Error> {
        self.shared.assert_may_begin(asked)?;
        // Before the image is unpacked, too: nothing at all is made of a task that does not fit.
        self.addresses_beside(asked).await?;
        let image = self.shared.images.unpacked(asked.declaration.image).await?;
        // After the unpacking, which is long: whoever is begun meanwhile is waited for.
        let beginning = self.shared.tasks.turn_to_begin(&asked.declaration.service).lock_owned().await;
        self.others_ended(&asked.declaration.service, &asked.key()).await?;
        self.shared.assert_may_begin(asked)?;
        let listed = self.addresses_beside(asked).await?;
        let (shared, asked, command) = (Arc::clone(&self.shared), asked.clone(), command.to_vec());
        blocking(move || {
            let _beginning = beginning;
            let made = shared.begin_task(&asked, &command, &image, &listed);
            if made.is_err() && !shared.tasks.is_begun(&asked.key())? {
                shared.remove_task(&asked.key())?;
            }
            made
        })
        .await
    }

    /// The addresses that the task's machine may not have, when there is room for it on this host.
    async fn addresses_beside(&self, asked: &Asked) -> Result<BTreeSet<std::net::Ipv4Addr>, Error> {
        let listed = self.shared.listed(&self.shared.proxies.look().await);
        self.shared.check_room(&asked.declaration, &[asked.key()], &listed)?;
        Ok(listed)
    }

    /// Waits until no other task of the service runs: two migrations at once are one too many, also when the first one's rollout was given up meanwhile. None begins in the
    /// meantime, because the caller has the turn to begin.
    async fn others_ended(&self, service: &ServiceName, key: &Key) -> Result<(), Error> {
        for (_, other) in self.shared.tasks.of(service)?.into_iter().filter(|(_, other)| other != key) {
            while let Some(process) = self.running_task(&other).await? {
                tokio::select! {
                    () = process.ended() => {}
                    // A turn that is free although the command runs: whoever had it could not end the task, and nobody else heeds its deadline.
                    _turn = self.shared.tasks.turn(&other).lock_owned() => {
                        if self.running_task(&other).await?.is_some() {
                            self.finish(&other).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The process of a task that was begun, if that runs.
    async fn running_task(&self, key: &Key) -> Result<Option<Process>, Error> {
        let (shared, own) = (Arc::clone(&self.shared), key.clone());
        Ok(match blocking(move || shared.task_stand(&own)).await? {
            Stand::Runs(process) => Some(process),
            Stand::Decided | Stand::Ended(_) | Stand::NotStarted(_) => None,
        })
    }

    /// Waits for the end of a task that was begun, writes down what came of it, and removes its machine.
    async fn finish(&self, key: &Key) -> Result<TaskResult, Error> {
        let Some(record) = self.shared.tasks.record(key)? else {
            let result = self.shared.tasks.result(key)?;
            return result.ok_or_else(|| Error::new(format!("{key} is gone, and nothing is known of it")));
        };
        let end = loop {
            let (shared, own) = (Arc::clone(&self.shared), key.clone());
            match blocking(move || shared.task_stand(&own)).await? {
                Stand::Ended(end) => break end,
                Stand::Decided => return Err(Error::new(format!("{key} was never begun"))),
                Stand::NotStarted(reason) => {
                    let (shared, own) = (Arc::clone(&self.shared), key.clone());
                    blocking(move || shared.remove_task(&own)).await?;
                    return Err(Error::new(format!("`{}` could not be started: {reason}", record.command.join(" "))));
                }
                Stand::Runs(process) => {
                    // Somebody may have ended it before it had begun to run.
                    let ending = record::read_ending(&self.shared.ending_files(key))?;
                    let deadline = if ending.is_some() { 0 } else { record.deadline_ms };
                    let left = Duration::from_millis(deadline).saturating_sub(process.age());
                    if tokio::time::timeout(left, process.ended()).await.is_err() {
                        self.end_task(key, &record, ending.unwrap_or(Ending::DeadlinePassed)).await?;
                    }
                    // It may be a child of this process; how it ended, it has written down itself.
                    let _reaped = process.end();
                }
            }
        };
        let (shared, own) = (Arc::clone(&self.shared), key.clone());
        let result = blocking(move || {
            let result = shared.tasks.conclude(&own, &record, end);
            shared.tasks.write_result(&own, &result).map(|()| result)
        })
        .await?;
        self.remove_remains(key).await;
        Ok(result)
    }

    /// Removes what there is of a task whose result is written down, also by a server that was killed before it had removed all. That something of it stays does not
    /// change what came of it.
    async fn remove_remains(&self, key: &Key) {
        let (shared, own) = (Arc::clone(&self.shared), key.clone());
        let removed = blocking(move || if file::exists(&shared.tasks.folder(&own))? { shared.remove_task(&own) } else { Ok(()) });
        if let Err(error) = removed.await {
            tracing::warn!(%error, task = %key, "a task ended, and something of its machine is left: the next start removes it");
        }
    }

    /// Ends a task that runs: asks it, and takes it away after a grace. Returns when its keeper has ended too, or was.
    async fn end_task(&self, key: &Key, record: &TaskRecord, ending: Ending) -> Result<(), Error> {
        let (shared, own, signal) = (Arc::clone(&self.shared), key.clone(), record.signal());
        blocking(move || {
            // What fills the disk must end although nobody can write down why. Where somebody can, it is before: a command that ends well when it is asked to end has not done its work.
            let places = shared.ending_files(&own);
            let written = record::write_ending(&places, ending);
            // Without that it is not even asked: it could end well.
            let grace = if written.is_ok() { STOP_GRACE } else { Duration::ZERO };
            let remains = MachineRemains { key: own.clone(), address: None, signal, grace };
            shared.ground.stop(&remains)?;
            shared.ground.end_keeper(&remains.key)?;
            written.or_else(|_| record::write_ending(&places, ending))
        })
        .await
    }

    /// Takes over what an earlier server left of tasks: what runs is waited for, what ended is written down, what was never begun is removed.
    pub(super) fn take_tasks_over(&self) -> Result<(), Error> {
        for key in self.shared.tasks.standing()? {
            let platform = self.clone();
            tokio::spawn(async move {
                let _turn = platform.shared.tasks.turn(&key).lock_owned().await;
                if let Err(error) = platform.take_over(&key).await {
                    tracing::warn!(%error, task = %key, "a task of an earlier server did not come to its end");
                }
            });
        }
        Ok(())
    }

    async fn take_over(&self, key: &Key) -> Result<(), Error> {
        let tasks = &self.shared.tasks;
        if tasks.is_begun(key)? && tasks.result(key)?.is_none() {
            return self.finish(key).await.map(drop);
        }
        let (shared, own) = (Arc::clone(&self.shared), key.clone());
        blocking(move || shared.remove_task(&own)).await
    }

    /// Ends the tasks of those of these groups of which no node is left: nobody waits for what comes of them.
    pub(super) async fn end_tasks_of(&self, service: &ServiceName, groups: &BTreeSet<GroupId>) -> Result<(), Error> {
        for (group, key) in self.shared.tasks.of(service)?.into_iter().filter(|(group, _)| groups.contains(group)) {
            if !self.shared.nodes.is_group_gone(service, group)? {
                continue;
            }
            let turn = self.shared.tasks.turn(&key);
            // Whoever has its turn and has not begun it sees that the group is gone, and removes it when the others have ended.
            let _turn = if self.shared.tasks.is_begun(&key)? {
                if let Some(record) = self.shared.tasks.record(&key)? {
                    self.end_task(&key, &record, Ending::GroupDestroyed).await?;
                }
                // Whoever waits for it has its turn, and removes it.
                turn.lock_owned().await
            } else {
                let Ok(turn) = turn.try_lock_owned() else { continue };
                turn
            };
            if file::exists(&self.shared.tasks.folder(&key))? {
                self.take_over(&key).await?;
            }
        }
        Ok(())
    }
}

impl TaskRecord {
    fn signal(&self) -> StopSignal {
        StopSignal::ALL.into_iter().find(|signal| signal.name() == self.stop_signal).unwrap_or_default()
    }
}

impl Shared {
    /// A task may not begin whose group was destroyed, as a rollout's is that was given up, nor one that a later release's has overtaken.
    fn assert_may_begin(&self, asked: &Asked) -> Result<(), Error> {
        let (service, group) = (&asked.declaration.service, asked.group);
        if self.nodes.is_group_gone(service, group)? {
            return Err(Error::new(format!("group {group} was destroyed")).kind(ErrorKind::NotFound));
        }
        match self.tasks.begun_later(service, group)? {
            None => Ok(()),
            Some((later, task)) => Err(Error::new(format!("a later release's command has begun: the {task} of group {later}"))
                .kind(ErrorKind::Invalid)
                .hint("nothing of it was run: deploy again what this release was to bring")),
        }
    }

    fn begin_task(
        &self,
        asked: &Asked,
        command: &[String],
        image: &UnpackedImage,
        listed: &BTreeSet<std::net::Ipv4Addr>,
    ) -> Result<(), Error> {
        let (key, ground) = (asked.key(), &self.ground);
        let record = self.decide_task(asked, command, listed)?;
        let blueprint = Blueprint { ground, declaration: &asked.declaration, image, volumes: &self.volumes };
        let request = blueprint.request(Planned {
            group: asked.group,
            name: asked.name(),
            folder: self.tasks.folder(&key),
            log: self.tasks.log(&key),
            key: key.clone(),
            address: record.address,
            command,
        })?;
        ground.prepare(&request)?;
        ground.link(std::slice::from_ref(&request)).context(|| "linking it to the bridge".into())?;
        ground.connect(&request)?;
        // From here on nobody may begin it again, whatever becomes of this server.
        self.tasks.write_begun(&key, || self.assert_may_begin(asked))?;
        let words = Words { pid: self.task_pid_file(&key), errors: self.tasks.runtime_errors(&key), exit: self.exit_files(&key) };
        let keeper = match keeper::start(ground, &request, &words) {
            Ok(keeper) => keeper,
            Err(error) => {
                if keeper_processes(self, &key).is_empty() && !self.task_pid_file(&key).exists() {
                    self.remove_task(&key)?;
                }
                return Err(error);
            }
        };
        let written = self.tasks.write_keeper(&key, &keeper);
        if written.is_err() && ground.cgroups.unified.is_none() {
            // Nobody would find it: it would write down how a command ended that another one has begun again by then.
            keeper.kill_group();
        }
        written
    }

    /// Gives the task its address and writes the decision down. One whose making was broken off keeps both; what there is of it is removed.
    fn decide_task(&self, asked: &Asked, command: &[String], listed: &BTreeSet<std::net::Ipv4Addr>) -> Result<TaskRecord, Error> {
        let key = asked.key();
        if let Some(record) = self.tasks.record(&key)? {
            self.ground.remove_one(MachineRemains::at_once(key, Some(record.address)))?;
            return Ok(record);
        }
        let settings = &asked.declaration.node;
        let reserved = self.ground.reserve_address(settings.outbound, listed)?;
        let record = TaskRecord {
            address: reserved.address(),
            command: command.to_vec(),
            deadline_ms: milliseconds(asked.deadline),
            stop_signal: settings.stop_signal.name().to_string(),
        };
        reserved.keep_if(self.tasks.write_record(&key, &record), || self.tasks.record(&key))?;
        Ok(record)
    }

    /// In memory, which a full disk does not hinder and which goes with the machine's start, as the command does.
    fn task_pid_file(&self, key: &Key) -> PathBuf {
        self.ground.marks.mounts(key).join("task.pid")
    }

    /// On the disk, and where that is full, in memory.
    fn exit_files(&self, key: &Key) -> [PathBuf; 2] {
        [self.tasks.exit_file(key), self.ground.marks.mounts(key).join("exit")]
    }

    /// As [`Self::exit_files`].
    fn ending_files(&self, key: &Key) -> [PathBuf; 2] {
        [self.tasks.ending_file(key), self.ground.marks.mounts(key).join("gone.json")]
    }

    fn task_stand(&self, key: &Key) -> Result<Stand, Error> {
        let left = || {
            Ok(record::Left {
                // The runtime writes the number down after the start: one that was killed in between has started the command all the same.
                was_started: self.ground.was_started(key) || self.task_pid_file(key).exists(),
                exit: self.exit_files(key).iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()),
                ending: record::read_ending(&self.ending_files(key))?,
            })
        };
        self.tasks.stand(key, &keeper_processes(self, key), self.ground.started(key), left)
    }

    /// Removes everything of a task but its result and its output.
    fn remove_task(&self, key: &Key) -> Result<(), Error> {
        let address = self.tasks.record(key)?.map(|record| record.address);
        self.ground.remove_one(MachineRemains::at_once(key.clone(), address))?;
        self.tasks.bury(&self.nodes, key)?;
        self.ground.free(address);
        Ok(())
    }
}

/// The processes of a task's keeper.
fn keeper_processes(shared: &Shared, key: &Key) -> Vec<i32> {
    let unified = shared.ground.cgroups.unified.iter();
    unified.flat_map(|root| processes(&root.join(shared.ground.marks.keeper_cgroup(key).trim_start_matches('/')))).collect()
}
