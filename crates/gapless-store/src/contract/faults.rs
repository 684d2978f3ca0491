//! What every store keeps to on a machine whose disk refuses, tears and loses what it was told to write.
//!
//! Acknowledged means there after any crash, in order and without a gap. What was not acknowledged is whole or absent. A full disk leaves nothing.

use super::{Store, every_record};
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::time::Instant;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{JournalRecord, Sequence};
use std::collections::BTreeMap;

/// What a write meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room. Of a write, the first bytes may have got there.
    Full,
    /// An error of the device.
    Broken,
    /// The power is cut: nothing works until the machine has started again.
    PowerCut,
}

/// What a crash leaves of what was written and not yet durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The first writes, in their order, the last of them torn.
    Prefix,
    /// Any writes, each whole or torn.
    Subset,
    /// All.
    Everything,
}

/// Every [`Keep`].
pub const KEEPS: [Keep; 4] = [Keep::Nothing, Keep::Prefix, Keep::Subset, Keep::Everything];

/// A machine with a store on a disk that fails as it is told.
pub trait Machine {
    /// Its store.
    type Store: Store;

    /// Opens the store, as a server does at its start.
    ///
    /// # Errors
    /// What the disk refused.
    fn open(&self) -> Result<Self::Store, Error>;

    /// From the operation `after` more from now on, `times` of them meet this fault.
    fn strike(&self, after: u64, times: u64, fault: Fault);

    /// The disk does what it is told again.
    fn heal(&self);

    /// How many operations that change something the disk was asked for so far.
    fn operations(&self) -> u64;

    /// The machine stops and starts again. Stores that were opened before are of no use any more.
    fn crash(&self, keep: Keep);
}

/// What was written, as its writer knows it.
#[derive(Clone, Debug, Default)]
struct Written {
    journals: BTreeMap<ServiceName, Vec<JournalRecord>>,
    value: Option<String>,
    receipt: Option<String>,
    in_doubt: Option<Doubt>,
}

/// What was neither acknowledged nor refused for lack of room: it may be there, whole, or not.
#[derive(Clone, Debug)]
// There is at most one in a store.
#[allow(clippy::large_enum_variant)]
enum Doubt {
    Record(ServiceName, JournalRecord),
    Value(String),
    Receipt(String),
}

const VALUE: &str = "contract";
const ROLLOUT: RolloutNumber = RolloutNumber(1);

fn service(number: u64) -> ServiceName {
    ServiceName::new("hello", if number.is_multiple_of(3) { "worker" } else { "web" }).expect("a name")
}

impl Written {
    /// Writes the thing with this number: mostly a record, sometimes a value or a receipt. An error is what the store said; what is known afterwards is noted.
    fn write(&mut self, store: &impl Store, number: u64, size: usize) -> Result<(), Error> {
        let text = "x".repeat(size) + &number.to_string();
        let (doubt, result) = match number % 5 {
            3 => (Doubt::Value(text.clone()), store.put_value(VALUE, &text)),
            4 => (Doubt::Receipt(text.clone()), store.put_receipt(&service(1), ROLLOUT, &text)),
            _ => {
                let (service, record) = (service(number), record(number, text));
                let result = store.append(&service, &record).map(|sequence| {
                    let expected = self.journals.get(&service).map_or(0, Vec::len) as u64 + 1;
                    assert_eq!(sequence, Sequence(expected), "a record of {service} got another's place");
                });
                (Doubt::Record(service, record), result)
            }
        };
        match &result {
            Ok(()) => self.adopt(doubt),
            Err(error) => {
                assert_ne!(error.error_kind(), ErrorKind::Corrupt, "nothing is damaged: {error}");
                if error.error_kind() == ErrorKind::NoRoom {
                    assert!(error.hint_text().is_some(), "{error}");
                } else {
                    self.in_doubt = Some(doubt);
                }
            }
        }
        result
    }

    fn adopt(&mut self, written: Doubt) {
        match written {
            Doubt::Record(service, record) => self.journals.entry(service).or_default().push(record),
            Doubt::Value(value) => self.value = Some(value),
            Doubt::Receipt(receipt) => self.receipt = Some(receipt),
        }
    }

    /// The store has all that was acknowledged and nothing else, but what is in doubt, whole. That is no doubt any more afterwards.
    fn assert_kept(&mut self, store: &impl Store, when: &str) {
        let doubt = self.in_doubt.take();
        for number in [0, 1] {
            let name = service(number);
            let read: Vec<_> = store.read(&name).unwrap_or_else(|error| panic!("{when}: {error}"));
            let known = self.journals.entry(name.clone()).or_default();
            if let Some(Doubt::Record(of, record)) = &doubt
                && *of == name
                && read.len() == known.len() + 1
            {
                known.push(record.clone());
            }
            assert_eq!(read.len(), known.len(), "{when}: {name} has another number of records than were acknowledged");
            for (place, ((sequence, read), written)) in (1..).zip(read.iter().zip(known.iter())) {
                assert_eq!((*sequence, read), (Sequence(place), written), "{when}: {name}");
            }
        }
        let value = store.value(VALUE).expect("value");
        if let Some(Doubt::Value(doubtful)) = &doubt
            && value.as_ref() == Some(doubtful)
        {
            self.value.clone_from(&value);
        }
        assert_eq!(value, self.value, "{when}");
        let receipt = store.receipt(&service(1), ROLLOUT).ok();
        if let Some(Doubt::Receipt(doubtful)) = &doubt
            && receipt.as_ref() == Some(doubtful)
        {
            self.receipt.clone_from(&receipt);
        }
        assert_eq!(receipt, self.receipt, "{when}");
    }
}

/// Records of all kinds and sizes.
fn record(number: u64, output: String) -> JournalRecord {
    let all = every_record();
    if number.is_multiple_of(2) {
        let place = usize::try_from(number / 2).unwrap_or_default() % all.len();
        return JournalRecord { at: Instant(number), ..all[place].clone() };
    }
    let node = super::examples::NODE;
    let condition = Condition::Exited { code: Some(1), output };
    let seen = NodeSeen { condition, image: gapless_core::digest::Digest([9; 32]), health: Health::default(), requests_in_flight: 0 };
    let seen = Observation { nodes: BTreeMap::from([(node, seen)]), proxies: BTreeMap::new() };
    JournalRecord { at: Instant(number), event: Event::Observed(seen), effects: Vec::new() }
}

/// How many things a short life writes: each kind, of both services.
const SHORT_LIFE: u64 = 10;

/// Opens the store and writes until something fails. Whether everything was written.
fn live<M: Machine>(machine: &M, written: &mut Written) -> bool {
    let Ok(store) = machine.open() else { return false };
    (0..SHORT_LIFE).all(|number| written.write(&store, number, 100).is_ok())
}

/// The power is cut at each operation of a store's first life, in turn, and each kind of crash follows.
pub fn what_was_acknowledged_survives_a_crash_at_any_operation<M: Machine>(new: impl Fn(u64) -> M) {
    for keep in KEEPS {
        for cut in 0.. {
            let machine = new(cut);
            let mut written = Written::default();
            machine.strike(cut, 1, Fault::PowerCut);
            let lived = live(&machine, &mut written);
            machine.crash(keep);
            let when = format!("power cut at operation {cut}, {keep:?} kept");
            let store = machine.open().unwrap_or_else(|error| panic!("{when}: {error}"));
            written.assert_kept(&store, &when);
            written.write(&store, 1, 1).unwrap_or_else(|error| panic!("{when}: {error}"));
            drop(store);
            machine.crash(Keep::Nothing);
            written.assert_kept(&machine.open().expect("it opens"), &format!("{when}, and once more"));
            if lived {
                assert!(cut >= SHORT_LIFE, "the power was never cut");
                break;
            }
        }
    }
}

/// One life after the other on the same disk, each ended by a crash somewhere, with records large enough that the store tidies up between them.
pub fn what_was_acknowledged_survives_many_crashes<M: Machine>(new: impl Fn(u64) -> M) {
    const LIVES: u64 = 12;
    const WRITES: u64 = 40;
    for seed in 0..30 {
        let machine = new(seed);
        let mut chance = Chance(seed);
        let mut written = Written::default();
        let mut number = 0;
        let mut cut = 400;
        for life in 0..LIVES {
            let keep = KEEPS[chance.below(4)];
            machine.strike(chance.below(cut) as u64, 1, Fault::PowerCut);
            let before = machine.operations();
            if let Ok(store) = machine.open() {
                for _ in 0..WRITES {
                    number += 1;
                    if written.write(&store, number, chance.below(120_000)).is_err() {
                        break;
                    }
                }
            }
            cut = usize::try_from(machine.operations() - before).unwrap_or_default().max(cut);
            machine.crash(keep);
            let when = format!("seed {seed}, life {life}, {keep:?} kept");
            written.assert_kept(&machine.open().unwrap_or_else(|error| panic!("{when}: {error}")), &when);
            machine.crash(Keep::Subset);
        }
    }
}

/// Each operation of a store's first life meets a full disk, or a broken one, for a while. What was refused for lack of room is not there, now and after a crash; the same store
/// goes on when the disk does.
pub fn refused_writes_leave_nothing_and_are_got_over<M: Machine>(new: impl Fn(u64) -> M) {
    for fault in [Fault::Full, Fault::Broken] {
        for (at, times) in (0..).flat_map(|at| [1, 3].map(|times| (at, times))) {
            let machine = new(at);
            let mut written = Written::default();
            machine.strike(at, times, fault);
            let when = format!("{fault:?} at operation {at}, {times} times");
            let Some(store) = opened(&machine, &when) else { continue };
            let mut refused = 0;
            for number in 0..SHORT_LIFE {
                if let Err(error) = written.write(&store, number, 100) {
                    refused += 1;
                    written.assert_kept(&store, &format!("{when}: {error}"));
                }
            }
            machine.heal();
            written.write(&store, 1, 100).unwrap_or_else(|error| panic!("{when}: {error}"));
            written.assert_kept(&store, &when);
            drop(store);
            machine.crash(if at % 2 == 0 { Keep::Nothing } else { Keep::Everything });
            written.assert_kept(&machine.open().unwrap_or_else(|error| panic!("{when}: {error}")), &when);
            if refused == 0 && machine.operations() < at {
                break;
            }
        }
    }
}

/// The store, if the disk lets it be opened. If not, it is as if it was never tried.
fn opened<M: Machine>(machine: &M, when: &str) -> Option<M::Store> {
    match machine.open() {
        Ok(store) => Some(store),
        Err(error) => {
            assert_ne!(error.error_kind(), ErrorKind::Corrupt, "{when}: {error}");
            machine.heal();
            let mut written = Written::default();
            let store = machine.open().unwrap_or_else(|error| panic!("{when}, and healed: {error}"));
            written.write(&store, 1, 1).unwrap_or_else(|error| panic!("{when}, and healed: {error}"));
            written.assert_kept(&store, when);
            None
        }
    }
}

/// A record that a full disk refused does not turn up after a crash, whatever the crash leaves.
pub fn what_had_no_room_never_turns_up<M: Machine>(new: impl Fn(u64) -> M) {
    for keep in KEEPS {
        for at in 0..40 {
            let machine = new(at);
            let mut written = Written::default();
            let store = machine.open().expect("it opens");
            written.write(&store, 1, 100).expect("there is room");
            machine.strike(at, u64::MAX, Fault::Full);
            let refused = (2..50).find_map(|number| written.write(&store, number, 100).err()).expect("the disk is full");
            let in_doubt = refused.error_kind() != ErrorKind::NoRoom;
            drop(store);
            machine.crash(keep);
            let when = format!("full from operation {at} on, {keep:?} kept: {refused}");
            assert_eq!(written.in_doubt.is_some(), in_doubt, "{when}");
            written.assert_kept(&machine.open().expect("it opens"), &when);
        }
    }
}

/// Chances that follow from a seed (SplitMix64, Steele and others 2014).
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (limit.max(1) as u64)).unwrap_or_default()
    }
}
