//! The witness as the demo holds it: a process of its own whose progress is shown, and waited for.

use super::fault;
use super::screen::{Screen, Traffic};
use super::seen::Stretch;
use gapless_engine::error::Error;
use gapless_load::{Body, Plan, Progress, Recording, Target, UPLOAD_BYTES, Witness};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::sync::watch;

/// Milliseconds over which an upload is sent. Longer than the server needs to come back after it was killed, so that a drain that begins only then still finds uploads
/// on the old nodes.
const UPLOAD_SPREAD_MS: u64 = 2_000;

/// How long the witness may take for what it is waited for: many times what its rate promises.
const PATIENCE: Duration = Duration::from_secs(60);

/// A witness at work.
pub struct Observer {
    witness: Witness,
    progress: watch::Receiver<Progress>,
    rate: u32,
}

/// The demo's mix, asked as `host` at `address`.
pub fn plan(address: SocketAddr, host: &str, rate: u32) -> Plan {
    let mut plan = Plan::standard(Target::address(address, host));
    plan.rate_per_second = rate;
    for class in plan.classes.iter_mut().filter(|class| class.body != Body::None) {
        class.body = Body::Upload { bytes: UPLOAD_BYTES, spread_ms: UPLOAD_SPREAD_MS };
    }
    plan
}

impl Observer {
    /// Starts the witness and shows what it counts from now on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(program: Command, plan: &Plan, output: &Path, screen: &Screen) -> Result<Observer, Error> {
        let witness = Witness::spawn(program, plan, output).await.map_err(fault::of_load)?;
        let progress = witness.progress();
        tokio::spawn(show(progress.clone(), screen.clone()));
        Ok(Observer { witness, progress, rate: plan.rate_per_second })
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.witness.id()
    }

    /// Waits until a request of every class has succeeded and steady traffic has been seen.
    ///
    /// # Errors
    /// When that does not come, or a request has failed.
    pub async fn settle(&mut self, classes: usize) -> Result<Progress, Error> {
        let mut seen = BTreeSet::new();
        let wanted = u64::from(self.rate) * 2;
        self.until("every kind of request to succeed", |progress| {
            seen.extend(progress.interval.max_ms.keys().cloned());
            progress.failed > 0 || (seen.len() >= classes && progress.finished >= wanted)
        })
        .await
    }

    /// Lets two seconds' worth of requests end with nothing else going on: the stretch that a rollout is compared with.
    ///
    /// # Errors
    /// When they do not end.
    pub async fn quiet(&mut self) -> Result<Stretch, Error> {
        let now = self.until("a count", |_| true).await?;
        let goal = now.finished + u64::from(self.rate) * 2;
        let then = self.until("steady traffic", |progress| progress.finished >= goal).await?;
        Ok(Stretch { from_ms: now.at_unix_ms, until_ms: then.at_unix_ms })
    }

    /// Waits for a count of a stretch that began after this instant (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// When none comes.
    pub async fn after(&mut self, at_ms: u64) -> Result<Progress, Error> {
        self.until("a count", |progress| progress.at_unix_ms.saturating_sub(progress.interval.length_ms) >= at_ms).await
    }

    /// Lets it start no further request, waits for those in flight, and reads what it recorded.
    ///
    /// # Errors
    /// When it did not end in order.
    pub async fn stop(self) -> Result<Recording, Error> {
        self.witness.stop().await.map_err(fault::of_load)
    }

    async fn until(&mut self, what: &str, mut is: impl FnMut(&Progress) -> bool) -> Result<Progress, Error> {
        let found = tokio::time::timeout(PATIENCE, self.progress.wait_for(|progress| progress.requests > 0 && is(progress))).await;
        match found {
            Ok(Ok(progress)) => Ok(progress.clone()),
            Ok(Err(_)) => Err(Error::new(format!("the witness ended while the demo waited for {what}"))),
            Err(_) => Err(Error::new(format!("the witness saw nothing of {what} within {} s", PATIENCE.as_secs()))
                .hint("look at the proxy's log beside the receipt")),
        }
    }
}

async fn show(mut progress: watch::Receiver<Progress>, screen: Screen) {
    while progress.changed().await.is_ok() {
        let traffic = traffic(&progress.borrow_and_update());
        screen.traffic(traffic);
    }
    screen.no_traffic();
}

fn traffic(progress: &Progress) -> Traffic {
    let answered = |release: &&String| release.as_str() != "none";
    Traffic {
        split: progress
            .interval
            .by_release
            .iter()
            .filter(|(release, _)| answered(release))
            .map(|(name, count)| (name.clone(), *count))
            .collect(),
        per_second: progress.interval.finished * 1_000 / progress.interval.length_ms.max(1),
        requests: progress.requests,
        failed: progress.failed,
        in_flight: progress.in_flight.values().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_load::ConnectionUse;

    #[test]
    fn the_mix_is_what_was_promised() {
        let plan = plan("127.0.0.1:8080".parse().unwrap(), "localhost", 300);
        let share = |is: &dyn Fn(&gapless_load::ClassPlan) -> bool| -> u32 {
            plan.classes.iter().filter(|class| is(class)).map(|class| class.share).sum()
        };
        assert!(share(&|class| class.connection == ConnectionUse::OneShot) >= 300);
        assert_eq!(share(&|class| class.body == Body::Upload { bytes: 1_000_000, spread_ms: UPLOAD_SPREAD_MS }), 50);
        assert_eq!((share(&|class| class.name == "slow"), share(&|class| class.name == "large")), (20, 10));
        assert_eq!((plan.rate_per_second, plan.deadline_ms), (300, 10_000));
    }
}
