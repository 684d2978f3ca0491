//! The certificates that the listeners prove themselves with, and the TLS settings around them.
//!
//! The settings of TLS are made once ([`server_config`]). What they ask for a certificate is [`Certificates`], whose content can be swapped: a reload opens
//! no new listener and disturbs no connection, and a set that cannot be used never takes the place of one that can.

mod pair;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use pair::Pair;
#[cfg(test)]
pub(crate) use watch::Look;
pub(crate) use watch::Watch;

use crate::error::ProxyError;
use crate::sync::lock;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, ServerSessionMemoryCache};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use watch::Stamp;

/// The name of HTTP/2 over TLS in the negotiation of protocols: RFC 9113, section 3.2.
pub(crate) const HTTP_2: &[u8] = b"h2";
/// The name of HTTP/1.1 in the negotiation of protocols: RFC 7301, section 6.
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// So many sessions are remembered for clients that can neither do TLS 1.3 nor take tickets: at about 1 KiB each a few MiB, and such clients are rare.
const SESSION_LIMIT: usize = 4096;
const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// Where a certificate stands.
///
/// Both may be the same file: then no moment exists in which one is replaced and the other is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// PEM: the server's own certificate first, then the authorities that lead to a root, each signed by the next.
    pub(crate) chain: PathBuf,
    /// PEM: the private key of the first certificate, unencrypted, as PKCS#8, PKCS#1 or SEC1.
    pub(crate) key: PathBuf,
}

/// All certificates of the listeners. Where two have a name in common, the one that stands first is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Brought by the operator: each has to be there and has to be usable.
    pub(crate) given: Vec<CertificateFiles>,
    /// Ordered by [`crate::acme`]: one that is not there yet is passed over; one that is there has to be usable.
    pub(crate) ordered: Vec<CertificateFiles>,
}

/// What a metric says about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// The file with the chain.
    pub(crate) chain: PathBuf,
    /// The DNS names that the certificate proves.
    pub(crate) names: Vec<String>,
    /// The last moment at which it is valid.
    pub(crate) not_after: SystemTime,
}

impl Expiry {
    /// Whole days until the certificate expires, rounded down: 0 on its last day, below 0 once it has expired.
    pub(crate) fn days_left(&self, now: SystemTime) -> i64 {
        seconds_until(self.not_after, now).div_euclid(SECONDS_OF_A_DAY)
    }
}

fn seconds_until(moment: SystemTime, now: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match moment.duration_since(now) {
        Ok(left) => seconds(left),
        // A part of a second that has passed counts as one.
        Err(passed) => -seconds(passed.duration()) - i64::from(passed.duration().subsec_nanos() > 0),
    }
}

/// The certificates in force. Shared by all listeners of the process; asked once in each full handshake.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// Held while a new set is read, so that two reloads cannot overtake each other.
    sources: Mutex<Sources>,
    current: RwLock<Arc<Set>>,
}

impl Certificates {
    /// Reads all certificates. It reads files, so it blocks for some microseconds for each.
    ///
    /// # Errors
    /// When a file cannot be read, is no PEM or longer than 1 MiB, or when a key is not the key of its certificate. The error names the file. A
    /// certificate that has expired or is not valid yet is used, with a warning: it may be all that there is.
    pub(crate) fn load(sources: Sources) -> Result<Self, ProxyError> {
        let set = Set::read(&sources)?;
        set.warn_of_what_is_new(&Set::default(), SystemTime::now());
        Ok(Self { sources: Mutex::new(sources), current: RwLock::new(Arc::new(set)) })
    }

    /// Reads all certificates, and goes on without those that cannot be used: for a worker that takes a dead one's place, when it is too late to refuse what
    /// the settings say. Each of them is told with its error. A [`Watch`] looks for usable ones from then on.
    pub(crate) fn load_usable(sources: Sources) -> (Self, Vec<ProxyError>) {
        let (set, broken) = Set::read_usable(&sources);
        set.warn_of_what_is_new(&Set::default(), SystemTime::now());
        (Self { sources: Mutex::new(sources), current: RwLock::new(Arc::new(set)) }, broken)
    }

    /// Reads all files again and puts the new set in force, whole. Tells how many certificates of it were not in force before.
    ///
    /// # Errors
    /// As [`Certificates::load`]; the old set stays in force then.
    pub(crate) fn reload(&self) -> Result<usize, ProxyError> {
        let sources = lock(&self.sources);
        self.put_in_force(Set::read(&sources)?)
    }

    /// Puts the certificates of other files in force, whole: when the settings have changed. Tells how many of them were not in force before.
    ///
    /// # Errors
    /// As [`Certificates::load`]; the old files and the old set stay in force then.
    pub(crate) fn replace_sources(&self, replacement: Sources) -> Result<usize, ProxyError> {
        let mut sources = lock(&self.sources);
        let changed = self.put_in_force(Set::read(&replacement)?)?;
        *sources = replacement;
        Ok(changed)
    }

    /// When the certificates in force expire, in the order of the settings.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        self.current().pairs.iter().map(Pair::expiry).collect()
    }

    /// The certificate for a name that a client asked for: one with exactly this name, else one with a wildcard in place of its first label (RFC 6125,
    /// section 6.4.3), else the first. `None` only when there is no certificate at all, which is so until the first one that is ordered has come.
    pub(crate) fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.current().choose(name).map(Pair::certified)
    }

    fn put_in_force(&self, set: Set) -> Result<usize, ProxyError> {
        let old = self.current();
        let changed = set.warn_of_what_is_new(&old, SystemTime::now());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        Ok(changed)
    }

    fn current(&self) -> Arc<Set> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client_hello.server_name())
    }
}

/// The certificates that were in force together.
#[derive(Debug, Default)]
struct Set {
    pairs: Vec<Pair>,
    /// From a name to its place in `pairs`.
    exact: HashMap<String, usize>,
    /// From the name after `*.` to its place in `pairs`.
    wildcard: HashMap<String, usize>,
    /// How the files looked immediately before they were read.
    stamps: Vec<Stamp>,
    /// The files have to be read again even if they look the same: one was written so shortly before that a further write could look the same, or one could
    /// not be used.
    unsettled: bool,
}

impl Set {
    fn read(sources: &Sources) -> Result<Self, ProxyError> {
        let (set, broken) = Self::read_usable(sources);
        broken.into_iter().next().map_or(Ok(set), Err)
    }

    fn read_usable(sources: &Sources) -> (Self, Vec<ProxyError>) {
        let stamps = Stamp::of_all(sources);
        let mut set = Self { unsettled: watch::unsettled(&stamps, SystemTime::now()), stamps, ..Self::default() };
        let mut broken = Vec::new();
        for files in sources.given.iter().chain(sources.ordered.iter().filter(|files| files.chain.exists())) {
            match Pair::read(files) {
                Ok(pair) => set.add(pair),
                Err(error) => broken.push(error),
            }
        }
        set.unsettled |= !broken.is_empty();
        (set, broken)
    }

    fn add(&mut self, pair: Pair) {
        let place = self.pairs.len();
        for name in pair.names() {
            let (names, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            names.entry(name.to_owned()).or_insert(place);
        }
        self.pairs.push(pair);
    }

    fn choose(&self, name: Option<&str>) -> Option<&Pair> {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(&name).or_else(wildcard).and_then(|place| self.pairs.get(*place))
        });
        named.or_else(|| self.pairs.first())
    }

    /// Tells how many certificates the other set did not have.
    fn warn_of_what_is_new(&self, old: &Self, now: SystemTime) -> usize {
        let new = self.pairs.iter().filter(|pair| !old.pairs.iter().any(|old| old.same_certificate(pair)));
        new.inspect(|pair| pair.warn(now)).count()
    }
}

/// The settings of TLS for listeners that speak `protocols`, the preferred one first: [`HTTP_2`], [`HTTP_1`].
///
/// TLS 1.3 and 1.2 (RFC 8446, RFC 5246) with the cipher suites that rustls holds to be safe. No early data: a replayed request could not be told from a
/// wanted one (RFC 8446, section 8). Sessions are resumed by tickets whose key is made at random in this process, changes every 6 h and is forgotten after
/// 12 h; a worker that takes another's place does not know its tickets, and clients do a full handshake then. A client that names protocols of which none is
/// among `protocols` is refused (RFC 7301, section 3.2); one that names none is served.
///
/// # Errors
/// When the system has no randomness for the first key of the tickets.
pub(crate) fn server_config(certificates: Arc<Certificates>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, ProxyError> {
    let broken = |error| {
        ProxyError::new(format!("TLS cannot be set up: {error}")).hint("the system gives no random numbers, or this build is broken")
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(broken)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = ServerSessionMemoryCache::new(SESSION_LIMIT);
    config.ticketer = ring::Ticketer::new().map_err(broken)?;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The cryptography of everything here. Named each time, so that no default of the process is needed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of the authorities in a PEM file, and those that the machine trusts.
///
/// # Errors
/// When the file cannot be read or holds no certificate, or when nothing is trusted at all.
pub(crate) fn trusted_roots(authorities: Option<&Path>) -> Result<tokio_rustls::rustls::RootCertStore, ProxyError> {
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = authorities {
        for certificate in pair::read_chain(path)? {
            roots.add(certificate).map_err(|error| {
                ProxyError::new(format!("a certificate in {} cannot be an authority: {error}", path.display()))
                    .hint("name a PEM file with the root certificates of the authority")
            })?;
        }
    }
    if roots.is_empty() {
        return Err(ProxyError::new("this machine trusts no certificate authority").hint("install the package ca-certificates"));
    }
    Ok(roots)
}
