//! The names that one certificate is for, and what is there of it.

use super::failure::Failure;
use super::folder::Folder;
use super::order::Issued;
use crate::certificate::{CertificateFiles, Pair};
use crate::error::ProxyError;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::pki_types::ServerName;

/// So many names one certificate may have: what Let's Encrypt allows.
const NAME_LIMIT: usize = 100;
/// The first name makes the name of a file, in bytes: names of files may have 255.
const FIRST_NAME_LIMIT: usize = 200;
/// Renewal is due after two thirds of the lifetime, as Let's Encrypt advises: of 90 days 30 are left for repairs.
const LIFETIME_USED: f64 = 2.0 / 3.0;
/// And then up to this part of the lifetime later, by chance, so that certificates that were issued together are not renewed together.
const LIFETIME_SPREAD: f64 = 1.0 / 30.0;
/// The first line of the file, before the URL of the directory.
const AUTHORITY_MARK: &str = "Issued by ";

/// One certificate that is ordered.
#[derive(Debug)]
pub(super) struct Group {
    /// DNS names in small letters, at least one.
    pub(super) names: Vec<String>,
    /// The one file for both the chain and the key.
    pub(super) files: CertificateFiles,
    /// The URL of the directory of the authority that has to issue it.
    directory: String,
}

impl Group {
    /// Judges names.
    ///
    /// # Errors
    /// When there is none or too many, or one is no DNS name that http-01 can prove.
    pub(super) fn parse(names: &[String], directory: &str, folder: &Folder) -> Result<Self, ProxyError> {
        let names = names.iter().map(|name| parse_name(name)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = names.first().filter(|_| names.len() <= NAME_LIMIT) else {
            return Err(ProxyError::new(format!("a certificate cannot have {} names", names.len()))
                .hint(format!("name 1 to {NAME_LIMIT} for each certificate, and put further ones into another")));
        };
        if first.len() > FIRST_NAME_LIMIT {
            return Err(ProxyError::new(format!("{first} is too long for the name of a file")).hint("put a shorter name first"));
        }
        let path = folder.certificate(first);
        let files = CertificateFiles { chain: path.clone(), key: path };
        Ok(Self { names, files, directory: directory.to_owned() })
    }

    /// The certificate that is there, if it can be used. What cannot is ordered again.
    fn current(&self) -> Option<Pair> {
        match Pair::read(&self.files) {
            Ok(pair) => Some(pair),
            Err(error) if self.files.chain.exists() => {
                tracing::warn!(%error, "a certificate that was issued cannot be used and is ordered again");
                None
            }
            Err(_) => None,
        }
    }

    /// Looks at the certificate that is there.
    pub(super) fn look(&self) -> Seen {
        let pair = self.current();
        // Whoever changes from a test authority to a real one wants the real certificate now.
        let good = pair.as_ref().filter(|pair| self.missing_name(pair).is_none() && self.is_from_this_authority());
        let due_at = good.and_then(|pair| renewal(pair.not_before(), pair.not_after(), &self.names));
        Seen { not_after: pair.as_ref().map(Pair::not_after), due_at }
    }

    /// Judges what the authority issued, before it takes the place of what is there.
    ///
    /// # Errors
    /// When it is no certificate, not for the key that was made, or not for all names.
    pub(super) fn accept(&self, issued: &Issued) -> Result<(), Failure> {
        let text = self.text(issued);
        let pair = Pair::parse(&self.files, text.as_bytes(), text.as_bytes()).map_err(|error| {
            ProxyError::new(format!("what the authority issued cannot be used: {error}"))
                .hint("the authority has a fault; it is tried again")
        })?;
        match self.missing_name(&pair) {
            None => Ok(()),
            Some(name) => Err(ProxyError::new(format!("the authority issued a certificate without the name {name}"))
                .hint("look whether its rules allow this name")
                .into()),
        }
    }

    /// What stands in the file: who issued it, which PEM passes over (RFC 7468, section 2), the key, and the chain.
    pub(super) fn text(&self, issued: &Issued) -> String {
        format!("{AUTHORITY_MARK}{}\n{}\n{}", self.directory, issued.key.trim_end(), issued.chain)
    }

    fn is_from_this_authority(&self) -> bool {
        let mut line = String::new();
        let read = File::open(&self.files.chain).and_then(|file| BufReader::new(file).read_line(&mut line));
        read.is_ok() && line.trim_end().strip_prefix(AUTHORITY_MARK) == Some(&self.directory)
    }

    fn missing_name(&self, pair: &Pair) -> Option<&String> {
        self.names.iter().find(|name| !pair.names().contains(name))
    }
}

/// What was found of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The last moment at which it is valid; `None`: there is none.
    pub(super) not_after: Option<SystemTime>,
    /// When the next one has to be ordered; `None`: at once.
    pub(super) due_at: Option<SystemTime>,
}

impl Seen {
    /// Judges what was just issued: if it were renewed at once, it would be so again and again.
    ///
    /// # Errors
    /// When it is due already.
    pub(super) fn check_not_due(self, now: SystemTime) -> Result<(), Failure> {
        if self.due_at.is_some_and(|due| due > now) {
            return Ok(());
        }
        Err(ProxyError::new("the authority issued a certificate that is due for renewal already; it is used")
            .hint("look whether the clock of this machine is right, and how long the certificates of this authority are valid")
            .into())
    }
}

/// When a certificate is renewed. Always the same for the same one, so that a restart changes nothing. `None` when the dates are impossible.
pub(super) fn renewal(not_before: SystemTime, not_after: SystemTime, names: &[String]) -> Option<SystemTime> {
    let lifetime = not_after.duration_since(not_before).ok()?;
    let mut hasher = DefaultHasher::new();
    (names, not_after).hash(&mut hasher);
    let chance = f64::from((hasher.finish() >> 32) as u32) / f64::from(u32::MAX);
    let used: Duration = lifetime.mul_f64(LIFETIME_USED + LIFETIME_SPREAD * chance);
    not_before.checked_add(used)
}

fn parse_name(text: &str) -> Result<String, ProxyError> {
    if text.starts_with('*') {
        return Err(ProxyError::new(format!("{text} cannot be ordered: the challenge http-01 proves no wildcards"))
            .hint("name each host, or bring a certificate for the wildcard as files"));
    }
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(_)) if !text.ends_with('.') => Ok(text.to_ascii_lowercase()),
        _ => Err(ProxyError::new(format!("{text:?} is not a DNS name"))
            .hint("name a host such as www.example.com, without a port and without a slash")),
    }
}
