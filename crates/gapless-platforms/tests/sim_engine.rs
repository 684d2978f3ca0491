//! The engine in a simulated world, always with requests in flight: rollouts, crashes at every place, faults, a full disk.

mod sim_support;

use async_trait::async_trait;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::notice::{Notice, Outcome, Rejection};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::Weight;
use gapless_core::service::{ServiceState, Stage};
use gapless_engine::checkpoint::{Checkpoint, EffectContext, HoldAt, NoCheckpoint, Place, Side};
use gapless_engine::clock::Clock;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::ErrorKind;
use gapless_engine::recovery::diagnose;
use gapless_engine::{DeclareError, Engine};
use gapless_platforms::sim::{Faults, Picture, SimOptions, SimTime};
use sim_support::{Act, BROKEN, GLANCE, Scene, declaration, runtime, web};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A first release, the next one, one that is rejected, another one, and the way back.
const SCRIPT: [Act; 5] = [Act::Deploy(1), Act::Deploy(2), Act::Deploy(BROKEN), Act::Deploy(4), Act::Rollback(ReleaseNumber(2))];

async fn perform_all(scene: &Scene, engine: &Engine) -> Vec<(Option<ReleaseNumber>, bool)> {
    let mut seen = Vec::new();
    for act in SCRIPT {
        let state = scene.perform(engine, act).await;
        seen.push((state.live_release(), state.pinned));
    }
    seen
}

fn lives_of_the_script() -> Vec<(Option<ReleaseNumber>, bool)> {
    [(1, false), (2, false), (2, false), (4, false), (2, true)].map(|(release, pinned)| (Some(ReleaseNumber(release)), pinned)).to_vec()
}

fn members(picture: &Picture) -> Vec<BTreeMap<gapless_core::node::NodeId, Weight>> {
    picture.routes.values().cloned().collect()
}

/// The undisturbed run that the others are compared with: its journal's length and the world that it leaves.
fn undisturbed(options: SimOptions) -> (usize, Picture) {
    let scene = Scene::new(options);
    let lives = scene.plain_life(async |engine| perform_all(&scene, &engine).await);
    assert_eq!(lives, lives_of_the_script());
    scene.assert_no_failure("undisturbed");
    (scene.store.length(), scene.sim.picture(&web()))
}

#[test]
fn a_script_of_rollouts_leaves_what_it_should_and_fails_no_request() {
    let (_, picture) = undisturbed(SimOptions { proxies: 2, ..SimOptions::default() });
    let group = GroupId { release: ReleaseNumber(2), instance: InstanceId(5) };
    let nodes: Vec<_> = (0..3).map(|ordinal| group.node(ordinal)).collect();
    assert_eq!(picture.nodes.iter().copied().collect::<Vec<_>>(), nodes);
    let route: BTreeMap<_, _> = nodes.iter().map(|node| (*node, Weight::EQUAL)).collect();
    assert_eq!(members(&picture), [route.clone(), route]);
}

#[test]
fn a_crash_after_any_append_ends_in_the_same_world() {
    let (length, picture) = undisturbed(SimOptions::default());
    assert!(length > 40, "the script is too short to tell anything: {length} records");
    let mut crashes = 0;
    for dies_at in 1..2 * length {
        let scene = Scene::new(SimOptions::default());
        if !scene.life_that_dies_at(dies_at) {
            break;
        }
        crashes = dies_at;
        scene.assert_same_end(&format!("after a crash at record {dies_at}"), &picture);
    }
    assert!(crashes > length / 2, "only {crashes} crashes in a journal of {length} records");
}

impl Scene {
    /// Performs the script until the journal has this length and the program dies. Whether it died.
    fn life_that_dies_at(&self, length: usize) -> bool {
        self.plain_life(async |engine| {
            self.store.die_at(length);
            tokio::select! {
                biased;
                () = self.store.died() => true,
                _ = perform_all(self, &engine) => false,
            }
        })
    }

    /// A next life performs the rest of the script, and it ends as if nothing had happened.
    fn assert_same_end(&self, when: &str, picture: &Picture) {
        let lives = self.plain_life(async |engine| perform_all(self, &engine).await);
        assert_eq!(lives.last(), lives_of_the_script().last(), "{when}");
        self.assert_no_failure(when);
        assert_eq!(self.sim.picture(&web()), *picture, "{when}");
    }

    fn life_that_holds_at(&self, place: Place) -> bool {
        let hold = Arc::new(HoldAt::new(place, None));
        self.life(hold.clone(), async |engine| {
            tokio::select! {
                biased;
                () = hold.held() => true,
                _ = perform_all(self, &engine) => false,
            }
        })
    }
}

/// Writes down every effect's place.
#[derive(Default)]
struct Places(Mutex<Vec<Place>>);

#[async_trait]
impl Checkpoint for Places {
    async fn before(&self, context: &EffectContext) {
        let mut places = self.0.lock().expect("the places");
        let effect = context.effect.name().to_string();
        let before = places.iter().filter(|place| place.release == context.release && place.effect == effect).count();
        let nth = u32::try_from(before + 1).expect("a count");
        places.push(Place { service: context.service.clone(), release: context.release, effect, nth, side: Side::Before });
    }

    async fn after(&self, _context: &EffectContext) {}

    async fn decide(&self, _service: &ServiceName) {}
}

#[test]
fn a_crash_before_or_after_any_effect_ends_in_the_same_world() {
    let scene = Scene::new(SimOptions::default());
    let places = Arc::new(Places::default());
    scene.life(places.clone(), async |engine| perform_all(&scene, &engine).await);
    let picture = scene.sim.picture(&web());
    let places = places.0.lock().expect("the places").clone();
    for kind in ["EnsureGroup", "Route", "Drain", "DestroyNodes"] {
        assert!(places.iter().any(|place| place.effect == kind), "the script has no {kind}");
    }
    let mut crashes = 0;
    for place in places.iter().flat_map(|place| [place.clone(), Place { side: Side::After, ..place.clone() }]) {
        let scene = Scene::new(SimOptions::default());
        if scene.life_that_holds_at(place.clone()) {
            crashes += 1;
            scene.assert_same_end(&format!("after a crash at {place}"), &picture);
        }
    }
    assert!(crashes >= places.len(), "only {crashes} crashes at {} effects", places.len());
}

#[test]
fn a_hold_after_an_effect_keeps_its_outcome_out_of_the_journal() {
    let marker = tempfile::NamedTempFile::new().expect("a file");
    let scene = Scene::new(SimOptions::default());
    let place: Place = "hello/web:r1:Route:2:after".parse().expect("a place");
    let hold = Arc::new(HoldAt::new(place, Some(marker.path().to_path_buf())));
    scene.life(hold.clone(), async |engine| {
        tokio::select! {
            () = hold.held() => {}
            _ = perform_all(&scene, &engine) => panic!("the hold was not reached"),
        }
        scene.sim.pass(Duration::from_secs(5)).await;
        let journal = engine.journal(&web()).await.expect("the journal");
        let ended = |event: &Event| matches!(event, Event::EffectEnded { .. });
        let routes =
            journal.iter().flat_map(|(_, record)| &record.effects).filter(|(_, effect)| matches!(effect, Effect::Route(_))).count();
        assert_eq!(routes, 2, "decided on after the hold");
        assert!(!ended(&journal.last().expect("a record").1.event), "the outcome is in the journal");
        let shifted = |notice: &Notice| matches!(notice, Notice::Shifted { .. });
        assert!(!story(&engine).await.iter().any(shifted), "the engine learnt of the effect from the world");
    });
    let members = &members(&scene.sim.picture(&web()))[0];
    assert!(members.values().all(|weight| *weight == Weight::EQUAL) && members.len() == 3, "the route was not applied: {members:?}");
    assert_eq!(std::fs::read_to_string(marker.path()).expect("the marker"), "hello/web:r1:Route:2:after\n");
}

#[test]
fn effects_that_are_delivered_twice_change_nothing() {
    let (_, picture) = undisturbed(SimOptions::default());
    let (_, twice) = undisturbed(SimOptions { twice: true, ..SimOptions::default() });
    assert_eq!(twice, picture);
}

/// Effects fail, and answers are lost, but never so often in a row that a rollout would be given up.
fn by_chance(per_mille: u32) -> Faults {
    Faults { refused: per_mille, answer_lost: per_mille, in_a_row: Some(2), ..Faults::default() }
}

#[test]
fn effects_that_fail_or_whose_answers_are_lost_are_got_over() {
    for seed in 1..=20 {
        let options = SimOptions { seed, proxies: 2, faults: by_chance(150), ..SimOptions::default() };
        let scene = Scene::new(options);
        scene.plain_life(async |engine| {
            for version in [1, 2, 4] {
                scene.perform(&engine, Act::Deploy(version)).await;
            }
            let ends: Vec<Outcome> = story(&engine).await.into_iter().filter_map(ended).collect();
            assert_eq!(ends, [Outcome::Live, Outcome::Live, Outcome::Live], "seed {seed}");
        });
        scene.assert_no_failure(&format!("seed {seed}"));
    }
}

#[test]
fn a_row_of_short_lives_among_faults_comes_to_the_same_end() {
    for seed in 1..=25_u64 {
        let options = SimOptions { seed, proxies: 2, faults: by_chance(100), twice: seed % 3 == 0, ..SimOptions::default() };
        let scene = Scene::new(options);
        let mut lives = 0;
        // Each life gets on by a few records; how many follows from the seed.
        while scene.life_that_dies_at(scene.store.length() + 1 + usize::try_from((seed * 7 + lives * 5) % 9).expect("small")) {
            lives += 1;
            if lives % 2 == 0 {
                scene.sim.replace_proxy("proxy-1");
            }
            assert!(lives < 500, "seed {seed}: it does not get on");
        }
        assert!(lives > 5, "seed {seed}: only {lives} lives");
        let state = scene.plain_life(async |engine| {
            // A proxy may just have been replaced: the engine has to find out first.
            scene.until("every proxy serves", |picture| members(picture).iter().all(|members| members.len() == 3)).await;
            scene.rest(&engine).await
        });
        assert_eq!((state.live_release(), state.pinned), (Some(ReleaseNumber(2)), true), "seed {seed}");
        assert_eq!(scene.sim.picture(&web()).nodes.len(), 3, "seed {seed}");
        scene.assert_no_failure(&format!("seed {seed}, {lives} lives"));
    }
}

async fn story(engine: &Engine) -> Vec<Notice> {
    engine.story(&web()).await.expect("the story").into_iter().map(|(_, _, notice)| notice).collect()
}

fn ended(notice: Notice) -> Option<Outcome> {
    match notice {
        Notice::RolloutEnded { outcome, .. } => Some(outcome),
        _ => None,
    }
}

#[test]
fn what_is_told_is_the_whole_story() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| {
        let mut watching = engine.watch();
        perform_all(&scene, &engine).await;
        let mut told = Vec::new();
        while let Ok(notice) = watching.try_recv() {
            assert_eq!(notice.service, web());
            told.push((notice.sequence, notice.at, notice.notice));
        }
        assert_eq!(told, engine.story(&web()).await.expect("the story"));
        assert!(told.is_sorted_by_key(|(sequence, at, _)| (*sequence, *at)));
        let started = told.iter().filter(|(_, _, notice)| matches!(notice, Notice::RolloutStarted { .. })).count();
        let ends: Vec<_> = told.into_iter().filter_map(|(_, _, notice)| ended(notice)).collect();
        assert_eq!(started, SCRIPT.len());
        let rejected = |end: &Outcome| matches!(end, Outcome::Rejected(Rejection::GateFailed { .. }));
        assert_eq!(ends.iter().map(rejected).collect::<Vec<_>>(), [false, false, true, false, false]);
    });
}

#[test]
fn a_full_journal_refuses_wishes_keeps_what_is_live_and_is_got_over() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| {
        scene.perform(&engine, Act::Deploy(1)).await;
        engine.declare(declaration(2)).await.expect("there is room");
        scene.store.fill(true);
        let (length, before) = (scene.store.length(), scene.sim.picture(&web()));
        scene.sim.pass(Duration::from_secs(60)).await;
        assert_eq!(scene.store.length(), length);
        assert_eq!(members(&scene.sim.picture(&web())), members(&before), "traffic was shifted on a decision that is not durable");
        let refused = engine.declare(declaration(4)).await.expect_err("there is no room");
        assert!(matches!(&refused, DeclareError::Refused { hint, .. } if hint.contains("room")), "{refused:?}");
        let refused = engine.rollback(&web(), None).await.expect_err("there is no room");
        assert!(matches!(refused, DeclareError::Refused { .. }), "{refused:?}");
        assert_eq!(engine.trouble(&web()).map(|error| error.error_kind()), Some(ErrorKind::NoRoom));
        scene.assert_no_failure("while there is no room");

        scene.store.fill(false);
        let state = settled(&scene, &engine).await;
        // The disk was full for longer than the progress deadline: the old release stays, untouched.
        assert_eq!(state.live_release(), Some(ReleaseNumber(1)));
        let state = scene.perform(&engine, Act::Deploy(4)).await;
        assert_eq!(state.live_release(), Some(ReleaseNumber(3)));
        assert!(engine.trouble(&web()).is_none());
    });
    scene.assert_no_failure("after there was room again");
}

/// The engine finds out by itself, in real time, that there is room again.
async fn settled(scene: &Scene, engine: &Engine) -> Arc<gapless_core::service::ServiceState> {
    for _ in 0..1_000 {
        if engine.trouble(&web()).is_none() {
            return scene.rest(engine).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine does not notice that there is room")
}

#[test]
fn a_record_of_which_nobody_knows_whether_it_was_written_is_found_again() {
    let length = undisturbed(SimOptions::default()).0;
    for lies_after in 0..length {
        let scene = Scene::new(SimOptions::default());
        scene.plain_life(async |engine| {
            let lie = async {
                while scene.store.length() < lies_after {
                    tokio::time::sleep(GLANCE).await;
                }
                scene.store.lie();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = lie => {}
                () = perform_in_spite_of_lies(&scene, &engine) => {}
            }
        });
        scene.assert_no_failure(&format!("a lie after {lies_after}"));
        scene.plain_life(async |engine| assert_eq!(scene.rest(&engine).await.live_release(), Some(ReleaseNumber(2))));
    }
}

async fn perform_in_spite_of_lies(scene: &Scene, engine: &Engine) {
    for version in [1, 2] {
        // Asked again, it is so already (I6).
        while engine.declare(declaration(version)).await.is_err() {}
        scene.rest(engine).await;
    }
}

#[test]
fn wishes_that_cannot_be_are_refused_with_a_hint() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| {
        let refused = |wish: Result<gapless_engine::Declared, DeclareError>| match wish {
            Err(DeclareError::Refused { reason, hint }) => assert!(!reason.is_empty() && !hint.is_empty()),
            other => panic!("not refused: {other:?}"),
        };
        refused(engine.rollback(&web(), None).await);
        refused(engine.declare(gapless_engine::declaration::ServiceDeclaration { nodes: 0, ..declaration(1) }).await);
        assert!(engine.state(&web()).is_none() && engine.services().is_empty(), "a refused declaration made a service");
        assert_eq!(scene.store.length(), 0);
        engine.declare(declaration(1)).await.expect("declared");
        refused(engine.operate(&web(), gapless_engine::operation::Operation::Promote).await);
        scene.rest(&engine).await;
        refused(engine.rollback(&web(), Some(ReleaseNumber(1))).await);
        refused(engine.rollback(&web(), Some(ReleaseNumber(9))).await);
    });
}

#[test]
fn declaring_again_what_is_so_writes_nothing() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| {
        let first = engine.declare(declaration(1)).await.expect("declared");
        let again = engine.declare(declaration(1)).await.expect("declared");
        assert_eq!((first.release, first.changed, again.changed), (ReleaseNumber(1), true, false));
        assert_eq!((again.release, again.rollout), (first.release, first.rollout), "the rollout in progress is not found");
        scene.rest(&engine).await;
        let length = scene.store.length();
        let again = engine.declare(declaration(1)).await.expect("declared");
        assert_eq!((again.release, again.rollout, again.changed), (ReleaseNumber(1), None, false));
        scene.sim.pass(Duration::from_secs(60)).await;
        assert_eq!(scene.store.length(), length, "something was written while nothing happened");
    });
}

#[test]
fn doctor_says_what_a_restart_would_do_and_does_nothing() {
    let scene = Scene::new(SimOptions::default());
    let place: Place = "hello/web:r1:EnsureGroup:1:before".parse().expect("a place");
    assert!(scene.life_that_holds_at(place));
    let before = (scene.store.length(), scene.sim.picture(&web()));
    let runtime = runtime();
    let found = runtime.block_on(diagnose(&scene.parts(Arc::new(NoCheckpoint)))).expect("a diagnosis");
    let [found] = &found[..] else { panic!("not one service: {found:?}") };
    assert_eq!(found.records, before.0 as u64);
    assert!(matches!(&found.pending[..], [(_, Effect::EnsureGroup { .. })]), "{:?}", found.pending);
    assert!(found.would_do.iter().any(|(_, effect)| matches!(effect, Effect::EnsureGroup { .. })), "{:?}", found.would_do);
    assert_eq!((scene.store.length(), scene.sim.picture(&web())), before, "the doctor did something");
}

#[test]
fn a_journal_that_another_version_wrote_is_refused_by_its_place_and_holds_no_other_service_up() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| scene.perform(&engine, Act::Deploy(1)).await);
    let place = |records: &[gapless_engine::store::JournalRecord]| records.iter().position(|record| !record.effects.is_empty());
    let mut changed = 0;
    scene.store.change(|records| {
        changed = place(records).expect("a record with effects");
        records[changed].effects.pop();
    });
    let runtime = runtime();
    let text = runtime.block_on(refused_wishes(&scene));
    assert!(text.contains(&format!("record {} of the journal of hello/web", changed + 1)) && text.contains("version changed"), "{text}");
    let found = runtime.block_on(diagnose(&scene.parts(Arc::new(NoCheckpoint)))).expect("a diagnosis");
    assert!(found.iter().all(|found| found.state.is_err() == (found.service == web())), "the doctor does not see it");
}

/// What the engine says of the service that it cannot keep.
async fn refused_wishes(scene: &Scene) -> String {
    let engine = Engine::start(scene.parts(Arc::new(NoCheckpoint))).await.expect("the engine starts all the same");
    let before = scene.sim.picture(&web());
    let text = engine.trouble(&web()).expect("it is in trouble").to_string();
    for refused in [engine.declare(declaration(2)).await, engine.rollback(&web(), None).await] {
        assert!(matches!(&refused, Err(DeclareError::Refused { reason, .. }) if reason.contains(&text)), "{refused:?}");
    }
    assert_eq!(engine.lost_services().len(), 1);
    assert!(matches!(&engine.plan(&declaration(2), false, None)[..], [gapless_core::plan::Planned::Refused(_)]));
    let mut other = declaration(1);
    other.service = ServiceName::new("hello", "other").expect("a name");
    other.host = "other".to_string();
    engine.declare(other.clone()).await.expect("another service is declared");
    while engine.state(&other.service).is_none_or(|state| state.live.is_none()) {
        tokio::time::sleep(GLANCE).await;
    }
    assert_eq!(scene.sim.picture(&web()), before, "the service that cannot be kept was touched");
    engine.stop().await;
    text
}

/// Waits until a service's state is so.
async fn until_so(scene: &Scene, engine: &Engine, service: &ServiceName, what: &str, so: impl Fn(&ServiceState) -> bool) {
    let give_up = scene.sim.now().after(Duration::from_secs(60));
    while !engine.state(service).is_some_and(|state| so(&state)) {
        assert!(scene.sim.now() < give_up, "{service} never {what}: {:#?}", gapless_engine::store::Journal::read(&*scene.store, service));
        tokio::time::sleep(GLANCE).await;
    }
}

#[test]
fn a_drain_that_takes_its_time_holds_no_other_service_up() {
    let scene = Scene::new(SimOptions::default());
    let api = ServiceName::new("hello", "api").expect("a name");
    let of_api = |version| ServiceDeclaration {
        service: api.clone(),
        artifact_name: "hello/api".to_string(),
        host: "api.test".to_string(),
        ..declaration(version)
    };
    let is_over =
        |version: u32| move |state: &ServiceState| state.rollout.is_none() && state.live_release() == Some(ReleaseNumber(version));
    scene.plain_life(async |engine| {
        scene.perform(&engine, Act::Deploy(1)).await;
        engine.declare(of_api(1)).await.expect("the first release of the other service");
        until_so(&scene, &engine, &api, "comes to live", is_over(1)).await;
        scene.sim.send_long_requests(true);
        engine.declare(declaration(2)).await.expect("the next release");
        until_so(&scene, &engine, &web(), "drains", |state| !state.draining.is_empty()).await;
        engine.declare(of_api(2)).await.expect("the next release of the other service");
        until_so(&scene, &engine, &api, "ends its rollout", is_over(2)).await;
        assert!(!engine.state(&web()).expect("a state").draining.is_empty(), "it was over before the other one's rollout");
        until_so(&scene, &engine, &web(), "ends its rollout", is_over(2)).await;
    });
    scene.assert_no_failure("one drains, another one rolls");
}

#[test]
fn stopping_in_order_loses_nothing() {
    let scene = Scene::new(SimOptions::default());
    scene.plain_life(async |engine| {
        scene.perform(&engine, Act::Deploy(1)).await;
        engine.declare(declaration(2)).await.expect("declared");
        scene.sim.pass(Duration::from_millis(100)).await;
        engine.stop().await;
        let refused = engine.declare(declaration(4)).await.expect_err("it was stopped");
        assert!(matches!(refused, DeclareError::Failed(_)), "{refused:?}");
    });
    let state = scene.plain_life(async |engine| scene.rest(&engine).await);
    assert_eq!(state.live_release(), Some(ReleaseNumber(2)));
    scene.assert_no_failure("over a stop");
}

#[test]
fn a_node_that_dies_is_replaced_and_a_lost_route_is_sent_again() {
    let scene = Scene::new(SimOptions { proxies: 2, ..SimOptions::default() });
    scene.plain_life(async |engine| {
        let state = scene.perform(&engine, Act::Deploy(1)).await;
        let group = state.live.expect("a live group");
        scene.sim.replace_proxy("proxy-1");
        scene.sim.kill_node(&web(), group.node(1), 137);
        let replaced = async {
            loop {
                scene.sim.pass(Duration::from_millis(50)).await;
                let picture = scene.sim.picture(&web());
                let wanted = BTreeMap::from([0, 2, 3].map(|ordinal| (group.node(ordinal), Weight::EQUAL)));
                if members(&picture) == [wanted.clone(), wanted] && picture.nodes.len() == 3 {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), replaced).await.expect("the world is healed");
    });
    assert_eq!(
        scene.sim.tally().failures(),
        scene.sim.tally().failed.get("connect").copied().unwrap_or_default(),
        "{:?}",
        scene.sim.tally()
    );
}

/// Declares a version that is kept warm for a minute.
async fn deploy_and_bake(scene: &Scene, engine: &Engine) {
    if engine.state(&web()).is_none() {
        engine.declare(declaration(1)).await.expect("declared");
    }
    scene.rest_or_bake(engine).await;
    if engine.state(&web()).is_some_and(|state| state.releases.len() == 1) {
        let mut warm = declaration(2);
        warm.policy.bake = Duration::from_secs(60);
        engine.declare(warm).await.expect("declared");
    }
    scene.rest_or_bake(engine).await;
}

impl Scene {
    async fn rest_or_bake(&self, engine: &Engine) {
        while engine.state(&web()).is_some_and(|state| state.rollout.is_some() && !bakes(&state)) {
            tokio::time::sleep(GLANCE).await;
        }
    }
}

fn bakes(state: &gapless_core::service::ServiceState) -> bool {
    matches!(&state.rollout, Some(rollout) if matches!(rollout.stage, Stage::Bake { .. }))
}

async fn go_back(scene: &Scene, engine: &Engine) -> Arc<gapless_core::service::ServiceState> {
    deploy_and_bake(scene, engine).await;
    if engine.state(&web()).is_some_and(|state| !state.pinned) {
        engine.rollback(&web(), None).await.expect("rolled back");
    }
    scene.rest(engine).await
}

#[test]
fn going_back_inside_the_bake_window_needs_no_new_node_and_survives_any_crash() {
    let scene = Scene::new(SimOptions { proxies: 2, ..SimOptions::default() });
    scene.plain_life(async |engine| {
        deploy_and_bake(&scene, &engine).await;
        let made = scene.sim.carried_out("EnsureGroup");
        go_back(&scene, &engine).await;
        assert_eq!(scene.sim.carried_out("EnsureGroup"), made, "nodes were made for the way back");
    });
    scene.assert_no_failure("undisturbed");
    let (length, picture) = (scene.store.length(), scene.sim.picture(&web()));
    let mut crashes = 0;
    for dies_at in 1..2 * length {
        let scene = Scene::new(SimOptions { proxies: 2, ..SimOptions::default() });
        let died = scene.plain_life(async |engine| {
            scene.store.die_at(dies_at);
            tokio::select! {
                biased;
                () = scene.store.died() => true,
                _ = go_back(&scene, &engine) => false,
            }
        });
        if !died {
            break;
        }
        crashes = dies_at;
        let state = scene.plain_life(async |engine| go_back(&scene, &engine).await);
        let when = format!("after a crash at record {dies_at}");
        assert_eq!((state.live_release(), state.pinned), (Some(ReleaseNumber(1)), true), "{when}");
        assert_eq!(scene.sim.picture(&web()), picture, "{when}");
        scene.assert_no_failure(&when);
    }
    assert!(crashes > length / 2, "only {crashes} crashes in a journal of {length} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_world_runs_in_real_time() {
    let scene = Scene::new(SimOptions { time: SimTime::Real, ..SimOptions::default() });
    let engine = Engine::start(scene.parts(Arc::new(NoCheckpoint))).await.expect("the engine starts");
    let mut watching = engine.watch();
    for version in [1, 2] {
        engine.declare(declaration(version)).await.expect("declared");
        let outcome = loop {
            let told = tokio::time::timeout(Duration::from_secs(20), watching.recv()).await.expect("in time").expect("told");
            if let Some(outcome) = ended(told.notice) {
                break outcome;
            }
        };
        assert_eq!(outcome, Outcome::Live);
    }
    engine.stop().await;
    scene.assert_no_failure("in real time");
}
