//! The switch under load: two groups of real Apache nodes take turns behind each proxy, in the way that its documentation recommends, while gapless's witness asks.

use crate::bench::node::Group;
use crate::bench::pairs::{Spread, rounded};
use crate::bench::peer::{self, Kind, Running, Setup};
use crate::bench::place::Place;
use crate::bench::witness::{RATE, Recording, Span, Times, Witness, milliseconds, now_us};
use crate::bench::{interrupt, node};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long everybody is asked before the first switch: a part of the steady state that the switches are compared with.
const STEADY: Duration = Duration::from_secs(5);

/// The same where it is only to be seen that everything works.
const QUICK_STEADY: Duration = Duration::from_secs(2);

/// The start of the new nodes and the end of the old ones take processor time beside the load, whatever the proxy: so long after them it does not count.
const SETTLE: Duration = Duration::from_millis(500);

/// From the end of a switch to the end of the old nodes, so that what that takes does not count as the switch's.
const APART: Duration = Duration::from_millis(100);

/// From then to the next switch's preparation: the other part of the steady state, in the same minutes as the switches, so that what else the machine does meets both.
const PAUSE: Duration = Duration::from_millis(800);

/// Traffic before anything is counted: connections are open.
const WARM_UP: Duration = Duration::from_secs(1);

/// What is done how often.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Switches, or upgrades.
    pub times: usize,
    /// Steady state before them.
    pub steady: Duration,
}

impl Length {
    /// So many times after a whole steady state, or after a short one.
    #[must_use]
    pub fn new(times: usize, quick: bool) -> Length {
        Length { times, steady: if quick { QUICK_STEADY } else { STEADY } }
    }
}

/// Where a trial happens, and with which programs.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'a> {
    /// The repository.
    pub root: &'a Path,
    /// The folder of the run.
    pub place: &'a Place,
    /// Our proxy.
    pub program: &'a Path,
    /// Our witness.
    pub witness: &'a Path,
    /// A PEM file with a certificate and its key.
    pub certificate: &'a Path,
}

/// A proxy and the way it is used.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As it stands in the results.
    pub name: &'static str,
    /// The proxy.
    pub kind: Kind,
    /// Nothing is waited for.
    pub naive: bool,
    /// Ours may send again and hold.
    pub retry_and_hold: bool,
}

const fn careful(name: &'static str, kind: Kind) -> Way {
    Way { name, kind, naive: false, retry_and_hold: true }
}

/// All ways, in the order in which they are shown.
pub const WAYS: &[Way] = &[
    careful("gapless", Kind::Gapless),
    Way { name: "gapless-without-retry-and-hold", kind: Kind::Gapless, naive: false, retry_and_hold: false },
    careful("haproxy", Kind::Haproxy),
    careful("nginx", Kind::Nginx),
    careful("caddy", Kind::Caddy),
    careful("apache", Kind::Apache),
    Way { name: "naive-haproxy", kind: Kind::Haproxy, naive: true, retry_and_hold: true },
];

/// What was done under load, and what the witness saw of it.
struct Trial {
    steady: Vec<Span>,
    spans: Vec<Span>,
    problem: Option<String>,
    recording: Recording,
    record: Option<Value>,
}

/// Switches groups behind one proxy, so many times, and says what came of it. A proxy that does not come to an end with a switch is a result, too.
///
/// # Errors
/// When something cannot be started, or somebody asked to end.
pub fn switches(bench: Bench, way: Way, length: Length) -> Result<Value, String> {
    let mut groups = [Group::new("a")?, Group::new("b")?];
    node::site(bench.place)?;
    let trial = trial(bench, way, length, &mut groups, |proxy, groups| {
        let [old, new] = groups;
        new.start(bench.root, bench.place)?;
        // The naive way waits for nothing but the start itself.
        if !way.naive {
            new.wait()?;
            interrupt::sleep(SETTLE)?;
        }
        let began = now_us();
        let switched = if way.naive { proxy.switch_naively(&old.members, &new.members) } else { proxy.switch(&old.members, &new.members) };
        let ended = now_us();
        if !way.naive {
            interrupt::sleep(APART)?;
        }
        old.stop();
        groups.swap(0, 1);
        // What is refused because the old nodes are gone belongs to the naive switch.
        switched.map(|()| (began, if way.naive { now_us() } else { ended }))
    })?;
    let value = trial.json();
    print_line("switch", way.name, &value);
    Ok(value)
}

/// Replaces the processes of one proxy under the same load, so many times.
///
/// # Errors
/// When something cannot be started, or somebody asked to end.
pub fn upgrades(bench: Bench, way: Way, length: Length) -> Result<Value, String> {
    let mut groups = [Group::new("a")?, Group::new("b")?];
    node::site(bench.place)?;
    // A proxy that begins anew would take up nodes that rest.
    groups[1].members.clear();
    let trial = trial(bench, way, length, &mut groups, |proxy, _| {
        let began = now_us();
        proxy.upgrade().map(|()| (began, now_us()))
    })?;
    let value = trial.json();
    print_line("upgrade", way.name, &value);
    Ok(value)
}

/// One proxy, one witness, and an action that is repeated. An action that fails is the last one.
fn trial(
    bench: Bench,
    way: Way,
    length: Length,
    groups: &mut [Group; 2],
    mut action: impl FnMut(&mut Running, &mut [Group; 2]) -> Result<Span, String>,
) -> Result<Trial, String> {
    let Bench { root, place, program, certificate, .. } = bench;
    groups[0].start(root, place)?;
    groups[0].wait()?;
    let [members, standby] = [&groups[0], &groups[1]].map(|group| group.members.clone());
    let setup = Setup { root, place, program, certificate, members, standby, retry_and_hold: way.retry_and_hold };
    let mut proxy = peer::start(way.kind, &setup)?;
    let witness = Witness::start(bench.witness, proxy.address(), &place.path(""))?;
    interrupt::sleep(WARM_UP)?;
    let mut steady = vec![rest(length.steady)?];
    let (mut spans, mut problem) = (Vec::new(), None);
    for _ in 0..length.times {
        match action(&mut proxy, groups) {
            Ok(span) => spans.push(span),
            Err(found) => {
                interrupt::check()?;
                problem = Some(found);
                break;
            }
        }
        interrupt::sleep(SETTLE)?;
        steady.push(rest(PAUSE)?);
    }
    let record = proxy.record()?;
    let recording = witness.stop()?;
    Ok(Trial { steady, spans, problem, recording, record })
}

/// Lets the load alone for so long.
fn rest(duration: Duration) -> Result<Span, String> {
    let from = now_us();
    interrupt::sleep(duration)?;
    Ok((from, now_us()))
}

impl Trial {
    fn json(&self) -> Value {
        let mut value = self.recording.totals();
        let took = Spread::of(self.spans.iter().map(|(from, until)| milliseconds(until - from)));
        let (steady, during) = (self.recording.small(&self.steady), self.recording.small(&self.spans));
        let ratio = |thousandths: usize| {
            let of_steady = Times::rank_ms(&steady, thousandths);
            if of_steady > 0.0 { json!(rounded(during.rank_ms(thousandths) / of_steady)) } else { Value::Null }
        };
        value["times"] = json!(self.spans.len());
        value["problem"] = json!(self.problem);
        value["rate_per_second"] = json!(RATE);
        value["took_ms"] = json!(took.map(Spread::json));
        value["longest_gap_ms"] = json!(self.recording.longest_gap_ms(&self.spans));
        value["small_steady"] = steady.json();
        value["small_during"] = during.json();
        value["p99_ratio"] = ratio(990);
        value["p999_ratio"] = ratio(999);
        value["in_flight_at_begin"] = json!(self.recording.in_flight(&self.spans));
        value["own_record"] = json!(self.record);
        value
    }
}

fn print_line(what: &str, name: &str, value: &Value) {
    let record = &value["own_record"];
    let own = if record.is_null() { String::new() } else { format!(", retried {}, held {}", record["retried"], record["held"]) };
    println!(
        "{what:<8}{name:<31}{:>4} times, {:>7} requests, {:>5} failed {}, took {} ms (most {}), gap {} ms, p99 × {}, p99.9 × {}, max {} ms{own}{}",
        value["times"],
        value["requests"],
        value["failed"],
        value["failed_by_cause"],
        value["took_ms"]["median"],
        value["took_ms"]["max"],
        value["longest_gap_ms"],
        value["p99_ratio"],
        value["p999_ratio"],
        value["small_during"]["max_ms"],
        value["problem"].as_str().map(|problem| format!(" — {problem}")).unwrap_or_default(),
    );
}
