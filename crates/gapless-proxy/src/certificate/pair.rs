//! One certificate with its key, read from PEM files and judged.

use super::{CertificateFiles, Expiry, provider};
use crate::error::ProxyError;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A longer file is no certificate, in bytes: a chain of 4 with large RSA keys has about 10 KiB.
const FILE_LIMIT: u64 = 1 << 20;

/// A certificate that can be shown.
#[derive(Debug)]
pub(crate) struct Pair {
    files: CertificateFiles,
    certified: Arc<CertifiedKey>,
    leaf: Leaf,
}

/// What the server's own certificate says.
#[derive(Debug)]
struct Leaf {
    /// DNS names in small letters; a wildcard begins with `*.`.
    names: Vec<String>,
    /// It has names of another kind, by which no client can ask.
    other_names: bool,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Pair {
    /// Reads and judges the files.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or when the key is not the one of the first certificate. The key's content is in no error.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, ProxyError> {
        let chain = read(&files.chain)?;
        let key = if files.key == files.chain { None } else { Some(read(&files.key)?) };
        Self::parse(files, &chain, key.as_deref().unwrap_or(&chain))
    }

    /// Judges the PEM texts of a chain and of a key; the files are only named in errors.
    ///
    /// # Errors
    /// As [`Pair::read`].
    pub(crate) fn parse(files: &CertificateFiles, chain: &[u8], key: &[u8]) -> Result<Self, ProxyError> {
        let chain = parse_chain(&files.chain, chain)?;
        let key = parse_key(&files.key, key)?;
        let leaf = chain.first().map_or_else(|| Err(no_certificate(&files.chain)), |leaf| Leaf::parse(&files.chain, leaf))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| refused(files, &error))?;
        Ok(Self { files: files.clone(), certified: Arc::new(certified), leaf })
    }

    /// What is shown to clients.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// The DNS names that it proves, in small letters; a wildcard begins with `*.`.
    pub(crate) fn names(&self) -> &[String] {
        &self.leaf.names
    }

    /// The first moment at which it is valid.
    pub(crate) fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// The last moment at which it is valid.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    pub(super) fn expiry(&self) -> Expiry {
        Expiry { chain: self.files.chain.clone(), names: self.leaf.names.clone(), not_after: self.leaf.not_after }
    }

    /// The same certificate was issued once, so it has the same key.
    pub(super) fn same_certificate(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// Tells what is no reason to refuse it.
    pub(super) fn warn(&self, now: SystemTime) {
        let chain = self.files.chain.display();
        if self.leaf.not_after < now {
            tracing::warn!(%chain, names = ?self.leaf.names, "a certificate has expired: clients refuse it; put a new one in its place");
        }
        if self.leaf.not_before > now {
            tracing::warn!(%chain, names = ?self.leaf.names, "a certificate is not valid yet: look whether the clock of this machine is right");
        }
        if self.leaf.names.is_empty() && !self.leaf.other_names {
            tracing::warn!(%chain, "a certificate has no name: clients refuse it; order one with subject alternative names");
        }
    }
}

impl Leaf {
    fn parse(path: &Path, der: &[u8]) -> Result<Self, ProxyError> {
        let broken = |what: &str| {
            ProxyError::new(format!("the first certificate in {} is broken: {what}", path.display()))
                .hint("get the file from your authority again")
        };
        let certificate = x509_cert::Certificate::from_der(der).map_err(|error| broken(&error.to_string()))?;
        let content = certificate.tbs_certificate();
        let names = content.get_extension::<SubjectAltName>().map_err(|_| broken("its alternative names cannot be read"))?;
        let names = names.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
        let usable: Vec<String> = names.iter().filter_map(dns_name).filter(|name| usable(path, name)).collect();
        Ok(Self {
            other_names: usable.len() < names.len(),
            names: usable,
            not_before: content.validity().not_before.to_system_time(),
            not_after: content.validity().not_after.to_system_time(),
        })
    }
}

fn dns_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    }
}

/// A wildcard stands for one whole label, the first: RFC 6125, section 6.4.3.
fn usable(path: &Path, name: &str) -> bool {
    let usable = !name.strip_prefix("*.").unwrap_or(name).contains('*') && !name.is_empty();
    if !usable {
        tracing::warn!(chain = %path.display(), name, "a certificate has a name that no client understands; it is passed over");
    }
    usable
}

/// The certificates in a PEM file, in its order; at least one.
///
/// # Errors
/// When the file cannot be read, is no PEM or holds no certificate.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProxyError> {
    parse_chain(path, &read(path)?)
}

fn read(path: &Path) -> Result<Vec<u8>, ProxyError> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut text)).map_err(|error| {
        ProxyError::path("read the certificate file", path, &error).hint("name a file that is there and that this process may read")
    })?;
    if text.len() as u64 > FILE_LIMIT {
        let what = format!("{} is longer than {FILE_LIMIT} bytes, so it is no certificate", path.display());
        return Err(ProxyError::new(what).hint("look whether another file is meant"));
    }
    Ok(text)
}

fn parse_chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ProxyError> {
    // What the parser says may quote the file, and a key may stand in it by mistake or by intent.
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|_| not_pem(path))?;
    if chain.is_empty() { Err(no_certificate(path)) } else { Ok(chain) }
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, ProxyError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        PemError::NoItemsFound => ProxyError::new(format!("{} holds no private key", path.display()))
            .hint("name a PEM file with the key of the certificate, not encrypted: `openssl pkey -in FILE -out NEW` takes a password away"),
        _ => not_pem(path),
    })
}

fn not_pem(path: &Path) -> ProxyError {
    ProxyError::new(format!("{} is not PEM", path.display()))
        .hint("the text stands between lines like `-----BEGIN CERTIFICATE-----`; `openssl x509 -inform DER` makes it of the binary form")
}

fn no_certificate(path: &Path) -> ProxyError {
    ProxyError::new(format!("{} holds no certificate", path.display()))
        .hint("name a PEM file that begins with the certificate of the server")
}

fn refused(files: &CertificateFiles, error: &TlsError) -> ProxyError {
    let (chain, key) = (files.chain.display(), files.key.display());
    match error {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            ProxyError::new(format!("the key in {key} is not the key of the first certificate in {chain}"))
                .hint("bring the two that belong together; the certificate of the server stands before those of its authorities")
        }
        // Said in own words, for what a key's error quotes is not known.
        _ => ProxyError::new(format!("the key in {key} cannot be used for the certificate in {chain}"))
            .hint("keys are RSA with 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519"),
    }
}
