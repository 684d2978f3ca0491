//! TLS for https targets: rustls with ring, and the platform's certificate authorities.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::LoadError;

/// A connector and the name it asks the server to prove.
#[derive(Clone)]
pub struct Tls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

impl Tls {
    /// Trusts the platform's authorities and those in the PEM file `authorities`.
    pub fn new(host: &str, authorities: Option<&Path>) -> Result<Self, LoadError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            LoadError::new(format!("{host:?} is not a name TLS can prove"), "use a DNS name or an IP address").caused_by(error)
        })?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| LoadError::new("TLS cannot be set up", "this build of gapless is broken, report it").caused_by(error))?
            .with_root_certificates(trusted_roots(authorities)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn trusted_roots(authorities: Option<&Path>) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = authorities {
        let unreadable =
            || LoadError::new(format!("cannot read certificate authorities from {}", path.display()), "name a PEM file with certificates");
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable().caused_by(error))? {
            let certificate = certificate.map_err(|error| unreadable().caused_by(error))?;
            roots.add(certificate).map_err(|error| unreadable().caused_by(error))?;
        }
    }
    if roots.is_empty() {
        return Err(LoadError::new("this machine trusts no certificate authority", "install the package ca-certificates"));
    }
    Ok(roots)
}
