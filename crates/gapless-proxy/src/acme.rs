//! Certificates from an authority that speaks ACME (RFC 8555), proved by the challenge http-01.
//!
//! One task of the holder ([`Acme::run`]) orders and renews. What it gets stands in `<state>/acme/certificates/`, one file for each certificate with its
//! key and its chain, so that no moment exists in which the two do not fit; the watch of [`crate::certificate`] takes it up. The authority asks for proof
//! over plain HTTP, and any worker may be the one that is asked: [`Challenges`] are files in `<state>/acme/challenges/`.
//!
//! A failure never takes a certificate away: what was issued stays until something newer was.

mod challenges;
mod failure;
mod folder;
mod group;
mod order;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use challenges::Challenges;

use crate::certificate::{CertificateFiles, trusted_roots};
use crate::error::ProxyError;
use failure::Failure;
use folder::{AccountRecord, Folder, RECORD_VERSION};
use group::{Group, Seen};
use instant_acme::{Account, AccountBuilder, NewAccount, RetryPolicy};
use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;
use transport::Transport;

/// The pause after the first failure; each further one doubles it. Let's Encrypt refuses a name for an hour after 5 failures in it: with this pause there
/// are 4.
const BACKOFF_FIRST: Duration = Duration::from_secs(5 * 60);
/// The longest pause: what was repaired is used on the same day, also when nobody restarts anything.
const BACKOFF_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// What an authority may ask for in `Retry-After` (RFC 8555, section 6.6). It is believed up to this, so that no answer can end renewal for good.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// The clock is looked at no later than after this: it may have been set, or the machine may have slept.
const SLEEP_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How long an authority may take to check a challenge, or to issue. Let's Encrypt takes some seconds, from several places of the world.
const POLL_LIMIT: Duration = Duration::from_secs(2 * 60);
/// The first pause between two questions whether it is done; each further one is half as long again.
const POLL_FIRST: Duration = Duration::from_millis(500);
const POLL_GROWTH: f32 = 1.5;
/// How long one order may take in all, so that one certificate cannot keep the others waiting for ever.
const ORDER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// So many certificates are ordered at most: Let's Encrypt allows an account 300 orders in 3 hours.
const GROUP_LIMIT: usize = 300;

/// What certificates are ordered, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeSettings {
    /// The URL of the authority's directory (RFC 8555, section 7.1.1); `https` only (section 6.1).
    pub(crate) directory: String,
    /// E-mail addresses that the authority may write to; may be empty.
    pub(crate) contacts: Vec<String>,
    /// The operator has read the authority's terms of service and agrees to them (RFC 8555, section 7.3). Without this there is no account.
    pub(crate) terms_agreed: bool,
    /// A PEM file with authorities that are trusted for the directory's own TLS, besides those of the machine.
    pub(crate) authorities: Option<PathBuf>,
    /// For each certificate its DNS names, without wildcards, 1 to 100; each name in one certificate only. The first one names the file.
    pub(crate) groups: Vec<Vec<String>>,
}

/// How one certificate fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupStatus {
    /// Its names, in small letters.
    pub(crate) names: Vec<String>,
    /// The last moment at which the certificate that is there is valid; `None` while there is none.
    pub(crate) not_after: Option<SystemTime>,
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// The last failure and its hint, when there was no success since.
    pub(crate) error: Option<String>,
    /// When the next order is due.
    pub(crate) next_order: SystemTime,
}

/// Where the certificates of these settings stand, or will stand: what [`crate::certificate::Sources::ordered`] takes. Touches no file.
///
/// # Errors
/// When the names are not what [`AcmeSettings::groups`] asks for.
pub(crate) fn files(state: &Path, settings: &AcmeSettings) -> Result<Vec<CertificateFiles>, ProxyError> {
    Ok(groups(&Folder::new(state), settings)?.into_iter().map(|group| group.files).collect())
}

/// How long is waited for what. The tests are in more of a hurry.
#[derive(Clone, Copy, Debug)]
struct Pace {
    backoff_first: Duration,
    backoff_limit: Duration,
    poll_first: Duration,
    poll_limit: Duration,
}

impl Pace {
    const PRODUCTION: Self =
        Self { backoff_first: BACKOFF_FIRST, backoff_limit: BACKOFF_LIMIT, poll_first: POLL_FIRST, poll_limit: POLL_LIMIT };

    fn policy(&self) -> RetryPolicy {
        RetryPolicy::new().initial_delay(self.poll_first).backoff(POLL_GROWTH).timeout(self.poll_limit)
    }

    /// The pause after so many failures in a row. A part of it is left to chance, so that what failed at the same time is not tried again at the same time.
    fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = self.backoff_first.saturating_mul(1 << doublings).min(self.backoff_limit);
        pause + pause.mul_f64(chance() / 4.0)
    }
}

/// A number from 0 to 1 that differs each time. Nothing depends on nobody guessing it.
fn chance() -> f64 {
    f64::from((RandomState::new().build_hasher().finish() >> 32) as u32) / f64::from(u32::MAX)
}

/// Orders and renews the certificates of its settings.
#[derive(Debug)]
pub(crate) struct Acme {
    settings: AcmeSettings,
    folder: Folder,
    challenges: Challenges,
    transport: Transport,
    tasks: Vec<Task>,
    status: watch::Sender<Vec<GroupStatus>>,
    pace: Pace,
}

/// One certificate that has to be there.
#[derive(Debug)]
struct Task {
    group: Group,
    /// What was found of it at the last look.
    seen: Seen,
    failures: u32,
    error: Option<String>,
    /// Not before this, after a failure.
    retry_at: Option<Instant>,
}

impl Acme {
    /// Makes ready: judges the settings, makes the folders under `<state>/acme/` with mode 0700, and drops challenges that a killed process left. Nothing
    /// is ordered yet, and the authority is not asked. One at a time for each state folder: drop the old one first.
    ///
    /// # Errors
    /// When the settings cannot be, when a folder cannot be made, or when the file of authorities cannot be used.
    pub(crate) fn new(state: &Path, settings: AcmeSettings) -> Result<Self, ProxyError> {
        judge(&settings)?;
        let folder = Folder::new(state);
        let groups = groups(&folder, &settings)?;
        folder.make()?;
        let challenges = Challenges::new(state);
        challenges.clear();
        let transport = Transport::new(trusted_roots(settings.authorities.as_deref())?)?;
        let tasks = groups.into_iter().map(Task::new).collect();
        let acme = Self { settings, folder, challenges, transport, tasks, status: watch::Sender::default(), pace: Pace::PRODUCTION };
        acme.publish();
        Ok(acme)
    }

    /// How all certificates fare, in the order of the settings; kept up to date while [`Acme::run`] runs.
    pub(crate) fn status(&self) -> watch::Receiver<Vec<GroupStatus>> {
        self.status.subscribe()
    }

    /// Orders what is missing or due, one certificate after the other, and waits for the next to become due; never ends. To stop it, or to go on with other
    /// settings, drop it at any moment: what was written is whole, and the account is kept. It writes small files on the thread that it runs on.
    pub(crate) async fn run(mut self) {
        loop {
            for place in 0..self.tasks.len() {
                self.tasks[place].look();
                if self.tasks[place].wait(SystemTime::now()).is_zero() {
                    self.attempt(place).await;
                }
            }
            let now = SystemTime::now();
            let wait = self.tasks.iter().map(|task| task.wait(now)).min().unwrap_or(SLEEP_LIMIT);
            tokio::time::sleep(wait.min(SLEEP_LIMIT)).await;
        }
    }

    async fn attempt(&mut self, place: usize) {
        let outcome = self.renew(&self.tasks[place].group).await;
        if let Err(Failure { account_gone: true, .. }) = &outcome {
            self.folder.forget_account(&self.settings.directory);
        }
        let asked = self.transport.take_retry_after().unwrap_or_default().min(RETRY_AFTER_LIMIT);
        let task = &mut self.tasks[place];
        task.look();
        match outcome.and_then(|()| task.seen.check_not_due(SystemTime::now())) {
            Ok(()) => {
                tracing::info!(names = ?task.group.names, "a certificate was issued");
                (task.failures, task.error, task.retry_at) = (0, None, None);
            }
            Err(Failure { error, .. }) => {
                task.failures = task.failures.saturating_add(1);
                let pause = self.pace.backoff(task.failures).max(asked);
                task.retry_at = Some(Instant::now() + pause);
                let hint = error.hint_text().unwrap_or_default();
                tracing::error!(names = ?task.group.names, %error, hint, failures = task.failures, again_in = ?pause, "no new certificate; the old one stays");
                task.error = Some(format!("{error}; {hint}"));
            }
        }
        self.publish();
    }

    /// Gets a new certificate and puts it in the place of the old one.
    async fn renew(&self, group: &Group) -> Result<(), Failure> {
        self.folder.check_writable()?;
        let ordered = async {
            let account = self.account().await?;
            order::order(&account, group, &self.challenges, &self.pace).await
        };
        let issued = tokio::time::timeout(ORDER_LIMIT, ordered).await.map_err(|_| {
            ProxyError::new(format!("the order took longer than {ORDER_LIMIT:?}"))
                .hint("the authority or the way to it is slow; it is tried again")
        })??;
        group.accept(&issued)?;
        self.folder.write(&group.files.chain, group.text(&issued).as_bytes())?;
        Ok(())
    }

    /// The account at the authority: the one that is kept, or a new one, which is kept before it is used.
    async fn account(&self) -> Result<Account, Failure> {
        let directory = &self.settings.directory;
        let contacts = self.settings.contacts.iter().map(|address| format!("mailto:{address}")).collect::<Vec<_>>();
        let contacts = contacts.iter().map(String::as_str).collect::<Vec<_>>();
        let Some(mut record) = self.folder.account(directory)? else {
            let wanted =
                NewAccount { contact: &contacts, terms_of_service_agreed: self.settings.terms_agreed, only_return_existing: false };
            let created = self.builder().create(&wanted, directory.clone(), None).await;
            let (account, credentials) = created.map_err(|error| failure::of("make an account at the authority", &error))?;
            let record = AccountRecord {
                version: RECORD_VERSION,
                directory: directory.clone(),
                contacts: self.settings.contacts.clone(),
                credentials,
            };
            self.folder.keep_account(&record)?;
            return Ok(account);
        };
        let opened = self.builder().from_credentials(record.copy_of_credentials()?).await;
        let account = opened.map_err(|error| failure::of("use the account at the authority", &error))?;
        if record.contacts != self.settings.contacts {
            account.update_contacts(&contacts).await.map_err(|error| failure::of("tell the authority new contacts", &error))?;
            record.contacts.clone_from(&self.settings.contacts);
            self.folder.keep_account(&record)?;
        }
        Ok(account)
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.transport.clone()))
    }

    fn publish(&self) {
        let now = SystemTime::now();
        self.status.send_replace(self.tasks.iter().map(|task| task.status(now)).collect());
    }
}

impl Task {
    fn new(group: Group) -> Self {
        let seen = group.look();
        Self { group, seen, failures: 0, error: None, retry_at: None }
    }

    fn look(&mut self) {
        self.seen = self.group.look();
    }

    /// How long to wait until its next order.
    fn wait(&self, now: SystemTime) -> Duration {
        let renewal = self.seen.due_at.and_then(|due| due.duration_since(now).ok()).unwrap_or_default();
        let retry = self.retry_at.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default();
        renewal.max(retry)
    }

    fn status(&self, now: SystemTime) -> GroupStatus {
        GroupStatus {
            names: self.group.names.clone(),
            not_after: self.seen.not_after,
            failures: self.failures,
            error: self.error.clone(),
            next_order: now + self.wait(now),
        }
    }
}

fn judge(settings: &AcmeSettings) -> Result<(), ProxyError> {
    if !settings.terms_agreed {
        return Err(ProxyError::new("certificates are ordered only by who agrees to the authority's terms of service")
            .hint("read the terms that its directory names, and say in the settings that you agree"));
    }
    let uri: Option<hyper::Uri> = settings.directory.parse().ok();
    if uri.is_none_or(|uri| uri.scheme_str() != Some("https") || uri.host().is_none()) {
        return Err(ProxyError::new(format!("{:?} is no directory of an authority", settings.directory))
            .hint("it is a URL that begins with https://, such as https://acme-v02.api.letsencrypt.org/directory"));
    }
    for address in &settings.contacts {
        let plain = |character: char| character.is_ascii_graphic() && !",:?&%<>".contains(character);
        if !address.chars().all(plain) || address.split('@').filter(|part| !part.is_empty()).count() != 2 {
            return Err(
                ProxyError::new(format!("{address:?} is no contact")).hint("a contact is an e-mail address, such as admin@example.com")
            );
        }
    }
    Ok(())
}

/// The certificates of the settings. Touches no file.
fn groups(folder: &Folder, settings: &AcmeSettings) -> Result<Vec<Group>, ProxyError> {
    if settings.groups.len() > GROUP_LIMIT {
        return Err(ProxyError::new(format!("{} certificates are more than the {GROUP_LIMIT} that can be ordered", settings.groups.len()))
            .hint("put several names in one certificate"));
    }
    let mut seen = HashSet::new();
    let mut groups = Vec::with_capacity(settings.groups.len());
    for names in &settings.groups {
        let group = Group::parse(names, &settings.directory, folder)?;
        if let Some(twice) = group.names.iter().find(|name| !seen.insert((*name).clone())) {
            return Err(ProxyError::new(format!("{twice} is ordered twice")).hint("name it in one certificate only"));
        }
        groups.push(group);
    }
    Ok(groups)
}
