//! Orders against an authority in this process: `authority` says what it verifies.

mod authority;

use super::*;
use crate::certificate::{Certificates, Look, Pair, Sources, Watch};
use authority::Authority;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What a test waits for takes milliseconds; this ends a test that waits for what never comes.
const TEST_LIMIT: Duration = Duration::from_secs(30);
const HURRY: Pace = Pace {
    backoff_first: Duration::from_millis(50),
    backoff_limit: Duration::from_millis(200),
    poll_first: Duration::from_millis(5),
    poll_limit: Duration::from_secs(10),
};

/// A state folder, an authority, and a server of plain HTTP that stands for port 80.
struct World {
    state: TempDir,
    authority: Authority,
    proofs: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.proofs.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl World {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = Authority::start(&state.path().join("root.pem"), listener.local_addr().unwrap().port()).await;
        let proofs = Some(tokio::spawn(serve_proofs(listener, Challenges::new(state.path()))));
        Self { state, authority, proofs }
    }

    fn settings(&self, groups: &[&[&str]]) -> AcmeSettings {
        AcmeSettings {
            directory: self.authority.directory.clone(),
            contacts: vec!["admin@example.test".to_owned()],
            terms_agreed: true,
            authorities: Some(self.state.path().join("root.pem")),
            groups: groups.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect(),
        }
    }

    fn acme(&self, groups: &[&[&str]]) -> Acme {
        self.acme_with(self.settings(groups))
    }

    fn acme_with(&self, settings: AcmeSettings) -> Acme {
        let mut acme = Acme::new(self.state.path(), settings).unwrap();
        acme.pace = HURRY;
        acme
    }

    fn pair(&self, group: &[&str]) -> Pair {
        Pair::read(&files(self.state.path(), &self.settings(&[group])).unwrap()[0]).unwrap()
    }

    fn challenges(&self) -> usize {
        fs::read_dir(self.state.path().join("acme/challenges")).unwrap().count()
    }

    /// Puts a certificate where one that was issued by this authority would stand.
    fn put(&self, name: &str, directory: &str, not_before: SystemTime, not_after: SystemTime) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (not_before.into(), not_after.into());
        let key = KeyPair::generate().unwrap();
        let text = format!("Issued by {directory}\n{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem());
        fs::create_dir_all(self.state.path().join("acme/certificates")).unwrap();
        fs::write(self.file(name), &text).unwrap();
        text
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(format!("acme/certificates/{name}.pem"))
    }
}

async fn serve_proofs(listener: TcpListener, challenges: Challenges) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let challenges = challenges.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (status, text) = match challenges.answer(request.uri().path()) {
                Some(proof) => (StatusCode::OK, proof),
                None => (StatusCode::NOT_FOUND, String::new()),
            };
            let response = Response::builder().status(status).body(Full::<Bytes>::from(text)).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Runs until the status is so.
async fn run_until(acme: Acme, mut done: impl FnMut(&[GroupStatus]) -> bool) -> Vec<GroupStatus> {
    let mut status = acme.status();
    let reached = async { status.wait_for(|status| done(status)).await.unwrap().clone() };
    tokio::select! {
        reached = tokio::time::timeout(TEST_LIMIT, reached) => reached.expect("the status is never so"),
        () = acme.run() => panic!("it ended"),
    }
}

fn all_issued(status: &[GroupStatus]) -> bool {
    status.iter().all(|group| group.not_after.is_some() && group.error.is_none())
}

fn failed(status: &[GroupStatus]) -> bool {
    status[0].failures > 0
}

#[tokio::test]
async fn certificates_are_ordered_proved_and_kept_so_that_the_listeners_take_them_up() {
    let world = World::new().await;
    world.authority.book().refuse_nonces = 1;
    let groups: [&[&str]; 2] = [&["one.test", "WWW.one.test"], &["two.test"]];
    let ordered = files(world.state.path(), &world.settings(&groups)).unwrap();
    let certificates = Arc::new(Certificates::load(Sources { given: Vec::new(), ordered }).unwrap());
    let mut watch = Watch::new(certificates.clone());
    assert!(certificates.choose(Some("one.test")).is_none());
    let status = run_until(world.acme(&groups), all_issued).await;
    assert_eq!(status[0].names, ["one.test", "www.one.test"]);
    let renewed_in = status[0].next_order.duration_since(SystemTime::now()).unwrap();
    assert!(renewed_in > 58 * DAY && renewed_in < 63 * DAY, "{renewed_in:?}");
    assert_eq!(world.authority.book().nonces_refused, 1);
    assert_eq!(world.authority.book().accounts.len(), 1);
    assert_eq!(world.authority.book().accounts[0].contacts, serde_json::json!(["mailto:admin@example.test"]));
    assert_eq!(world.challenges(), 0);
    assert_eq!(watch.look(), Look::Reloaded(2));
    let shown = certificates.choose(Some("www.one.test")).unwrap();
    assert_eq!((&shown.cert, shown.cert.len()), (&world.pair(groups[0]).certified().cert, 2));
    for file in [world.file("one.test"), world.file("two.test"), world.state.path().join(account_file(&world))] {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

fn account_file(world: &World) -> PathBuf {
    let folder = world.state.path().join("acme");
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut accounts = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("account-"));
    let account = accounts.next().unwrap();
    assert_eq!(accounts.next(), None);
    account
}

#[tokio::test]
async fn a_name_that_cannot_be_reached_is_told_and_the_old_certificate_stays() {
    let world = World::new().await;
    let now = SystemTime::now();
    let old = world.put("one.test", &world.authority.directory, now - 80 * DAY, now + 10 * DAY);
    // Nobody listens on the port of a listener that is gone.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    world.authority.book().proof_port = nobody;
    let status = run_until(world.acme(&[&["one.test"]]), failed).await;
    let error = status[0].error.as_ref().unwrap();
    assert!(error.contains("could not verify one.test") && error.contains("refused") && error.contains("port 80"), "{error}");
    assert!(status[0].not_after.is_some());
    assert_eq!(fs::read_to_string(world.file("one.test")).unwrap(), old);
    assert_eq!(world.challenges(), 0);
}

#[tokio::test]
async fn what_is_dropped_in_the_middle_goes_on_with_the_same_account() {
    let world = World::new().await;
    world.authority.book().dawdle = true;
    let acme = world.acme(&[&["one.test"]]);
    let asked = async {
        while world.authority.book().count("POST /order/0") < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        asked = tokio::time::timeout(TEST_LIMIT, asked) => asked.expect("the order comes to its proof"),
        () = acme.run() => panic!("it ended"),
    }
    assert_eq!(world.challenges(), 0, "a proof goes with the order");
    fs::write(world.state.path().join("acme/challenges/left-behind"), "by a kill").unwrap();
    world.authority.book().dawdle = false;
    let acme = world.acme(&[&["one.test"]]);
    assert_eq!(world.challenges(), 0);
    run_until(acme, all_issued).await;
    let book = world.authority.book();
    assert_eq!((book.accounts.len(), book.count("POST /new-account")), (1, 1));
}

#[tokio::test]
async fn renewal_is_when_it_is_due_and_not_before() {
    let world = World::new().await;
    let (now, directory) = (SystemTime::now(), world.authority.directory.clone());
    let fresh = world.put("fresh.test", &directory, now - 10 * DAY, now + 80 * DAY);
    world.put("due.test", &directory, now - 70 * DAY, now + 20 * DAY);
    world.put("other.test", "https://staging.test/directory", now - 10 * DAY, now + 80 * DAY);
    world.put("more.test", &directory, now - 10 * DAY, now + 80 * DAY);
    fs::write(world.file("broken.test"), "-----BEGIN").unwrap();
    let groups: [&[&str]; 5] = [&["fresh.test"], &["due.test"], &["other.test"], &["more.test", "one-more.test"], &["broken.test"]];
    let fresh_enough = |status: &[GroupStatus]| status.iter().all(|group| group.next_order > now + DAY);
    let status = run_until(world.acme(&groups), fresh_enough).await;
    assert!(all_issued(&status));
    assert_eq!(fs::read_to_string(world.file("fresh.test")).unwrap(), fresh);
    let ordered: Vec<_> = world.authority.book().orders.iter().map(|order| order.proofs.len()).collect();
    assert_eq!(ordered, [1, 1, 2, 1]);
    let seen = world.authority.book().requests.len();
    run_until(world.acme(&groups), fresh_enough).await;
    assert_eq!(world.authority.book().requests.len(), seen, "nothing is due any more");
}

#[tokio::test]
async fn an_authority_in_trouble_is_asked_less_and_less_often() {
    let world = World::new().await;
    world.authority.book().trouble = Some((StatusCode::INTERNAL_SERVER_ERROR, None));
    let status = run_until(world.acme(&[&["one.test"]]), |status| status[0].failures == 4).await;
    let error = status[0].error.clone().unwrap();
    assert!(error.contains("500") && error.contains("the directory's address is wrong"), "{error}");
    let times: Vec<_> = world.authority.book().requests.iter().map(|(time, _)| *time).collect();
    let pauses: Vec<_> = times.windows(2).map(|times| times[1] - times[0]).collect();
    for (pause, expected) in pauses.iter().zip([50, 100, 200]) {
        assert!(*pause >= Duration::from_millis(expected), "{pauses:?}");
    }
    assert_eq!(pauses.len(), 3);
    let acme = world.acme(&[&["one.test"]]);
    world.authority.book().trouble = None;
    run_until(acme, all_issued).await;
}

#[tokio::test]
async fn an_authority_that_asks_for_patience_gets_it() {
    let world = World::new().await;
    world.authority.book().trouble = Some((StatusCode::SERVICE_UNAVAILABLE, Some(7200)));
    let status = run_until(world.acme(&[&["one.test"]]), failed).await;
    let pause = status[0].next_order.duration_since(SystemTime::now()).unwrap();
    assert!(pause > Duration::from_secs(7000) && pause <= Duration::from_secs(7200), "{pause:?}");
}

#[tokio::test]
async fn what_cannot_be_used_does_not_take_the_old_ones_place() {
    let world = World::new().await;
    let now = SystemTime::now();
    let old = world.put("one.test", &world.authority.directory, now - 80 * DAY, now + 10 * DAY);
    world.authority.book().mistake = true;
    let status = run_until(world.acme(&[&["one.test"]]), failed).await;
    let error = status[0].error.as_ref().unwrap();
    assert!(error.contains("is not the key of"), "{error}");
    assert_eq!(fs::read_to_string(world.file("one.test")).unwrap(), old);
}

#[tokio::test]
async fn nothing_is_ordered_that_could_not_be_kept() {
    let world = World::new().await;
    let acme = world.acme(&[&["one.test"]]);
    let folder = world.state.path().join("acme/certificates");
    fs::remove_dir(&folder).unwrap();
    let status = run_until(acme, failed).await;
    let error = status[0].error.as_ref().unwrap();
    assert!(error.contains(folder.to_str().unwrap()) && error.contains("make room"), "{error}");
    assert_eq!(world.authority.book().requests.len(), 0);
}

#[tokio::test]
async fn an_account_that_is_gone_is_made_again() {
    let world = World::new().await;
    run_until(world.acme(&[&["one.test"]]), all_issued).await;
    world.authority.book().accounts[0].closed = true;
    let status = run_until(world.acme(&[&["two.test"]]), |status| failed(status) || all_issued(status)).await;
    assert!(status[0].error.as_ref().unwrap().contains("the next try makes a new account"), "{status:?}");
    run_until(world.acme(&[&["two.test"]]), all_issued).await;
    assert_eq!(world.authority.book().accounts.len(), 2);
}

#[tokio::test]
async fn the_account_follows_its_contacts_and_a_broken_one_is_not_replaced() {
    let world = World::new().await;
    run_until(world.acme(&[&["one.test"]]), all_issued).await;
    let mut settings = world.settings(&[&["two.test"]]);
    settings.contacts = vec!["other@example.test".to_owned()];
    run_until(world.acme_with(settings), all_issued).await;
    assert_eq!(world.authority.book().accounts[0].contacts, serde_json::json!(["mailto:other@example.test"]));
    let path = account_file(&world);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let status = run_until(world.acme(&[&["three.test"]]), failed).await;
    let error = status[0].error.as_ref().unwrap();
    assert!(error.contains("cannot be used") && error.contains("remove it"), "{error}");
    assert_eq!(world.authority.book().accounts.len(), 1);
}

#[tokio::test]
async fn an_authority_that_cannot_be_trusted_or_issues_what_is_due_already_is_told() {
    let world = World::new().await;
    let other = World::new().await;
    let mut settings = world.settings(&[&["one.test"]]);
    settings.authorities = Some(other.state.path().join("root.pem"));
    let status = run_until(world.acme_with(settings), failed).await;
    assert!(status[0].error.as_ref().unwrap().contains("setting `authorities`"), "{status:?}");
    world.authority.book().validity = (20 * DAY, DAY);
    let status = run_until(world.acme(&[&["one.test"]]), failed).await;
    assert!(status[0].error.as_ref().unwrap().contains("due for renewal already"), "{status:?}");
    assert!(status[0].not_after.is_some());
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_a_hint() {
    let world = World::new().await;
    let refused = |change: &dyn Fn(&mut AcmeSettings), said: &str| {
        let mut settings = world.settings(&[&["one.test"]]);
        change(&mut settings);
        let error = Acme::new(world.state.path(), settings).unwrap_err();
        assert!(error.to_string().contains(said) && error.hint_text().is_some(), "{error}");
    };
    let names = |names: &[&str]| vec![names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    refused(&|settings| settings.terms_agreed = false, "terms of service");
    refused(&|settings| settings.directory = "http://localhost/directory".to_owned(), "no directory");
    refused(&|settings| settings.contacts = vec!["mailto:a@b.test".to_owned()], "no contact");
    refused(&|settings| settings.contacts = vec!["nobody".to_owned()], "no contact");
    refused(&|settings| settings.authorities = Some("/nowhere/root.pem".into()), "/nowhere/root.pem");
    refused(&|settings| settings.groups = names(&[]), "0 names");
    refused(&|settings| settings.groups = names(&["*.one.test"]), "no wildcards");
    refused(&|settings| settings.groups = names(&["one.test", "127.0.0.1"]), "not a DNS name");
    refused(&|settings| settings.groups = names(&["../one"]), "not a DNS name");
    refused(&|settings| settings.groups = names(&["one.test", "ONE.test"]), "twice");
    refused(&|settings| settings.groups = vec![vec!["one.test".to_owned()]; 301], "301 certificates");
}

#[test]
fn only_tokens_are_answered() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("acme/challenges");
    fs::create_dir_all(&folder).unwrap();
    let challenges = Challenges::new(state.path());
    let (token, print) = ("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
    let (path, proof) = (format!("/.well-known/acme-challenge/{token}"), format!("{token}.{print}"));
    assert_eq!(challenges.answer(&path), None);
    let held = challenges.put(token, &proof).unwrap();
    assert_eq!(Challenges::new(state.path()).answer(&path), Some(proof.clone()), "another process answers too");
    for strange in
        ["", "short", "../../../../../../etc/passwd", "%2e%2e%2fevaGxfADs6pSRb2LAv9IZf17Dt3", &"a".repeat(129), &format!("{token}/")]
    {
        assert_eq!(challenges.answer(&format!("/.well-known/acme-challenge/{strange}")), None, "{strange}");
        assert!(challenges.put(strange, &format!("{strange}.{print}")).is_err(), "{strange}");
    }
    assert_eq!(challenges.answer(&format!("/{token}")), None);
    assert!(challenges.put(token, print).is_err(), "not a proof of this token");
    drop(held);
    assert_eq!(challenges.answer(&path), None);
    fs::write(folder.join(token), "something else").unwrap();
    assert_eq!(challenges.answer(&path), None);
}

#[test]
fn pauses_double_up_to_a_limit_and_renewal_is_spread_and_steady() {
    for (failures, least) in [(1, 300), (2, 600), (3, 1200), (7, 19200), (8, 21600), (u32::MAX, 21600)] {
        let pause = Pace::PRODUCTION.backoff(failures).as_secs();
        assert!((least..=least * 5 / 4).contains(&pause), "{failures}: {pause}");
    }
    let (from, to) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + 90 * DAY);
    let renewals: HashSet<SystemTime> = (0..100).map(|number| group::renewal(from, to, &[format!("{number}.test")]).unwrap()).collect();
    assert!(renewals.iter().all(|renewal| (from + 60 * DAY..=from + 63 * DAY).contains(renewal)), "{renewals:?}");
    assert_eq!(renewals.len(), 100);
    let again = group::renewal(from, to, &["0.test".to_owned()]);
    assert!(renewals.contains(&again.unwrap()));
    assert_eq!(group::renewal(to, from, &[]), None);
}
