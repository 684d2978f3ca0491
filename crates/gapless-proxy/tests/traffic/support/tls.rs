//! An authority of the tests' own, and a client that trusts it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).expect("a root");
        Self { root: root.der().clone(), issuer: Issuer::new(parameters, key) }
    }

    /// Writes a certificate for these hosts, and its key.
    pub fn certify(&self, folder: &Path, name: &str, hosts: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_string()).collect();
        let certificate = CertificateParams::new(hosts).expect("hosts").signed_by(&key, &self.issuer).expect("a certificate");
        let (chain, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&chain, certificate.pem()).expect("the chain");
        std::fs::write(&key_file, key.serialize_pem()).expect("the key");
        (chain, key_file)
    }

    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("the root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A connection over TLS.
pub struct Secure(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Secure {
    pub fn connect(address: SocketAddr, host: &str, authority: &Authority, protocols: &[&str]) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_string()).expect("a name");
        let mut session = ClientConnection::new(authority.client(protocols), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self(BufReader::new(StreamOwned::new(session, socket))))
    }

    pub fn protocol(&self) -> Option<String> {
        self.0.get_ref().conn.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned())
    }

    pub fn version(&self) -> String {
        self.0.get_ref().conn.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default()
    }

    /// The certificate that was shown, whole.
    pub fn serial(&self) -> Vec<u8> {
        self.0.get_ref().conn.peer_certificates().map(|shown| shown[0].to_vec()).unwrap_or_default()
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)?;
        self.0.get_mut().flush()
    }

    /// The answer's body.
    pub fn get(&mut self, path: &str, host: &str) -> io::Result<String> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.answer()
    }

    pub fn answer(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
