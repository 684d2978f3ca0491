//! Whether this host has room for more machines, asked before anything of them is made: a group that does not fit is refused whole, with figures, and leaves nothing.

use gapless_engine::error::{Context, Error, ErrorKind};
use std::fs;
use std::path::Path;

const MEBIBYTE: u64 = 1024 * 1024;

/// Memory that no new machine is counted on, in bytes: the server, a proxy and the kernel's tables for some more machines.
const MEMORY_RESERVE: u64 = 64 * MEBIBYTE;

/// What must be left on the disk of the state folder, in bytes: the journal, the routes and the records of a whole rollout.
const DISK_RESERVE: u64 = 64 * MEBIBYTE;

/// What a machine takes on that disk, in bytes: its own small tree, its records, and its first output.
const DISK_OF_MACHINE: u64 = MEBIBYTE;

/// How many files must be left on that disk, for the same as [`DISK_RESERVE`].
const FILES_RESERVE: u64 = 256;

/// How many files and folders a machine takes there: its own small tree and its records.
const FILES_OF_MACHINE: u64 = 64;

/// Machines that are to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How many.
    pub machines: u32,
    /// The most memory of all of them together, in bytes. A limit is no reservation: most machines take a part of theirs. So what runs already counts with what it takes, and only new
    /// machines with their whole limits, because nobody knows yet what they will take.
    pub memory_bytes: u64,
    /// How many of them need an address.
    pub addresses: u32,
}

/// What the host has.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// What programs can still take without taking it from others, swap included, in bytes; unknown where the kernel does not say.
    pub memory: Option<u64>,
    /// All memory and swap, in bytes.
    pub all_memory: Option<u64>,
    /// Free addresses of the installation's network, of the half that the machines want.
    pub addresses: u32,
    /// Free bytes on the disk.
    pub disk: u64,
    /// How many files it still takes; `None` where that has no bound.
    pub files: Option<u64>,
}

impl Room {
    /// The room of this host, with its state on this folder's disk.
    ///
    /// # Errors
    /// When the disk cannot be asked.
    pub fn of(folder: &Path, addresses: u32) -> Result<Self, Error> {
        let disk = rustix::fs::statvfs(folder)
            .map_err(std::io::Error::from)
            .context(|| format!("asking for the room on the disk of {}", folder.display()))?;
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sum = |one, other| Some(meminfo_bytes(&meminfo, one)? + meminfo_bytes(&meminfo, other).unwrap_or(0));
        Ok(Self {
            memory: sum("MemAvailable", "SwapFree"),
            all_memory: sum("MemTotal", "SwapTotal"),
            addresses,
            disk: disk.f_bavail.saturating_mul(disk.f_frsize),
            // A file system without a table of files says that it has none.
            files: (disk.f_files > 0).then_some(disk.f_favail),
        })
    }

    /// The same host once whoever holds so much memory is gone. `None`: nobody knows how much, so what there is then is not known either.
    #[must_use]
    pub fn without(self, held: Option<u64>) -> Self {
        Self { memory: self.memory.zip(held).map(|(memory, held)| memory.saturating_add(held)), ..self }
    }

    /// Whether there is room.
    ///
    /// # Errors
    /// [`ErrorKind::NoRoom`] when there is none now; [`ErrorKind::Invalid`] when there never will be, because the host is too small.
    pub fn check(&self, wanted: &Wanted) -> Result<(), Error> {
        if wanted.machines == 0 {
            return Ok(());
        }
        self.check_memory(wanted)?;
        self.check_addresses(wanted)?;
        self.check_disk(wanted)
    }

    fn check_memory(&self, wanted: &Wanted) -> Result<(), Error> {
        let needed = wanted.memory_bytes;
        let too_much = |has: Option<u64>| has.filter(|has| needed > has.saturating_sub(MEMORY_RESERVE));
        let refused = |has: u64, whose: &str| {
            let (machines, needed, has) = (nodes(wanted.machines), mebibytes_up(needed), mebibytes(has));
            Error::new(format!(
                "no room for {machines} more: their memory limits come to {needed}, and this machine has {has} {whose} ({} of it kept for everything else)",
                mebibytes(MEMORY_RESERVE)
            ))
        };
        if let Some(all) = too_much(self.all_memory) {
            return Err(refused(all, "in all")
                .kind(ErrorKind::Invalid)
                .hint("lower `memory` or the number of nodes in the project file, or take a bigger machine"));
        }
        match too_much(self.memory) {
            None => Ok(()),
            Some(free) => Err(refused(free, "available")
                .kind(ErrorKind::NoRoom)
                .hint("lower `memory` or the number of nodes in the project file, end what else runs, or take a bigger machine")),
        }
    }

    fn check_addresses(&self, wanted: &Wanted) -> Result<(), Error> {
        if wanted.addresses <= self.addresses {
            return Ok(());
        }
        let machines = nodes(wanted.addresses);
        Err(Error::new(format!("no room for {machines} more: the installation's network has {} free addresses", self.addresses))
            .kind(ErrorKind::NoRoom)
            .hint("lower the number of nodes, or look for leftovers with `gapless doctor`"))
    }

    fn check_disk(&self, wanted: &Wanted) -> Result<(), Error> {
        let hint = "make room on the disk of the server's state folder";
        let bytes = DISK_RESERVE + DISK_OF_MACHINE * u64::from(wanted.machines);
        if bytes > self.disk {
            let (machines, bytes, free) = (nodes(wanted.machines), mebibytes_up(bytes), mebibytes(self.disk));
            return Err(Error::new(format!(
                "no room for {machines} more: the disk of the state folder has {free} free, and {bytes} must be"
            ))
            .kind(ErrorKind::NoRoom)
            .hint(hint));
        }
        let files = FILES_RESERVE + FILES_OF_MACHINE * u64::from(wanted.machines);
        match self.files.filter(|free| files > *free) {
            None => Ok(()),
            Some(free) => {
                let machines = nodes(wanted.machines);
                let what =
                    format!("no room for {machines} more: the disk of the state folder takes {free} more files, and it must take {files}");
                Err(Error::new(what).kind(ErrorKind::NoRoom).hint(hint))
            }
        }
    }
}

fn nodes(count: u32) -> String {
    if count == 1 { "1 node".to_string() } else { format!("{count} nodes") }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / MEBIBYTE)
}

fn mebibytes_up(bytes: u64) -> String {
    mebibytes(bytes.saturating_add(MEBIBYTE - 1))
}

/// A line of `meminfo` (proc(5), in KiB) in bytes.
pub fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room =
        Room { memory: Some(1000 * MEBIBYTE), all_memory: Some(2000 * MEBIBYTE), addresses: 4, disk: 100 * MEBIBYTE, files: Some(1000) };

    fn wanted(machines: u32, memory: u64) -> Wanted {
        Wanted { machines, memory_bytes: memory * MEBIBYTE * u64::from(machines), addresses: machines }
    }

    fn refusal(room: Room, wanted: Wanted) -> (ErrorKind, String) {
        let error = room.check(&wanted).unwrap_err();
        assert!(error.hint_text().is_some(), "{error} comes without a hint");
        (error.error_kind(), error.to_string())
    }

    #[test]
    fn what_fits_exactly_is_made() {
        ROOM.check(&wanted(4, 234)).unwrap();
        ROOM.check(&wanted(0, 1_000_000)).unwrap();
        Room { memory: None, all_memory: None, files: None, ..ROOM }.check(&wanted(4, 1_000_000)).unwrap();
    }

    #[test]
    fn memory_that_is_not_there_now_is_told_apart_from_memory_that_never_will_be() {
        let (kind, text) = refusal(ROOM, wanted(4, 235));
        assert_eq!(kind, ErrorKind::NoRoom);
        let expected = "no room for 4 nodes more: their memory limits come to 940 MiB, and this machine has 1000 MiB available (64 MiB of it kept for everything else)";
        assert_eq!(text, expected);
        let (kind, text) = refusal(ROOM, wanted(1, 1937));
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(text.contains("1 node more") && text.contains("2000 MiB in all"), "{text}");
        assert_eq!(refusal(ROOM, Wanted { machines: u32::MAX, memory_bytes: u64::MAX, addresses: 0 }).0, ErrorKind::Invalid);
    }

    #[test]
    fn what_leaves_first_makes_room_also_when_nobody_knows_how_much_it_holds() {
        let short = wanted(4, 235);
        assert!(ROOM.without(Some(3 * MEBIBYTE)).check(&short).is_err());
        ROOM.without(Some(4 * MEBIBYTE)).check(&short).unwrap();
        ROOM.without(None).check(&short).unwrap();
        assert_eq!(refusal(ROOM.without(None), wanted(1, 1937)).0, ErrorKind::Invalid, "the host stays as small as it is");
    }

    #[test]
    fn addresses_and_the_disk_are_counted() {
        let (kind, text) = refusal(ROOM, wanted(5, 1));
        assert_eq!((kind, text.as_str()), (ErrorKind::NoRoom, "no room for 5 nodes more: the installation's network has 4 free addresses"));
        ROOM.check(&Wanted { addresses: 4, ..wanted(5, 1) }).unwrap();
        let (kind, text) = refusal(Room { disk: 67 * MEBIBYTE, ..ROOM }, wanted(4, 1));
        assert_eq!(kind, ErrorKind::NoRoom);
        assert!(text.contains("67 MiB free, and 68 MiB must be"), "{text}");
        let (kind, text) = refusal(Room { files: Some(511), ..ROOM }, wanted(4, 1));
        assert_eq!(kind, ErrorKind::NoRoom);
        assert!(text.contains("takes 511 more files, and it must take 512"), "{text}");
    }

    #[test]
    fn the_kernels_words_are_read() {
        let meminfo = "MemTotal:       25165824 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(24 * 1024 * MEBIBYTE));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(MEBIBYTE));
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(meminfo_bytes(meminfo, "SwapFree"), None);
    }
}
