//! The mutation check: each deliberate fault of `tests/mutants` is put into a copy of the core, and the core's tests have to notice it.

use crate::fault::{self, Fault};
use crate::generated;
use crate::suite::{Suite, Test, Verdict};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The crate that is spoiled.
pub const CORE: &str = "crates/gapless-core";

/// Where the faults are.
pub const FAULTS: &str = "tests/mutants";

/// A test of a spoiled core may take so many times as long as the one of the sound core, and [`GRACE`] more; then it hangs.
const SLOWER: u32 = 20;

/// See [`SLOWER`]: the machine may be busy with something else.
const GRACE: Duration = Duration::from_secs(30);

/// A test of the sound core that takes longer is none of the quick ones.
const QUICK: Duration = Duration::from_secs(8);

/// What is asked for.
#[derive(Debug)]
pub struct Choice {
    /// These faults alone; none: all.
    pub only: Vec<String>,
    /// The faults that cargo-mutants names, in place of the deliberate ones.
    pub generated: bool,
    /// The quick tests alone: a first look, which says of a survivor only that those did not notice it.
    pub quick: bool,
    /// Of so many parts (the second number) this one (the first, from 0).
    pub shard: (usize, usize),
    /// How many faults are tried at the same time.
    pub jobs: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Choice { only: Vec::new(), generated: false, quick: false, shard: (0, 1), jobs: 1 }
    }
}

/// How many faults there are and how many were noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub caught: usize,
    pub all: usize,
    /// Generated faults that are no Rust.
    unviable: usize,
    /// Generated faults that nobody noticed and that are argued.
    argued: usize,
    /// Why a generated fault may survive: it is argued.
    arguments: Vec<String>,
}

impl Tally {
    /// Whether every fault was noticed, and there was one.
    pub fn is_complete(&self) -> bool {
        self.caught > 0 && self.caught + self.unviable + self.argued == self.all
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { caught, all, unviable, argued, .. } = self;
        write!(f, "mutants: {caught} caught of {}", all - unviable)?;
        if *argued > 0 { write!(f, ", {argued} survivors argued") } else { Ok(()) }
    }
}

/// What became of a fault.
enum Fate {
    Caught {
        by: Test,
        because: String,
    },
    Survived,
    /// It is no Rust: what the compiler says.
    Unviable(String),
    /// It could not be tried: why.
    Untried(String),
}

/// The tests of the sound core: how long each takes, and how many faults it has caught so far.
struct Order {
    tests: BTreeMap<Test, (Duration, usize)>,
}

impl Order {
    /// The tests that have caught most come first, then the quick ones.
    fn next(&self) -> Vec<(Test, Duration)> {
        let mut list: Vec<_> = self.tests.iter().map(|(test, (time, caught))| (test.clone(), *time, *caught)).collect();
        list.sort_by_key(|(_, time, caught)| (std::cmp::Reverse(*caught), *time));
        list.into_iter().map(|(test, time, _)| (test, time)).collect()
    }
}

/// Tries the faults one after the other (or some at the same time), and prints what became of each.
///
/// # Errors
/// When there is nothing to try, or the sound core does not pass its own tests.
pub fn run(root: &Path, target: &Path, choice: &Choice) -> Result<Tally, String> {
    let mut faults = if choice.generated { generated::all(root)? } else { fault::all(&root.join(FAULTS))? };
    if let Some(name) = choice.only.iter().find(|name| faults.iter().all(|fault| fault.name != **name)) {
        return Err(format!("there is no fault `{name}`"));
    }
    faults.retain(|fault| choice.only.is_empty() || choice.only.contains(&fault.name));
    let (part, parts) = choice.shard;
    let faults: Vec<Fault> = faults.into_iter().enumerate().filter(|(place, _)| place % parts == part).map(|(_, fault)| fault).collect();
    if faults.is_empty() {
        return Err("there is no fault".into());
    }
    let folder = |job: usize| target.join("mutants").join(job.to_string());
    let mut first = Suite::new(root, &folder(0))?;
    let mut order = sound(&mut first)?;
    if choice.quick {
        order.tests.retain(|_, (time, _)| *time <= QUICK);
    }
    let order = Mutex::new(order);
    let queue = Mutex::new(faults.iter());
    let arguments = if choice.generated { generated::argued(root)? } else { Vec::new() };
    let tally = Mutex::new(Tally { caught: 0, all: faults.len(), unviable: 0, argued: 0, arguments });
    let work = |suite: &mut Suite| {
        loop {
            let Some(fault) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
            try_one(suite, fault, &order, &tally);
        }
    };
    std::thread::scope(|scope| {
        for job in 1..choice.jobs.min(faults.len()) {
            let (work, folder) = (&work, folder(job));
            scope.spawn(move || match Suite::new(root, &folder) {
                Ok(mut suite) => work(&mut suite),
                Err(problem) => eprintln!("mutants: one job less: {problem}"),
            });
        }
        work(&mut first);
    });
    first.restore()?;
    tally.into_inner().map_err(|error| error.to_string())
}

/// The sound core passes all of its tests; how long each takes.
fn sound(suite: &mut Suite) -> Result<Order, String> {
    let mut tests = BTreeMap::new();
    for target in suite.targets() {
        for test in suite.tests(&target)? {
            let begun = Instant::now();
            // Without a fault there is nothing that could hang: the whole suite runs in minutes.
            match suite.run(&test, Duration::from_secs(3600))? {
                Verdict::Passed => drop(tests.insert(test, (begun.elapsed(), 0))),
                Verdict::Failed(because) => return Err(format!("{}::{} fails without any fault: {because}", test.target, test.name)),
                Verdict::Endless => return Err(format!("{}::{} does not end without any fault", test.target, test.name)),
                Verdict::NotCompiled(problem) => return Err(format!("without any fault: {problem}")),
            }
        }
    }
    println!("{:8} {} tests of the core pass without any fault", "sound", tests.len());
    Ok(Order { tests })
}

fn try_one(suite: &mut Suite, fault: &Fault, order: &Mutex<Order>, tally: &Mutex<Tally>) {
    let begun = Instant::now();
    let list = order.lock().map(|order| order.next()).unwrap_or_default();
    let fate = fate(suite, fault, &list).unwrap_or_else(Fate::Untried);
    let seconds = begun.elapsed().as_secs_f64();
    let Ok(mut tally) = tally.lock() else { return };
    match fate {
        Fate::Caught { by, because } => {
            println!("{:8} {} ({seconds:.1} s) by {}::{}: {because}", "caught", fault.name, by.target, by.name);
            tally.caught += 1;
            if let Some((_, caught)) = order.lock().ok().as_mut().and_then(|order| order.tests.get_mut(&by)) {
                *caught += 1;
            }
        }
        Fate::Survived if tally.arguments.contains(&generated::lasting(&fault.name)) => {
            println!("{:8} {} ({seconds:.1} s): see {}", "argued", fault.name, generated::SURVIVORS);
            tally.argued += 1;
        }
        Fate::Survived => println!("{:8} {} ({seconds:.1} s): {}", "SURVIVED", fault.name, fault.says),
        Fate::Unviable(_) if fault.says == generated::SAYS => {
            println!("{:8} {} ({seconds:.1} s)", "no rust", fault.name);
            tally.unviable += 1;
        }
        Fate::Unviable(problem) | Fate::Untried(problem) => println!("{:8} {}: {problem}", "UNTRIED", fault.name),
    }
}

fn fate(suite: &mut Suite, fault: &Fault, tests: &[(Test, Duration)]) -> Result<Fate, String> {
    suite.spoil(fault)?;
    for (test, time) in tests {
        let because = match suite.run(test, *time * SLOWER + GRACE)? {
            Verdict::Passed => continue,
            Verdict::NotCompiled(problem) => return Ok(Fate::Unviable(problem)),
            Verdict::Failed(because) => because,
            Verdict::Endless => "it does not end".to_string(),
        };
        return Ok(Fate::Caught { by: test.clone(), because });
    }
    Ok(Fate::Survived)
}
