//! A disk in memory that refuses, tears and loses what it was told to write, as real ones do.
//!
//! What was written is seen by everybody at once, and survives a crash for certain only after the file was synced. Until then each change may survive or not,
//! alone or with others, and a write also in part: its first bytes.

use gapless_store::contract::faults::{Chance, Fault, Keep};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug)]
enum Change {
    Write { path: String, offset: usize, bytes: Vec<u8> },
    Truncate { path: String, size: usize },
    Create { path: String },
    Delete { path: String },
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Change::Write { path, .. } | Change::Truncate { path, .. } | Change::Create { path } | Change::Delete { path } => path,
        }
    }

    fn apply(self, files: &mut BTreeMap<String, Vec<u8>>) {
        match self {
            Change::Create { path } => drop(files.entry(path).or_default()),
            Change::Delete { path } => drop(files.remove(&path)),
            Change::Truncate { path, size } => {
                if let Some(content) = files.get_mut(&path) {
                    content.resize(size, 0);
                }
            }
            Change::Write { path, offset, bytes } => {
                // Without its directory entry, which was lost, nobody finds the file.
                let Some(content) = files.get_mut(&path) else { return };
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset..end].copy_from_slice(&bytes);
            }
        }
    }
}

/// The memory that the openers of one database share. It is gone after a crash.
pub type Shared = Arc<Mutex<Vec<Box<[u64]>>>>;

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<String, Vec<u8>>,
    durable: BTreeMap<String, Vec<u8>>,
    unsynced: Vec<Change>,
    shared: BTreeMap<String, Shared>,
    /// Changed by each crash: what was opened before it is of no use any more.
    boot: u64,
    is_off: bool,
    operations: u64,
    strikes: Option<(u64, u64, Fault)>,
    random: Chance,
}

/// The disk. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

/// An error that the disk answers: no room, or the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room.
    Full,
    /// The device.
    Broken,
}

impl Disk {
    /// An empty disk whose chances follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State { random: Chance(seed), ..State::default() })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations that change something the disk was asked for.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// From the operation `after` more from now on, `times` of them meet this fault.
    pub fn strike(&self, after: u64, times: u64, fault: Fault) {
        let mut state = self.state();
        let from = state.operations + after;
        state.strikes = Some((from, from.saturating_add(times), fault));
    }

    /// Nothing is refused any more.
    pub fn heal(&self) {
        self.state().strikes = None;
    }

    /// The machine stops and starts again.
    pub fn crash(&self, keep: Keep) {
        let state = &mut *self.state();
        let unsynced = std::mem::take(&mut state.unsynced);
        for change in survivors(unsynced, keep, &mut state.random) {
            change.apply(&mut state.durable);
        }
        state.seen = state.durable.clone();
        state.shared.clear();
        state.boot += 1;
        state.is_off = false;
        state.strikes = None;
    }

    /// The content of a file, changed behind everybody's back.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.state();
        let content = state.seen.get_mut(path).expect("the file");
        change(content);
        state.durable.insert(path.to_string(), content.clone());
    }

    /// The disk is as it was when its files were these.
    pub fn put_back(&self, files: &BTreeMap<String, Vec<u8>>) {
        let state = &mut *self.state();
        state.seen.clone_from(files);
        state.durable.clone_from(files);
        state.unsynced.clear();
        state.shared.clear();
        state.boot += 1;
    }

    /// The files, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().seen.clone()
    }

    pub fn boot(&self) -> u64 {
        self.state().boot
    }

    pub fn exists(&self, path: &str) -> bool {
        self.state().seen.contains_key(path)
    }

    /// The memory that belongs to a file, made if it is not there.
    pub fn shared(&self, path: &str) -> Shared {
        self.state().shared.entry(path.to_string()).or_default().clone()
    }

    pub fn forget_shared(&self, path: &str) {
        self.state().shared.remove(path);
    }

    /// Takes room that no file's content counts: a file of shared memory grows.
    pub fn take_room(&self, boot: u64) -> Result<(), Refused> {
        self.state().meet(boot).map(drop)
    }

    pub fn create(&self, path: &str) -> Result<(), Refused> {
        let state = &mut *self.state();
        if !state.seen.contains_key(path) {
            state.meet(state.boot)?;
            state.change(Change::Create { path: path.to_string() });
        }
        Ok(())
    }

    pub fn delete(&self, path: &str, is_durable: bool) -> Result<(), Refused> {
        let state = &mut *self.state();
        state.meet(state.boot)?;
        state.change(Change::Delete { path: path.to_string() });
        if is_durable {
            state.sync(path);
        }
        Ok(())
    }

    pub fn read(&self, boot: u64, path: &str, offset: usize, into: &mut [u8]) -> Result<usize, Refused> {
        let state = self.state();
        if state.is_off || state.boot != boot {
            return Err(Refused::Broken);
        }
        let content = state.seen.get(path).map(Vec::as_slice).unwrap_or_default();
        let rest = content.get(offset..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    pub fn size(&self, path: &str) -> usize {
        self.state().seen.get(path).map_or(0, Vec::len)
    }

    pub fn write(&self, boot: u64, path: &str, offset: usize, bytes: &[u8]) -> Result<(), Refused> {
        let state = &mut *self.state();
        let met = state.meet(boot);
        let bytes = match met {
            Ok(()) => bytes.to_vec(),
            // Of another boot: it reaches nothing.
            Err(_) if state.boot != boot => Vec::new(),
            Err(_) => bytes[..state.random.below(bytes.len())].to_vec(),
        };
        if !bytes.is_empty() {
            state.change(Change::Write { path: path.to_string(), offset, bytes });
        }
        met
    }

    pub fn truncate(&self, boot: u64, path: &str, size: usize) -> Result<(), Refused> {
        let state = &mut *self.state();
        state.meet(boot)?;
        state.change(Change::Truncate { path: path.to_string(), size });
        Ok(())
    }

    pub fn sync(&self, boot: u64, path: &str) -> Result<(), Refused> {
        let state = &mut *self.state();
        match state.meet(boot) {
            Ok(()) => {
                state.sync(path);
                Ok(())
            }
            Err(refused) => {
                if !state.is_off && state.boot == boot && refused == Refused::Broken {
                    state
                        .unsynced
                        .retain(|change| change.path() != path || matches!(change, Change::Create { .. } | Change::Delete { .. }));
                }
                Err(refused)
            }
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.seen);
        self.unsynced.push(change);
    }

    /// Counts an operation, and meets the fault that is due.
    fn meet(&mut self, boot: u64) -> Result<(), Refused> {
        if self.is_off || self.boot != boot {
            return Err(Refused::Broken);
        }
        let operation = self.operations;
        self.operations += 1;
        match self.strikes {
            Some((from, until, fault)) if (from..until).contains(&operation) => {
                self.is_off = fault == Fault::PowerCut;
                Err(if fault == Fault::Full { Refused::Full } else { Refused::Broken })
            }
            _ => Ok(()),
        }
    }

    fn sync(&mut self, path: &str) {
        let (synced, rest) = std::mem::take(&mut self.unsynced).into_iter().partition(|change| change.path() == path);
        self.unsynced = rest;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.apply(&mut self.durable);
        }
    }
}

fn survivors(unsynced: Vec<Change>, keep: Keep, random: &mut Chance) -> Vec<Change> {
    match keep {
        Keep::Nothing => Vec::new(),
        Keep::Everything => unsynced,
        Keep::Prefix => {
            let kept = random.below(unsynced.len() + 1);
            let mut kept: Vec<_> = unsynced.into_iter().take(kept).collect();
            if let Some(last) = kept.pop() {
                kept.push(torn(last, random));
            }
            kept
        }
        Keep::Subset => {
            let mut kept = Vec::new();
            for change in unsynced {
                match random.below(3) {
                    0 => {}
                    1 => kept.push(torn(change, random)),
                    _ => kept.push(change),
                }
            }
            kept
        }
    }
}

fn torn(change: Change, random: &mut Chance) -> Change {
    match change {
        Change::Write { path, offset, mut bytes } => {
            bytes.truncate(random.below(bytes.len() + 1));
            Change::Write { path, offset, bytes }
        }
        whole => whole,
    }
}
