//! Chaos under load: the server is killed before and after each effect of each way from one release to the next; workers, holders and nodes die or hang in mid rollout; the disk
//! is full. The witness may count no failure but those that the promise excludes, and those are counted by cause.
//!
//! `make test` plays a part of it. With `GAPLESS_CHAOS=whole`, as `make prove` has it, nothing is left out. `GAPLESS_CHAOS_WAY=WORDS` plays the ways with these words in their name alone.

use crate::chaos_way::{Act, WAYS, Way};
use crate::fault::{SERVICE, leaves_nothing, serving, under_load};
use crate::installation::{Installation, ServerSettings};
use crate::project::Project;
use gapless_load::{Cause, Plan, Recording, Sample, Target, Witness};
use gapless_wire::rollout::Outcome;
use std::collections::BTreeMap;

/// Requests a second.
pub const RATE: u32 = 150;

/// Every effect that a rollout may have.
const EFFECTS: [&str; 6] = ["RunTask", "EnsureGroup", "Route", "Analyse", "Drain", "DestroyNodes"];

/// No rollout of these tests has more effects of one kind: a place beyond is not looked for.
const MOST: u32 = 12;

/// From the witness's last look at a kept connection to its first byte on it, in microseconds; see `fault.rs`.
const SENDING_US: u64 = 10_000;

/// Whether everything is played.
pub fn whole() -> bool {
    std::env::var("GAPLESS_CHAOS").is_ok_and(|value| value == "whole")
}

/// The ways that are played.
pub fn ways() -> impl Iterator<Item = &'static Way> {
    let only = std::env::var("GAPLESS_CHAOS_WAY").unwrap_or_default();
    WAYS.iter().filter(move |way| way.name.contains(&only))
}

/// Requests that were in flight in a span may fail, for this reason.
#[derive(Debug)]
pub struct Excuse {
    pub why: &'static str,
    pub from_us: u64,
    pub until_us: u64,
    /// These causes alone.
    pub causes: &'static [Cause],
}

impl Excuse {
    fn covers(&self, sample: &Sample) -> bool {
        let sent = sample.sent_us().unwrap_or(sample.scheduled_us);
        let in_flight = sent <= self.until_us.saturating_add(SENDING_US) && sample.ended_us() >= self.from_us;
        in_flight && sample.failure.is_some_and(|cause| self.causes.contains(&cause))
    }
}

/// What was done, and what it did to the people who use the service.
#[derive(Debug, Default)]
pub struct Tally {
    pub kills: u64,
    requests: u64,
    failed: u64,
    excused: BTreeMap<String, u64>,
}

impl Tally {
    /// Holds what the witness saw against what the promise excludes.
    pub fn judge(&mut self, recording: &Recording, excuses: &[Excuse]) {
        assert_eq!(recording.report.samples_dropped, 0, "the witness did not keep every sample");
        self.requests += recording.report.requests;
        for sample in recording.samples.samples.iter().filter(|sample| !sample.is_ok()) {
            match excuses.iter().find(|excuse| excuse.covers(sample)) {
                Some(excuse) => {
                    let cause = sample.failure.map_or("none", Cause::as_str);
                    *self.excused.entry(format!("{} ({cause})", excuse.why)).or_default() += 1;
                }
                None => {
                    self.failed += 1;
                    let class = &recording.samples.classes[usize::from(sample.class)];
                    println!("failed without an excuse: {class} {sample:?}; the excuses: {excuses:?}");
                }
            }
        }
    }

    /// The line that `make prove` reads.
    pub fn tell(&self) {
        let excused: Vec<String> = self.excused.iter().map(|(why, count)| format!("{count} {why}")).collect();
        println!("excused by the promise: {}", if excused.is_empty() { "none".into() } else { excused.join(", ") });
        println!("chaos: {} kills, {} requests, {} failed", self.kills, self.requests, self.failed);
        assert!(self.kills > 0 && self.requests > 0, "nothing was tried");
        assert_eq!(self.failed, 0, "requests failed that the promise does not excuse");
    }
}

/// An installation with both versions of the project built and the first of them live.
pub struct Stage {
    pub installation: Installation,
    pub project: Project,
    commits: [String; 2],
    broken: String,
    turn: usize,
    /// How many nodes the service has when it is whole.
    pub nodes: usize,
}

impl Stage {
    pub async fn set(name: &str, way: &Way) -> Stage {
        let installation = Installation::start(name, &ServerSettings::default()).await;
        Stage::on(installation, way).await
    }

    pub async fn on(installation: Installation, way: &Way) -> Stage {
        let project = Project::copied("examples/hello", &installation.root.join("project"));
        let mut stage = Stage { installation, project, commits: Default::default(), broken: String::new(), turn: 0, nodes: way.nodes() };
        stage.change(way).await;
        stage
    }

    /// From now on this is how the service moves: both versions, and one that never passes its checks, are committed and built, and the next one goes live.
    pub async fn change(&mut self, way: &Way) {
        way.write(&self.project);
        self.nodes = way.nodes();
        for (place, healthz) in ["status=500", "status=200", "status=200"].into_iter().enumerate() {
            std::fs::write(self.project.path.join("app/public/version"), format!("{place}\n")).expect("writing the version");
            let text = std::fs::read_to_string(self.project.path.join("app/cgi/healthz")).expect("reading the check");
            let text = text.replace("status=200", "status=").replace("status=500", "status=").replace("status=", healthz);
            std::fs::write(self.project.path.join("app/cgi/healthz"), text).expect("writing the check");
            let commit = self.project.commit(&format!("{}, version {place}", way.name));
            let told = self.installation.build(&self.project, &commit).await;
            assert!(matches!(told.last(), Some(gapless_wire::build::BuildLine::Done)), "{told:#?}");
            if place == 0 { self.broken = commit } else { self.commits[place - 1] = commit }
        }
        crate::provisioned::keep(&self.installation.state());
        for _ in 0..2 {
            let rollout = self.declare().await;
            self.installation.baking_or_ended(SERVICE, rollout).await;
        }
    }

    /// Declares the other version; the rollout that this begins. After a rollback the other version is live already: then the one after it.
    pub async fn declare(&mut self) -> u32 {
        for _ in 0..2 {
            self.turn += 1;
            let commit = self.commits[self.turn % 2].clone();
            let declared = self.installation.declare_built(&self.project, &commit).await;
            if let Some(rollout) = declared.rollout.filter(|_| declared.changed) {
                return rollout;
            }
        }
        panic!("neither version begins a rollout");
    }

    /// Begins what this way is about; the rollout.
    pub async fn act(&mut self, act: Act) -> u32 {
        match act {
            Act::Deploy => self.declare().await,
            Act::Reject => {
                let declared = self.installation.declare_built(&self.project, &self.broken).await;
                declared.rollout.expect("a rollout")
            }
            Act::RollBack | Act::TakeBack => {
                let declared = self.installation.roll_back(SERVICE, None).await;
                declared.rollout.expect("a rollout")
            }
        }
    }

    /// What has to be so before the act can begin, under load or not.
    pub async fn prepare(&mut self, act: Act) {
        match act {
            Act::TakeBack => {
                let rollout = self.declare().await;
                self.installation.baking(SERVICE, rollout).await;
            }
            // Going back twice in a row, without a name, is refused.
            Act::RollBack => {
                let rollout = self.declare().await;
                self.installation.ended(SERVICE, rollout).await;
            }
            Act::Deploy | Act::Reject => {}
        }
    }

    /// The server again, from its journal, to hold at a place or at none.
    pub async fn restart(&mut self, place: Option<&str>) {
        self.installation.kill_server();
        let _ = std::fs::remove_file(self.installation.marker());
        let hold = place.map(|place| format!("{SERVICE}:*:{place}"));
        self.installation.start_server(&ServerSettings { hold_at: hold, ..ServerSettings::default() }).await;
    }

    /// Begins the act with a server that holds at a place. `None`: there is no such place in it, and it has ended.
    pub async fn held_at(&mut self, act: Act, place: &str) -> Option<u32> {
        self.prepare(act).await;
        self.restart(Some(place)).await;
        let rollout = self.act(act).await;
        tokio::select! {
            ended = self.installation.ended(SERVICE, rollout) => {
                assert_eq!(ended.outcome, act.outcome(), "with a place {place} that is not there: {:?}", ended.reason);
                None
            }
            () = self.installation.held() => Some(rollout),
        }
    }

    /// The rollout ended as it had to, and the service is whole.
    pub async fn is_whole(&self, rollout: u32, outcome: Outcome, after: &str) {
        let ended = self.installation.ended(SERVICE, rollout).await;
        assert_eq!(ended.outcome, outcome, "{after}: {:?}", ended.reason);
        serving(&self.installation, self.nodes).await;
    }
}

/// Every place of a way, or the ones of its short form: the server is killed there, and the next one ends what was begun.
async fn kill_everywhere(stage: &mut Stage, way: &Way, tally: &mut Tally) -> Vec<Excuse> {
    let mut excuses = Vec::new();
    if !whole() {
        for place in way.short {
            let killed = kill_at(stage, way, place, &mut excuses).await;
            assert!(killed, "{}: no place {place}", way.name);
            tally.kills += 1;
        }
        return excuses;
    }
    for effect in EFFECTS {
        let places = (1..=MOST).flat_map(|nth| ["before", "after"].map(|side| format!("{effect}:{nth}:{side}")));
        let mut is_through = false;
        for place in places {
            if !kill_at(stage, way, &place, &mut excuses).await {
                is_through = true;
                break;
            }
            tally.kills += 1;
            println!("{}: killed at {place}", way.name);
        }
        assert!(is_through, "{}: there may be more than {MOST} places of {effect}", way.name);
    }
    excuses
}

async fn kill_at(stage: &mut Stage, way: &Way, place: &str, excuses: &mut Vec<Excuse>) -> bool {
    let from_us = crate::fault::now_us();
    let reached = stage.held_at(way.act, place).await;
    // Also where it did not hold: it would hold at this place in whatever comes next.
    stage.restart(None).await;
    if let Some(rollout) = reached {
        stage.is_whole(rollout, way.act.outcome(), &format!("{}: after a kill at {place}", way.name)).await;
    }
    if way.outage {
        let why = "in the outage of a recreated service";
        excuses.push(Excuse { why, from_us, until_us: crate::fault::now_us(), causes: &[Cause::Status503] });
    }
    reached.is_some()
}

/// The load of a test, and all of what it saw at its end.
pub async fn load(installation: &Installation) -> Witness {
    loaded(installation, &Plan::standard(Target::address(installation.address, "localhost"))).await
}

/// As [`load`]. Where answers are compared, a tenth of them is slow: with two in a hundred, as is usual, the 99th of a hundred is sometimes a slow one and sometimes not, and no
/// verdict comes in time.
async fn load_of(way: &Way, installation: &Installation) -> Witness {
    let mut plan = Plan::standard(Target::address(installation.address, "localhost"));
    if way.compares() {
        for (name, share) in [("small", 520), ("slow", 100)] {
            plan.classes.iter_mut().filter(|class| class.name == name).for_each(|class| class.share = share);
        }
    }
    loaded(installation, &plan).await
}

async fn loaded(installation: &Installation, plan: &Plan) -> Witness {
    let mut plan = plan.clone();
    plan.rate_per_second = RATE;
    let witness = installation.witness_of(&plan).await;
    under_load(&witness, u64::from(RATE)).await;
    witness
}

pub async fn stop(witness: Witness) -> Recording {
    witness.stop().await.expect("the witness's recording")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_be_killed_in_every_way_from_one_release_to_the_next() {
    let mut tally = Tally::default();
    let mut stage = Stage::set("chaos-server", &WAYS[0]).await;
    for way in ways() {
        stage.change(way).await;
        let witness = load_of(way, &stage.installation).await;
        let excuses = kill_everywhere(&mut stage, way, &mut tally).await;
        tally.judge(&stop(witness).await, &excuses);
    }
    tally.tell();
    leaves_nothing(stage.installation);
}
