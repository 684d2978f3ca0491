//! Stories as text: one command a line, `#` begins a comment.
//!
//! | command | what happens |
//! |---|---|
//! | `policy nodes 3 floor 2 passes 2 failures 3 progress 60s drain 30s bake 0s` | what the next declarations say |
//! | `proxies a b`, `slow a 3s`, `unreachable a`, `reachable a`, `replace a` (without memory), `rewind a` (with its last but one route), `absent a` (no worker), `present a`, `ahead a` (with a generation that nobody decided) | the proxies |
//! | `behave v2 status 500`, `boots 1s`, `answers 1s`, `exits 3 150ms`, `stays`, `wrong-image`, `stops 3s` (a worker), `runs 3s` (a task), `fails release-command`, `well` | nodes that an artifact version makes from now on |
//! | `policy blue-green`, `policy recreate`, `policy rolling 1` (surge), `policy canary 5:2s 50:person analysis` (or `analysis:100:50:20`) | the strategy of the next declarations |
//! | `policy task 10s keep 2 supersede replace way-back broken freeze 4320-4321` (minutes of the week), `tasks release-command after-shift`, `worker` | more of what they say |
//! | `declare v2`, `declare v2 urgent`, `declare v2 together`, `rollback`, `rollback r1`, `rollback r1 forced` | people |
//! | `pause`, `resume`, `cancel`, `promote`, `retry`, `scale 5`, `revoke v2 v3`, `revoke` (nothing any more) | people, too |
//! | `verdict hold`, `partners ready`, `partners failed` | what comparisons and other services say |
//! | `run 5s`, `settle`, `until bake`, `ticks coarse`, `ticks fine` | time passes: that long, until nothing is under way, until the state is so; in large steps or small ones |
//! | `kill r1-i1-n0`, `kill all r1`, `vanish r1-i1-n0`, `plant r7-i70-n0`, `hang r1-i1-n0` (it runs and answers nothing), `wake r1-i1-n0`, `long 20s` (requests) | the world |
//! | `fail Route 2 why`, `fail EnsureGroup always finally why`, `repair EnsureGroup`, `hold DestroyNodes`, `release held` | effects |
//! | `restart` (what was sent still arrives), `crash` (it does not), `skip 1h` (its clock), `forget everything` | the engine |
//! | `expect live r2`, `expect gone r1-i1-n0`, `expect cut 3`, … | what must be so |
//! | `allow failures` | nodes die or proxies lose their memory in this story: requests may fail |

use super::engine::{Engine, Mode};
use super::model::{Behaviour, Proxy, digest};
use gapless_core::analysis::{AnalysisPolicy, Verdict};
use gapless_core::effect::{Effect, EffectId, EffectKind, Task};
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, Outcome};
use gapless_core::policy::{CanaryPause, CanaryStep, Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::Weight;
use gapless_core::service::{Canary, ServiceState, Stage, Together};
use gapless_core::time::WeeklyWindow;
use std::collections::BTreeSet;
use std::time::Duration;

/// No story waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A story and how far the world went with it.
pub struct Story {
    pub engine: Engine,
    declaration: Declaration,
    /// Requests may fail here, because nodes die.
    allow: bool,
}

pub fn policy() -> Policy {
    Policy {
        floor: 2,
        gate_passes: 2,
        gate_failures: 3,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_secs(30),
        bake: Duration::ZERO,
        ..Policy::default()
    }
}

/// Plays a story. With `late`, everything that was ever sent is delivered again at the end.
pub fn play(text: &str, mode: Mode, late: bool) -> Story {
    let mut story = Story::new(mode);
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()) {
        story.line(line);
    }
    if late {
        story.engine.deliver_everything_again();
        story.engine.run_for(Duration::from_secs(10));
    }
    story.finish();
    story
}

impl Story {
    pub fn new(mode: Mode) -> Self {
        let mut engine = Engine::new(mode);
        engine.world.proxies.insert("a".into(), Proxy::default());
        let declaration = Declaration {
            content: digest(0),
            artifact: ArtifactVersion(0),
            image: digest(0),
            nodes: 3,
            policy: policy(),
            serves: true,
            tasks: BTreeSet::new(),
        };
        Story { engine, declaration, allow: false }
    }

    /// One line of a story.
    pub fn line(&mut self, line: &str) {
        self.engine.say(&format!("> {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        self.command(&words).unwrap_or_else(|problem| panic!("`{line}`: {problem}\n{}", self.engine.log.join("\n")));
    }

    /// What must be so at the end of a story.
    pub fn finish(&mut self) {
        let counts = self.engine.world.counts.clone();
        let summary = self.engine.summary();
        self.engine.log.push(format!("end: {summary}"));
        self.engine.log.push(format!("requests: lost {} unserved {} cut {}", counts.lost, counts.unserved, counts.cut));
        assert!(counts.served > 0, "no request was served in the whole story");
        if !self.allow {
            assert_eq!((counts.lost, counts.unserved, counts.died), (0, 0, 0), "requests failed\n{}", self.engine.log.join("\n"));
        }
    }

    fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["policy", settings @ ..] => self.policy(settings),
            ["behave", version, settings @ ..] => self.behave(version, settings),
            ["tasks" | "worker" | "verdict" | "partners", ..] => self.settings(words),
            ["declare" | "rollback" | "pause" | "resume" | "cancel" | "promote" | "retry" | "scale" | "revoke", ..] => self.people(words),
            ["run", span] => {
                self.engine.run_for(duration(span)?);
                Ok(())
            }
            ["settle"] => self.engine.settle(PATIENCE).then_some(()).ok_or_else(|| format!("does not settle: {}", self.engine.summary())),
            ["until", what @ ..] => self.until(what),
            ["allow", "failures"] => {
                self.allow = true;
                self.engine.disturbed = true;
                Ok(())
            }
            ["long", span] => {
                let length = u64::try_from(duration(span)?.as_millis()).map_err(|error| error.to_string())?;
                self.engine.world.send_long(length);
                Ok(())
            }
            ["ticks", how] => {
                self.engine.world.coarse = *how == "coarse";
                Ok(())
            }
            ["expect", what @ ..] => self.expect(what),
            ["kill" | "vanish" | "plant" | "hang" | "wake", ..] => self.harm_nodes(words),
            ["proxies" | "slow" | "ahead" | "absent" | "present" | "unreachable" | "reachable" | "replace" | "rewind", ..] => {
                self.change_proxies(words)
            }
            _ => self.disturb_engine(words),
        }
    }

    fn harm_nodes(&mut self, words: &[&str]) -> Result<(), String> {
        let node = |name: &str| name.parse().map_err(|_| "no node");
        match words {
            ["hang", name] => self.engine.world.hang(node(name)?, true),
            ["hang", "any", place] => self.any(place).into_iter().for_each(|node| self.engine.world.hang(node, true)),
            ["wake", name] => self.engine.world.hang(node(name)?, false),
            ["kill", "any", place] => self.any(place).into_iter().for_each(|node| self.engine.world.kill(node, "killed")),
            ["vanish", "any", place] => self.any(place).into_iter().for_each(|node| self.engine.world.vanish(node)),
            ["kill", "all", release] => self.engine.world.kill_release(number(release, 'r')?),
            ["kill", name] => self.engine.world.kill(node(name)?, "killed"),
            ["vanish", name] => self.engine.world.vanish(node(name)?),
            ["plant", name] => self.engine.world.plant(node(name)?),
            _ => return Err("no such harm".into()),
        }
        Ok(())
    }

    fn change_proxies(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["proxies", names @ ..] => {
                self.engine.world.proxies = names.iter().map(|name| ((*name).to_string(), Proxy::default())).collect();
            }
            ["slow", name, span] => self.proxy(name, |proxy, span| proxy.slow = span, span)?,
            ["unreachable", name] => self.proxy(name, |proxy, _| proxy.unreachable = true, "0s")?,
            ["reachable", name] => self.proxy(name, |proxy, _| proxy.unreachable = false, "0s")?,
            ["absent", name] => self.engine.world.make_absent(name, true),
            ["present", name] => self.engine.world.make_absent(name, false),
            ["ahead", name] => self.engine.world.put_ahead(name),
            ["replace", name] => self.engine.world.replace_proxy(name),
            // A destruction that was decided on what the proxy had acknowledged cannot be called back: no fault of the core.
            ["rewind", name] if !self.engine.is_destroying() => self.engine.world.rewind_proxy(name),
            ["rewind", _] => {}
            _ => return Err("no such change of a proxy".into()),
        }
        Ok(())
    }

    fn disturb_engine(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["forget", "everything"] => self.engine.forget_everything(),
            ["skip", span] => self.engine.ahead += milliseconds(span)?,
            ["crash"] => self.engine.crash(),
            ["restart"] => self.engine.crash_after_sending(),
            ["fail", kind, times, reason @ ..] => self.fail(kind, times, reason)?,
            ["repair", kind] => drop(self.engine.broken.remove(&kind_of(kind)?)),
            ["hold", kind] => drop(self.engine.hold.insert(kind_of(kind)?)),
            ["release", "held"] => self.engine.release_held(),
            _ => return Err("no such command".into()),
        }
        Ok(())
    }

    fn proxy(&mut self, name: &str, change: impl Fn(&mut Proxy, u64), span: &str) -> Result<(), String> {
        let length = u64::try_from(duration(span)?.as_millis()).map_err(|error| error.to_string())?;
        change(self.engine.world.proxies.get_mut(name).ok_or("no such proxy")?, length);
        Ok(())
    }

    fn any(&self, place: &str) -> Option<gapless_core::node::NodeId> {
        let nodes = self.engine.world.node_names();
        let place: usize = place.parse().ok()?;
        nodes.get(place % nodes.len().max(1)).copied()
    }

    fn policy(&mut self, settings: &[&str]) -> Result<(), String> {
        if self.strategy(settings)? {
            return Ok(());
        }
        for pair in settings.chunks(2) {
            let [name, value] = pair else { return Err("a setting without a value".into()) };
            let count = || value.parse::<u32>().map_err(|error| error.to_string());
            let policy = &mut self.declaration.policy;
            match *name {
                "nodes" => self.declaration.nodes = count()?,
                "floor" => policy.floor = count()?,
                "passes" => policy.gate_passes = count()?,
                "failures" => policy.gate_failures = count()?,
                "progress" => policy.progress_deadline = duration(value)?,
                "drain" => policy.drain_deadline = duration(value)?,
                "bake" => policy.bake = duration(value)?,
                "task" => policy.task_deadline = duration(value)?,
                "keep" => policy.keep = count()?,
                "supersede" => policy.supersede = if *value == "replace" { Supersede::Replace } else { Supersede::Queue },
                "way-back" => policy.breaks_the_way_back = *value == "broken",
                "freeze" => policy.freeze = windows(value)?,
                _ => return Err(format!("no setting `{name}`")),
            }
        }
        Ok(())
    }

    /// Whether the settings were a strategy.
    fn strategy(&mut self, settings: &[&str]) -> Result<bool, String> {
        self.declaration.policy.strategy = match settings {
            ["blue-green"] => Strategy::BlueGreen,
            ["recreate"] => Strategy::Recreate,
            ["rolling", surge] => Strategy::Rolling { surge: surge.parse().map_err(|_| "no count")? },
            ["canary", steps @ ..] => {
                let (analysis, steps) = match steps {
                    [steps @ .., last] if last.starts_with("analysis") => (Some(analysis(last)?), steps),
                    steps => (None, steps),
                };
                Strategy::Canary { steps: steps.iter().map(|step| canary_step(step)).collect::<Result<_, _>>()?, analysis }
            }
            _ => return Ok(false),
        };
        Ok(true)
    }

    fn behave(&mut self, version: &str, settings: &[&str]) -> Result<(), String> {
        let behaviour: &mut Behaviour = self.engine.behaviours.entry(number(version, 'v')?).or_default();
        let mut words = settings.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().ok_or("a setting without a value");
            match *word {
                "boots" => behaviour.boots = milliseconds(value()?)?,
                "answers" => behaviour.answers = milliseconds(value()?)?,
                "status" => behaviour.status = value()?.parse().map_err(|_| "no status")?,
                "exits" => behaviour.exits = Some((value()?.parse().map_err(|_| "no code")?, milliseconds(value()?)?)),
                "stays" => behaviour.exits = None,
                "wrong-image" => behaviour.wrong_image = true,
                "stops" => behaviour.stops = milliseconds(value()?)?,
                "runs" => behaviour.runs = milliseconds(value()?)?,
                "fails" => drop(behaviour.failing.insert(task(value()?)?)),
                "well" => *behaviour = Behaviour::default(),
                _ => return Err(format!("no behaviour `{word}`")),
            }
        }
        Ok(())
    }

    fn settings(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["tasks", names @ ..] => {
                let all = names.iter().map(|name| task(name));
                self.declaration.tasks = all.collect::<Result<_, _>>()?;
            }
            ["worker"] => {
                self.declaration.serves = false;
                self.engine.world.worker = self.engine.state.releases.is_empty();
            }
            ["verdict", "promote"] => self.engine.verdict = Verdict::Promote,
            ["verdict", "hold"] => self.engine.verdict = Verdict::Hold,
            ["verdict", "abort"] => self.engine.verdict = Verdict::Abort,
            ["partners", "ready"] => drop(self.engine.feed(Event::PartnersReady)),
            ["partners", "failed"] => drop(self.engine.feed(Event::PartnersFailed { reason: "app/worker was rejected".into() })),
            ["partners", "taken-back"] => {
                drop(self.engine.feed(Event::PartnersTakenBack { reason: "app/worker was taken back".into() }));
            }
            _ => return Err("no such setting".into()),
        }
        Ok(())
    }

    fn people(&mut self, words: &[&str]) -> Result<(), String> {
        let event = match words {
            ["declare", version, how @ ..] => self.declared(version, how)?,
            ["rollback"] => Event::RollbackRequested { to: None, forced: false },
            ["rollback", release, how @ ..] => {
                Event::RollbackRequested { to: Some(ReleaseNumber(number(release, 'r')?)), forced: how == ["forced"] }
            }
            ["pause"] => Event::Paused,
            ["resume"] => Event::Resumed,
            ["cancel"] => Event::Cancelled,
            ["promote"] => Event::Promoted,
            ["retry"] => Event::RetryRequested,
            ["retry", "together"] => Event::RetriedTogether { together: Together { id: digest(8), with: partners()? } },
            ["scale", nodes] => Event::Scaled { nodes: nodes.parse().map_err(|_| "no count")? },
            ["revoke", versions @ ..] => {
                let artifacts = versions.iter().map(|version| Ok(ArtifactVersion(number(version, 'v')?)));
                Event::Revoked { artifacts: artifacts.collect::<Result<_, String>>()? }
            }
            _ => return Err("nobody can want that".into()),
        };
        self.engine.feed(event);
        Ok(())
    }

    fn declared(&mut self, version: &str, how: &[&str]) -> Result<Event, String> {
        let artifact = number(version, 'v')?;
        self.declaration.artifact = ArtifactVersion(artifact);
        self.declaration.image = digest(u8::try_from(artifact).map_err(|error| error.to_string())?);
        self.declaration.content = content(&self.declaration);
        let with = partners()?;
        let together = how.contains(&"together").then_some(Together { id: self.declaration.image, with });
        Ok(Event::Declared { declaration: self.declaration.clone(), urgent: how.contains(&"urgent"), together })
    }

    fn until(&mut self, what: &[&str]) -> Result<(), String> {
        let wanted: Vec<String> = what.iter().map(|word| (*word).to_string()).collect();
        let reached = self.engine.run_until(&move |state| is(state, &wanted), PATIENCE);
        reached.then_some(()).ok_or_else(|| "was never so".into())
    }

    fn fail(&mut self, kind: &str, times: &str, reason: &[&str]) -> Result<(), String> {
        let is_final = reason.first().is_some_and(|word| word.starts_with("finally"));
        let failure = Failure { reason: reason.join(" "), is_final };
        if times == "always" {
            self.engine.broken.insert(kind_of(kind)?, failure);
            return Ok(());
        }
        let times: usize = times.parse().map_err(|_| "no count")?;
        self.engine.failures.entry(kind_of(kind)?).or_default().extend(std::iter::repeat_n(failure, times));
        Ok(())
    }

    fn expect(&mut self, what: &[&str]) -> Result<(), String> {
        let counts = &self.engine.world.counts;
        let good = match what {
            ["quiet"] => !self
                .engine
                .log
                .iter()
                .rev()
                .take_while(|line| !line.contains("> declare"))
                .any(|line| line.split_once("s ").is_some_and(|(_, rest)| rest.starts_with('e'))),
            ["cut", count] => counts.cut.to_string() == **count,
            ["ran", name, count] => {
                let wanted = task(name)?;
                self.engine.world.tasks.iter().filter(|(_, task)| *task == wanted).count().to_string() == **count
            }
            ["nodes", count] => self.engine.world.node_names().len().to_string() == **count,
            ["refused"] => self.engine.log.iter().rev().take(3).any(|line| line.contains("  refused: ")),
            ["exists", node] => self.engine.world.node_names().contains(&node.parse().map_err(|_| "no node")?),
            ["gone", node] => !self.engine.world.node_names().contains(&node.parse().map_err(|_| "no node")?),
            _ => is(&self.engine.state, &what.iter().map(|word| (*word).to_string()).collect::<Vec<_>>()),
        };
        good.then_some(()).ok_or_else(|| format!("is not so: {} {counts:?}", self.engine.summary()))
    }
}

/// Whether the state is as the words say.
fn is(state: &ServiceState, words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let stage = state.rollout.as_ref().map(|rollout| &rollout.stage);
    match words.as_slice() {
        ["prepare"] => matches!(stage, Some(Stage::Prepare { .. })),
        ["booted"] => matches!(stage, Some(Stage::Prepare { booted: true, .. })),
        ["shift"] => matches!(stage, Some(Stage::Shift)),
        ["bake"] => matches!(stage, Some(Stage::Bake { .. })),
        ["vacate"] => matches!(stage, Some(Stage::Vacate)),
        ["command"] => matches!(stage, Some(Stage::Command)),
        ["await"] => matches!(stage, Some(Stage::Await { .. })),
        ["canary", step] => matches!(stage, Some(Stage::Canary(canary)) if canary.step.to_string() == *step),
        ["counting"] => matches!(stage, Some(Stage::Canary(Canary { since: Some(_), .. }))),
        ["roll"] => matches!(stage, Some(Stage::Roll { .. })),
        ["confirm"] => matches!(stage, Some(Stage::Confirm)),
        ["unroll"] => matches!(stage, Some(Stage::Unroll { .. })),
        ["restore"] => matches!(stage, Some(Stage::Restore { .. })),
        ["joined", count] => {
            let to = state.rollout.as_ref().map(|rollout| rollout.to);
            state.route.members.iter().filter(|(node, weight)| Some(node.group) == to && weight.has_traffic()).count().to_string() == *count
        }
        ["queued", release] => state.queued.as_ref().is_some_and(|queued| queued.release.to_string() == *release),
        ["crash-loop"] => state.healing.stopped,
        ["kept", release] => state.releases.keys().any(|kept| kept.to_string() == *release),
        ["forgotten", release] => !state.releases.keys().any(|kept| kept.to_string() == *release),
        ["retire"] => matches!(stage, Some(Stage::Retire)),
        ["undo"] => matches!(stage, Some(Stage::Undo { .. })),
        ["ended"] => stage.is_none(),
        ["draining"] => state.draining.values().any(|drain| drain.ends.is_some()),
        ["destroying"] => state.pending.values().any(|effect| effect.kind() == EffectKind::DestroyNodes),
        ["joining"] => !state.joining.is_empty(),
        ["live", "none"] => state.live.is_none(),
        ["live", release] => state.live_release().is_some_and(|live| live.to_string() == *release),
        ["declared", release] => state.declared.is_some_and(|declared| declared.to_string() == *release),
        ["pinned"] => state.pinned,
        ["free"] => !state.pinned,
        ["together", release, "none"] => !state.together.0.keys().any(|known| known.to_string() == *release),
        ["together", release, outcome] => {
            state.together.0.iter().any(|(known, end)| known.to_string() == *release && format!("{:?}", end.outcome) == *outcome)
        }
        other => panic!("no such condition: {other:?}"),
    }
}

fn partners() -> Result<BTreeSet<ServiceName>, String> {
    Ok(BTreeSet::from([ServiceName::new("app", "worker").map_err(|error| error.to_string())?]))
}

/// A content that differs when anything of the declaration does.
pub fn content(declaration: &Declaration) -> gapless_core::digest::Digest {
    let text = format!("{} {} {:?} {:?}", declaration.artifact, declaration.nodes, declaration.policy, declaration.tasks);
    let mut bytes = [0_u8; 32];
    for (place, byte) in text.bytes().enumerate() {
        let slot = &mut bytes[place % 32];
        *slot = slot.wrapping_mul(31).wrapping_add(byte);
    }
    gapless_core::digest::Digest(bytes)
}

fn kind_of(name: &str) -> Result<EffectKind, String> {
    EffectKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("no effect `{name}`"))
}

fn task(name: &str) -> Result<Task, String> {
    Task::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| format!("no task `{name}`"))
}

fn canary_step(text: &str) -> Result<CanaryStep, String> {
    let (percent, pause) = text.split_once(':').ok_or("a step such as 5:2s or 5:person")?;
    let percent = percent.parse().map_err(|_| "no share")?;
    let pause = if pause == "person" { CanaryPause::Person } else { CanaryPause::For(duration(pause)?) };
    Ok(CanaryStep { percent, pause })
}

fn windows(text: &str) -> Result<Vec<WeeklyWindow>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let (from, until) = text.split_once('-').ok_or("a window such as 4320-4321")?;
    let minute = |text: &str| text.parse().map_err(|_| "no minute".to_string());
    Ok(vec![WeeklyWindow { from: minute(from)?, until: minute(until)? }])
}

/// `analysis`, or with the requests that it needs and its margins: `analysis:100:50:20`.
fn analysis(text: &str) -> Result<AnalysisPolicy, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    match text.split(':').skip(1).collect::<Vec<_>>().as_slice() {
        [] => Ok(AnalysisPolicy { minimum_requests: 100, error_margin: 50, latency_margin: 20 }),
        [minimum, errors, latency] => {
            Ok(AnalysisPolicy { minimum_requests: number(minimum)?, error_margin: number(errors)?, latency_margin: number(latency)? })
        }
        _ => Err(format!("`{text}` is no analysis")),
    }
}

fn number(text: &str, mark: char) -> Result<u32, String> {
    text.strip_prefix(mark).and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("`{text}` is not a number after `{mark}`"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as 500ms or 3s");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => digits.parse().map(Duration::from_millis).map_err(|_| wrong()),
        (None, Some(digits)) => digits.parse().map(Duration::from_secs).map_err(|_| wrong()),
        (None, None) if text.ends_with('h') => {
            text.trim_end_matches('h').parse().map(|hours: u64| Duration::from_secs(hours * 3600)).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    u64::try_from(duration(text)?.as_millis()).map_err(|error| error.to_string())
}

/// An effect as a line of the golden outcome.
pub fn line_of(id: EffectId, effect: &Effect) -> String {
    let nodes = |nodes: &std::collections::BTreeSet<gapless_core::node::NodeId>| {
        nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    match effect {
        Effect::EnsureGroup { group, size } => format!("{id} EnsureGroup {group} to {size}"),
        Effect::Route(route) if route.members.values().any(|weight| *weight != Weight::EQUAL && *weight != Weight::PROBED) => {
            let members: Vec<String> = route.members.iter().map(|(node, weight)| format!("{node}:{}", weight.0)).collect();
            format!("{id} Route {}: weights [{}]", route.generation, members.join(" "))
        }
        Effect::Route(route) => {
            let with = |weight| {
                route.members.iter().filter(move |(_, is)| **is == weight).map(|(node, _)| node.to_string()).collect::<Vec<_>>().join(" ")
            };
            format!("{id} Route {}: traffic [{}] probed [{}]", route.generation, with(Weight::EQUAL), with(Weight::PROBED))
        }
        Effect::Drain { nodes: set, deadline } => format!("{id} Drain {} within {deadline:?}", nodes(set)),
        Effect::DestroyNodes { nodes: set } => format!("{id} DestroyNodes {}", nodes(set)),
        Effect::RunTask { group, task, deadline } => format!("{id} RunTask {task} of {group} within {deadline:?}"),
        Effect::Analyse { old, new, since, .. } => format!("{id} Analyse {new} against {old} since {}", since.0),
        Effect::Notify(notice) => format!("  . {}", notice_line(notice)),
    }
}

fn notice_line(notice: &Notice) -> String {
    match notice {
        Notice::RolloutStarted { rollout, kind, from, to } => {
            format!("rollout {rollout} started: {kind:?} {} -> {to}", from.map_or("none".into(), |from| from.to_string()))
        }
        Notice::ShiftBegan { rollout, generation, way_back } => format!("rollout {rollout} shifts with {generation}, way back: {way_back}"),
        Notice::RolloutEnded { rollout, outcome, settled } => {
            let how = if matches!(outcome, Outcome::Live) { "live" } else { "rejected" };
            format!("rollout {rollout} ended {how}{}", if *settled { "" } else { ", and its other group is not gone yet" })
        }
        other => format!("{other:?}"),
    }
}
