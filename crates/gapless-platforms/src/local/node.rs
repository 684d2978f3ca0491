//! Nodes on disk. A node's folder says how far it has come, and is written before and after each thing that is done for it:
//!
//! | file | since |
//! |---|---|
//! | `node.json` | it was decided: nothing of it may exist without |
//! | `running.json` | its command was started |
//! | `exit.json` | its command ended, or could not be started |
//!
//! A folder with `node.json` alone is a node whose making was broken off: it never ran, and is made anew under the same name. When a node was destroyed, a tombstone stays, so
//! that it is never made again.

use super::check::WorkerCheck;
use super::file;
use super::machine::Ground;
use super::names::Key;
use super::process::{End, Process};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Condition;
use gapless_engine::declaration::StopSignal;
use gapless_engine::error::{Context, Error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How many logs of destroyed nodes are kept: enough to look back over some dozen rollouts.
const LOGS_KEPT: usize = 200;

/// The most output that is kept of a node, in bytes: beyond it the file begins anew.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// How much of a node's last output is told with its end, in bytes.
const TAIL_BYTES: usize = 400;

/// What is decided of a node before anything of it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The image it is made from, as verified.
    pub image: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The port of its application; a worker has none.
    pub port: Option<u16>,
    /// The path of its health check, if the proxies check it.
    pub check: String,
    /// How it is checked, if it is a worker.
    #[serde(default)]
    pub worker: Option<WorkerCheck>,
    /// The name of the signal that asks it to end.
    #[serde(default)]
    pub stop_signal: String,
}

impl NodeRecord {
    /// The signal that asks it to end. Earlier records name none.
    #[must_use]
    pub fn signal(&self) -> StopSignal {
        StopSignal::ALL.into_iter().find(|signal| signal.name() == self.stop_signal).unwrap_or_default()
    }
}

/// How a node's command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its code, if it is known.
    pub code: Option<i32>,
    /// Its last words, or why it could not be started.
    pub output: String,
}

#[derive(Serialize, Deserialize)]
struct Tombstone {
    address: Option<Ipv4Addr>,
}

/// Begins a log anew that has grown past its limit.
///
/// # Errors
/// When it cannot be written.
pub fn bound_log(path: &Path) -> Result<(), Error> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES) {
        let mut log = OpenOptions::new().append(true).open(path).context(|| format!("opening {}", path.display()))?;
        let notice = format!("[gapless: the output grew past {LOG_BYTES} bytes and begins anew here]\n");
        log.set_len(0).and_then(|()| log.write_all(notice.as_bytes())).context(|| format!("shortening {}", path.display()))?;
    }
    Ok(())
}

/// The folders of nodes without a record, in the folder of all nodes.
pub fn undecided(nodes: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut undecided = Vec::new();
    for name in file::names(nodes)?.into_iter().filter(|name| Key::parse_node(name).is_some()) {
        let folder = nodes.join(name);
        if !file::exists(&folder.join("node.json"))? {
            undecided.push(folder);
        }
    }
    Ok(undecided)
}

/// The folders of all nodes.
#[derive(Debug)]
pub struct Nodes {
    folder: PathBuf,
    tombstones: PathBuf,
    logs: PathBuf,
    /// A child's end can be asked for only once: whoever asks writes it down before another may ask.
    settling: Mutex<()>,
}

impl Nodes {
    /// The nodes of the platform whose folder this is.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn open(platform: &Path) -> Result<Self, Error> {
        let nodes = Self {
            folder: platform.join("nodes"),
            tombstones: platform.join("tombstones"),
            logs: platform.join("logs"),
            settling: Mutex::default(),
        };
        [&nodes.folder, &nodes.tombstones, &nodes.logs].into_iter().try_for_each(|folder| file::make_folder(folder, 0o700))?;
        nodes.finish_burials()?;
        nodes.remove_undecided()?;
        Ok(nodes)
    }

    /// Removes the folders of nodes that were never decided: their record was being written when the server ended, and nothing else of them was made.
    fn remove_undecided(&self) -> Result<(), Error> {
        undecided(&self.folder)?.iter().try_for_each(|folder| file::remove_folder(folder))
    }

    /// Removes the folders of nodes whose burial was broken off after their tombstone was written: nobody asks for these nodes any more.
    fn finish_burials(&self) -> Result<(), Error> {
        let names = file::names(&self.folder)?;
        for key in names.iter().filter_map(|name| Key::parse_node(name)).map(|(service, node)| Key::node(&service, node)) {
            if self.is_buried(&key)? {
                self.bury(&key)?;
            }
        }
        Ok(())
    }

    /// A node's folder.
    pub fn folder(&self, key: &Key) -> PathBuf {
        self.folder.join(key.as_str())
    }

    /// Where a node's output goes.
    pub fn log(&self, key: &Key) -> PathBuf {
        self.folder(key).join("output.log")
    }

    /// Every node and task of a service that is gone and whose output is kept.
    pub fn buried_logs(&self, service: &ServiceName) -> Result<Vec<Key>, Error> {
        let prefix = Key::service_prefix(service);
        let names = file::names(&self.logs)?.into_iter().filter(|name| name.starts_with(&prefix));
        Ok(names.filter_map(|name| Key::parse(name.strip_suffix(".log")?)).collect())
    }

    /// The output of a machine that is gone.
    pub fn buried_log(&self, key: &Key) -> PathBuf {
        self.logs.join(format!("{key}.log"))
    }

    /// What was decided of a node.
    pub fn record(&self, key: &Key) -> Result<Option<NodeRecord>, Error> {
        file::read(&self.folder(key).join("node.json"))
    }

    /// Writes down what was decided; nothing of the node may exist before.
    pub fn write_record(&self, key: &Key, record: &NodeRecord) -> Result<(), Error> {
        file::make_folder(&self.folder(key), 0o700)?;
        file::write(&self.folder(key).join("node.json"), record)
    }

    /// Writes down that the command was started.
    pub fn write_running(&self, key: &Key, process: &Process) -> Result<(), Error> {
        file::write(&self.folder(key).join("running.json"), process)
    }

    /// The process of a node whose command was started.
    pub fn running(&self, key: &Key) -> Result<Option<Process>, Error> {
        file::read(&self.folder(key).join("running.json"))
    }

    /// Writes down how the command ended.
    pub fn write_exit(&self, key: &Key, exit: &Exit) -> Result<(), Error> {
        file::write_shared(&self.folder(key).join("exit.json"), exit)
    }

    fn exit(&self, key: &Key) -> Result<Option<Exit>, Error> {
        file::read(&self.folder(key).join("exit.json"))
    }

    /// Whether the node was made, or was and is gone.
    pub fn was_made(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.is_buried(key)? || self.running(key)?.is_some() || self.exit(key)?.is_some())
    }

    /// Whether the node was destroyed, or must never be made.
    pub fn is_buried(&self, key: &Key) -> Result<bool, Error> {
        file::exists(&self.tombstones.join(key.as_str()))
    }

    /// The address that a node has or had.
    pub fn address(&self, key: &Key) -> Option<Ipv4Addr> {
        let buried = || file::read::<Tombstone>(&self.tombstones.join(key.as_str())).ok()??.address;
        self.record(key).ok().flatten().map(|record| record.address).or_else(buried)
    }

    /// Every node that exists in any condition, by service.
    pub fn list(&self) -> Result<Vec<(ServiceName, NodeId)>, Error> {
        let names = file::names(&self.folder)?;
        let mut nodes = Vec::new();
        for (service, node) in names.iter().filter_map(|name| Key::parse_node(name)) {
            if !self.is_buried(&Key::node(&service, node))? {
                nodes.push((service, node));
            }
        }
        Ok(nodes)
    }

    /// Every node of a service that exists in any condition.
    pub fn of(&self, service: &ServiceName) -> Result<Vec<NodeId>, Error> {
        Ok(self.list()?.into_iter().filter(|(other, _)| other == service).map(|(_, node)| node).collect())
    }

    /// Whether a node runs, as the host tells. Writes an end down that nobody has written yet.
    pub fn condition(&self, key: &Key) -> Result<Condition, Error> {
        let Some(process) = self.running(key)? else {
            let exit = self.exit(key)?;
            return Ok(exit.map_or(Condition::Starting, |exit| Condition::Exited { code: exit.code, output: exit.output }));
        };
        if process.is_alive() {
            return Ok(Condition::Running);
        }
        let exit = self.settle(key, &process)?;
        Ok(Condition::Exited { code: exit.code, output: exit.output })
    }

    /// Writes down how a process that ended did so.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn settle(&self, key: &Key, process: &Process) -> Result<Exit, Error> {
        let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = self.exit(key)? {
            return Ok(exit);
        }
        let exit = Exit { code: process.end().map(End::code), output: file::tail(&self.log(key), TAIL_BYTES) };
        self.write_exit(key, &exit)?;
        Ok(exit)
    }

    /// Writes a destroyed node's tombstone and removes its folder; its log is kept.
    pub fn bury(&self, key: &Key) -> Result<(), Error> {
        if !self.is_buried(key)? {
            file::write(&self.tombstones.join(key.as_str()), &Tombstone { address: self.address(key) })?;
        }
        self.keep_log(key, &self.log(key))?;
        file::remove_folder(&self.folder(key))
    }

    /// Keeps the output of a machine that goes.
    pub fn keep_log(&self, key: &Key, log: &Path) -> Result<(), Error> {
        if !file::exists(log)? {
            return Ok(());
        }
        fs::rename(log, self.buried_log(key)).context(|| format!("keeping the log {}", log.display()))
    }

    /// Whether a group had nodes and all of them were destroyed.
    pub fn is_group_gone(&self, service: &ServiceName, group: GroupId) -> Result<bool, Error> {
        let of_group = |node: &NodeId| node.group == group;
        if self.of(service)?.iter().any(of_group) {
            return Ok(false);
        }
        let prefix = Key::service_prefix(service);
        let buried = file::names(&self.tombstones)?;
        Ok(buried.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).any(|node| of_group(&node)))
    }

    /// Removes the oldest logs of destroyed nodes beyond [`LOGS_KEPT`].
    ///
    /// # Errors
    /// When they cannot be listed or removed.
    pub fn forget_logs(&self) -> Result<(), Error> {
        let mut logs: BTreeMap<(std::time::SystemTime, String), PathBuf> = BTreeMap::new();
        for name in file::names(&self.logs)? {
            let path = self.logs.join(&name);
            if let Ok(changed) = fs::metadata(&path).and_then(|log| log.modified()) {
                logs.insert((changed, name), path);
            }
        }
        let surplus = logs.len().saturating_sub(LOGS_KEPT);
        for path in logs.values().take(surplus) {
            match fs::remove_file(path) {
                // Another burial took it away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.context(|| format!("removing the old log {}", path.display()))?,
            }
        }
        Ok(())
    }

    /// A node that the runtime started although its maker died before it could write that down.
    pub fn adopt(&self, ground: &Ground, key: &Key) -> Result<Option<Process>, Error> {
        let Some(process) = ground.started(key) else { return Ok(None) };
        self.write_running(key, &process)?;
        Ok(Some(process))
    }
}
