//! What the doctor looks at: the machine, leftovers, images, proxies.

use super::installation;
use gapless_core::name::ServiceName;
use gapless_core::service::ServiceState;
use gapless_engine::error::Error;
use gapless_engine::recovery::recover;
use gapless_engine::store::Journal;
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::leftovers::{Leftover, Leftovers};
use gapless_platforms::local::requirements;
use gapless_server::journal::damage;
use gapless_server::story;
use gapless_store::archive::assert_whole;
use gapless_store::{DATABASE_FILE, SqliteStore, StateLock};
use gapless_wire::client::UnixClient;
use gapless_wire::doctor::{Examination, Finding, RestartPlan};
use gapless_wire::route::{ProxyStatus, WorkerStatus};
use std::path::Path;
use std::time::Duration;

/// How long a proxy may take to answer the doctor.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The runtime that is looked for when no server says which one it uses.
const USUAL_RUNTIME: &str = "runc";

/// What a start would do after its look at the world, as far as that is known without one.
const NEXT: &str = "go on with that; what it takes follows from the look, which only a server has";

/// Looks without a server: at the machine, at what installations left on it, and into the journal.
pub fn examine(state: &Path, fix: bool) -> Result<Examination, Error> {
    let mut found = Examination { findings: machine(USUAL_RUNTIME), ..Examination::default() };
    found.findings.push(Finding {
        kind: "server".into(),
        what: format!("no server runs on {}", state.display()),
        why: "traffic goes on, but nothing is built, moved or replaced".into(),
        hint: Some("start it: `systemctl start gapless-server`, or `gapless server`".into()),
        removable: false,
    });
    // A journal that cannot be read is one thing more to tell, and no reason to leave the rest as it is.
    if let Err(error) = read_journal(state, &mut found) {
        found.findings.push(unreadable(state.display().to_string(), &error));
    }
    let own = installation::existing_id(state);
    if let Err(error) = assert_whole(state) {
        // Nothing in it says what is alive: all that runs would be taken for a leftover.
        found.findings.push(Finding { kind: "restore".into(), ..unreadable(state.display().to_string(), &error) });
    } else if let Ok(Some(id)) = &own {
        if fix {
            found.removed.extend(remove_leftovers(id, state)?);
        }
        found.findings.extend(leftovers(id, state)?);
    }
    let own = match own {
        Ok(own) => own,
        Err(error) => {
            // Which of what runs is this installation's, nobody knows: nothing is taken for somebody else's.
            found.findings.push(unreadable(state.display().to_string(), &error));
            return Ok(found);
        }
    };
    // Its folder may have been moved here: then the host still knows the former place.
    for foreign in Leftovers::foreign()?.into_iter().filter(|foreign| own.as_deref() != Some(foreign.installation())) {
        let left = foreign.find()?;
        if fix {
            // Nothing of it can be alive for anybody: with its state folder its last owner is gone.
            foreign.remove_everything()?;
            found.removed.extend(left.iter().map(name));
        } else {
            found.findings.extend(left.iter().map(finding));
        }
    }
    Ok(found)
}

/// What the server decided last, as its journal has it.
fn read_journal(state: &Path, found: &mut Examination) -> Result<(), Error> {
    if !state.join(DATABASE_FILE).exists() {
        return Ok(());
    }
    let store = SqliteStore::open(StateLock::acquire(state)?)?;
    for service in store.services()? {
        match recover(&store, &service) {
            Ok(replayed) => {
                found.restart.push(restart(&service, &replayed.state));
                found.findings.extend(damage(&store, &service).map(|error| unreadable(service.to_string(), &error)));
            }
            Err(error) => found.findings.push(unreadable(service.to_string(), &error)),
        }
    }
    Ok(())
}

fn unreadable(what: String, error: &Error) -> Finding {
    Finding { kind: "journal".into(), what, why: error.to_string(), hint: error.hint_text().map(str::to_string), removable: false }
}

/// What a start would go on with. Which effects that takes follows from a look at the world, which only a server has.
fn restart(service: &ServiceName, state: &ServiceState) -> RestartPlan {
    let pending = state.pending.iter().map(|(id, effect)| format!("{id} {}", story::effect(service, effect))).collect();
    RestartPlan { service: service.to_string(), state: story::going_on(service, state), pending, next: vec![NEXT.to_string()] }
}

/// What this machine lacks.
pub fn machine(runtime: &str) -> Vec<Finding> {
    let missing = requirements::check(runtime).into_iter();
    let finding = |missing: requirements::Missing| Finding {
        kind: if missing.essential { "missing" } else { "done less well" }.into(),
        what: missing.what,
        why: format!("needed for {}", missing.needed_for),
        hint: Some(missing.hint),
        removable: false,
    };
    missing.map(finding).collect()
}

/// Unpacked trees that are not what their manifests say.
pub fn tampered(images: &ImageStore) -> Result<Vec<Finding>, Error> {
    let finding = |error: Error| Finding {
        kind: "image".into(),
        what: error.to_string(),
        why: "a node is never started from it".into(),
        hint: error.hint_text().map(str::to_string),
        removable: false,
    };
    Ok(images.examine()?.into_iter().map(finding).collect())
}

/// What carries the installation's marks and nothing alive explains.
pub fn leftovers(installation: &str, state: &Path) -> Result<Vec<Finding>, Error> {
    Ok(Leftovers::of(installation, state)?.find()?.iter().map(finding).collect())
}

/// Removes that, and says what it was.
pub fn remove_leftovers(installation: &str, state: &Path) -> Result<Vec<String>, Error> {
    let leftovers = Leftovers::of(installation, state)?;
    let found = leftovers.find()?;
    leftovers.remove(&found)?;
    Ok(found.iter().map(name).collect())
}

fn name(leftover: &Leftover) -> String {
    format!("{} {}", leftover.kind, leftover.name)
}

fn finding(leftover: &Leftover) -> Finding {
    Finding { kind: "leftover".into(), what: name(leftover), why: leftover.why.clone(), hint: None, removable: true }
}

/// What is wrong with a proxy.
pub async fn proxy(socket: &Path) -> Vec<Finding> {
    let finding = |why: String| Finding {
        kind: "proxy".into(),
        what: socket.display().to_string(),
        why,
        hint: Some("start it: `systemctl start gapless-proxy`, or `gapless proxy`".into()),
        removable: false,
    };
    let status: ProxyStatus = match UnixClient::new(socket).timeout(ANSWER_TIME).get("/v1/proxy").await {
        Ok(status) => status,
        Err(error) => return vec![finding(error.to_string())],
    };
    let mut findings = Vec::new();
    for worker in status.workers {
        let answer = UnixClient::new(&worker.socket).timeout(ANSWER_TIME).get::<WorkerStatus>("/v1/status").await;
        match answer {
            Ok(WorkerStatus { problem: None, .. }) => {}
            Ok(WorkerStatus { problem: Some(problem), .. }) => findings.push(finding(format!("worker {}: {problem}", worker.pid))),
            Err(error) => findings.push(finding(format!("worker {}: {error}", worker.pid))),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_journal_is_told_and_stops_nothing() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(DATABASE_FILE), "no database").unwrap();
        let found = examine(state.path(), false).unwrap();
        assert!(found.findings.iter().any(|finding| finding.kind == "journal"), "{found:?}");
        assert!(found.findings.iter().any(|finding| finding.kind == "server"), "{found:?}");
    }

    #[test]
    fn where_a_restore_was_broken_off_nothing_is_taken_for_a_leftover() {
        let state = tempfile::tempdir().unwrap();
        for (name, text) in [("gapless.db.unfinished", ""), (installation::ID, "0a1b2c\n")] {
            std::fs::write(state.path().join(name), text).unwrap();
        }
        let found = examine(state.path(), true).unwrap();
        let told = found.findings.iter().find(|finding| finding.kind == "restore");
        assert!(
            told.is_some_and(|finding| finding.hint.as_ref().is_some_and(|hint| hint.contains("restore the backup again"))),
            "{found:?}"
        );
        assert_eq!(found.removed, Vec::<String>::new());
    }
}
