//! What processes took of the machine: processor time by the scheduler's own count, and memory.

use serde_json::{Value, json};
use std::fs;

/// What some processes took since they began, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Time on a processor of all threads that run, in nanoseconds (first number of `/proc/PID/task/TID/schedstat`).
    pub run_ns: u64,
    /// The same by the clock ticks of `/proc/PID/stat`, with threads that ended, in nanoseconds: coarse, and a check of the other.
    pub ticks_ns: u64,
    /// Proportional share of memory, in KiB (`Pss` of `/proc/PID/smaps_rollup`): what they share counts once.
    pub memory_kib: u64,
}

impl Usage {
    /// Of these processes now.
    #[must_use]
    pub fn of(processes: &[i32]) -> Usage {
        processes.iter().fold(Usage::default(), |sum, pid| Usage {
            run_ns: sum.run_ns + run_ns(*pid),
            ticks_ns: sum.ticks_ns + ticks_ns(*pid),
            memory_kib: sum.memory_kib + memory_kib(*pid),
        })
    }

    /// What was taken since `before`; the memory is that of now.
    #[must_use]
    pub fn since(self, before: Usage) -> Usage {
        Usage {
            run_ns: self.run_ns.saturating_sub(before.run_ns),
            ticks_ns: self.ticks_ns.saturating_sub(before.ticks_ns),
            memory_kib: self.memory_kib,
        }
    }
}

fn run_ns(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)), user and system time.
fn ticks_ns(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

fn memory_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What the machine is, and how busy it is with other things.
#[must_use]
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
    let model =
        read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_string()));
    json!({
        "cores": cores(),
        "processor": model,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load_average": read("/proc/loadavg"),
    })
}

/// How many processors there are.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_itself_takes_something() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let before = Usage::of(&[own]);
        let mut number = 1u64;
        while Usage::of(&[own]).since(before).run_ns == 0 {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(Usage::of(&[own]).memory_kib > 100);
    }
}
