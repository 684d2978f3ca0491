//! Certificates made on the spot, chosen, swapped and shown in real handshakes.

use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate and its key.
struct Made {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn make(names: &[&str]) -> Made {
    make_valid(names, SystemTime::now() - DAY, SystemTime::now() + 30 * DAY)
}

fn make_valid(names: &[&str], not_before: SystemTime, not_after: SystemTime) -> Made {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (not_before.into(), not_after.into());
    let key = KeyPair::generate().unwrap();
    Made { certificate: params.self_signed(&key).unwrap(), key }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn files(&self, name: &str) -> CertificateFiles {
        CertificateFiles { chain: self.0.path().join(format!("{name}.pem")), key: self.0.path().join(format!("{name}.key")) }
    }

    fn put(&self, name: &str, made: &Made) -> CertificateFiles {
        let files = self.files(name);
        put_renamed(&files.chain, &made.certificate.pem());
        put_renamed(&files.key, &made.key.serialize_pem());
        files
    }
}

fn put_renamed(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}

fn given(given: &[CertificateFiles]) -> Sources {
    Sources { given: given.to_vec(), ordered: Vec::new() }
}

fn shown(certificates: &Certificates, name: Option<&str>) -> CertificateDer<'static> {
    certificates.choose(name).unwrap().cert[0].clone()
}

#[test]
fn a_name_is_answered_by_its_own_certificate_then_by_a_wildcard_then_by_the_first() {
    let folder = Folder::new();
    let (first, exact, wildcard) = (make(&["first.test"]), make(&["www.Example.test"]), make(&["*.example.test", "example.test"]));
    let files = [folder.put("first", &first), folder.put("wildcard", &wildcard), folder.put("exact", &exact)];
    let certificates = Certificates::load(given(&files)).unwrap();
    for (name, expected) in [
        (None, &first),
        (Some("nowhere.test"), &first),
        (Some("www.example.test"), &exact),
        (Some("WWW.example.test."), &exact),
        (Some("api.example.test"), &wildcard),
        (Some("example.test"), &wildcard),
        (Some("a.b.example.test"), &first),
        (Some("test"), &first),
    ] {
        assert_eq!(&shown(&certificates, name), expected.certificate.der(), "{name:?}");
    }
}

#[test]
fn what_is_wrong_with_files_is_said_with_their_names_and_without_the_key() {
    let folder = Folder::new();
    let (one, other) = (make(&["one.test"]), make(&["other.test"]));
    let mut files = folder.put("one", &one);
    fs::write(&files.key, other.key.serialize_pem()).unwrap();
    let refused = |files: &CertificateFiles, said: &str, named: &Path| {
        let error = Certificates::load(given(std::slice::from_ref(files))).unwrap_err();
        let text = format!("{error} {}", error.hint_text().expect("a hint"));
        assert!(text.contains(said) && text.contains(named.to_str().unwrap()), "{text}");
        for line in other.key.serialize_pem().lines().filter(|line| !line.starts_with('-')) {
            assert!(!text.contains(line), "a key is in {text}");
        }
    };
    refused(&files, "is not the key of", &files.key.clone());
    fs::write(&files.key, other.key.serialize_pem().replace("-----END", "-----\n-----")).unwrap();
    refused(&files, "is not PEM", &files.key.clone());
    fs::write(&files.key, one.certificate.pem()).unwrap();
    refused(&files, "no private key", &files.key.clone());
    fs::write(&files.chain, other.key.serialize_pem()).unwrap();
    refused(&files, "no certificate", &files.chain.clone());
    fs::write(&files.chain, vec![b'-'; 2 << 20]).unwrap();
    refused(&files, "longer", &files.chain.clone());
    files.chain = folder.0.path().join("missing.pem");
    refused(&files, "No such file", &files.chain.clone());
}

#[test]
fn one_file_may_hold_the_chain_and_the_key() {
    let folder = Folder::new();
    let made = make(&["one.test"]);
    let path = folder.0.path().join("both.pem");
    fs::write(&path, made.key.serialize_pem() + &made.certificate.pem()).unwrap();
    let certificates = Certificates::load(given(&[CertificateFiles { chain: path.clone(), key: path }])).unwrap();
    assert_eq!(&shown(&certificates, None), made.certificate.der());
}

#[test]
fn an_ordered_certificate_may_be_missing_until_it_comes() {
    let folder = Folder::new();
    let sources = Sources { given: Vec::new(), ordered: vec![folder.files("ordered")] };
    let certificates = Arc::new(Certificates::load(sources).unwrap());
    assert!(certificates.choose(Some("ordered.test")).is_none());
    let mut watch = Watch::new(certificates.clone());
    assert_eq!(watch.look(), Look::Same);
    let made = make(&["ordered.test"]);
    folder.put("ordered", &made);
    assert_eq!(watch.look(), Look::Reloaded(1));
    assert_eq!(&shown(&certificates, Some("ordered.test")), made.certificate.der());
}

#[test]
fn an_expired_certificate_is_used_and_the_days_that_are_left_are_told() {
    let folder = Folder::new();
    let now = SystemTime::now();
    let expired = make_valid(&["old.test"], now - 30 * DAY, now - DAY / 2);
    let good = make_valid(&["new.test"], now - DAY, now + 10 * DAY + DAY / 2);
    let files = [folder.put("old", &expired), folder.put("new", &good)];
    let certificates = Certificates::load(given(&files)).unwrap();
    assert_eq!(&shown(&certificates, None), expired.certificate.der());
    let told = certificates.expiries();
    assert_eq!(told.iter().map(|expiry| expiry.days_left(now)).collect::<Vec<_>>(), [-1, 10]);
    assert_eq!((told[1].names.as_slice(), &told[1].chain), (["new.test".to_owned()].as_slice(), &files[1].chain));
}

#[test]
fn a_reload_swaps_whole_or_not_at_all() {
    let folder = Folder::new();
    let old = [make(&["one.test"]), make(&["two.test"])];
    let files = [folder.put("one", &old[0]), folder.put("two", &old[1])];
    let certificates = Certificates::load(given(&files)).unwrap();
    let new = make(&["one.test"]);
    folder.put("one", &new);
    fs::write(&files[1].chain, "broken").unwrap();
    assert!(certificates.reload().is_err());
    assert_eq!(&shown(&certificates, Some("one.test")), old[0].certificate.der(), "nothing is half in force");
    folder.put("two", &old[1]);
    assert_eq!(certificates.reload().unwrap(), 1);
    assert_eq!(&shown(&certificates, Some("one.test")), new.certificate.der());
    assert!(certificates.replace_sources(given(&[folder.files("nothing")])).is_err());
    assert_eq!(certificates.replace_sources(given(&files[1..])).unwrap(), 0);
    assert_eq!(&shown(&certificates, Some("one.test")), old[1].certificate.der(), "only the second is left");
}

#[test]
fn a_watch_waits_for_the_second_of_two_files() {
    let folder = Folder::new();
    let (old, new) = (make(&["one.test"]), make(&["one.test"]));
    let files = folder.put("one", &old);
    let certificates = Arc::new(Certificates::load(given(std::slice::from_ref(&files))).unwrap());
    let mut watch = Watch::new(certificates.clone());
    assert_eq!(watch.look(), Look::Same);
    put_renamed(&files.chain, &new.certificate.pem());
    assert_eq!((watch.look(), watch.look()), (Look::Kept, Look::Kept));
    assert!(watch.told.is_some());
    assert_eq!(&shown(&certificates, None), old.certificate.der());
    put_renamed(&files.key, &new.key.serialize_pem());
    assert_eq!((watch.look(), watch.look()), (Look::Reloaded(1), Look::Same));
    assert_eq!((&shown(&certificates, None), watch.told), (new.certificate.der(), None));
}

#[test]
fn a_write_in_place_that_looks_the_same_is_noticed() {
    let folder = Folder::new();
    let old = make(&["one.test"]);
    let path = folder.0.path().join("both.pem");
    let text = |made: &Made| made.key.serialize_pem() + &made.certificate.pem();
    fs::write(&path, text(&old)).unwrap();
    let files = CertificateFiles { chain: path.clone(), key: path.clone() };
    let certificates = Arc::new(Certificates::load(given(&[files])).unwrap());
    let before = fs::metadata(&path).unwrap();
    // The length of a signature varies by some bytes.
    let new = std::iter::repeat_with(|| make(&["one.test"])).find(|made| text(made).len() == text(&old).len()).unwrap();
    fs::write(&path, text(&new)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.len(), before.modified().unwrap()), (after.ino(), after.len(), after.modified().unwrap()));
    assert_eq!(Watch::new(certificates.clone()).look(), Look::Reloaded(1));
    assert_eq!(&shown(&certificates, None), new.certificate.der());
}

#[test]
fn a_start_that_must_not_fail_goes_on_without_what_is_broken_until_it_is_whole() {
    let folder = Folder::new();
    let (one, two) = (make(&["one.test"]), make(&["two.test"]));
    let files = [folder.put("one", &one), folder.put("two", &two)];
    let whole = fs::read(&files[0].key).unwrap();
    fs::write(&files[0].key, "broken").unwrap();
    let (certificates, broken) = Certificates::load_usable(given(&files));
    assert!(broken.len() == 1 && broken[0].to_string().contains(files[0].key.to_str().unwrap()), "{broken:?}");
    let certificates = Arc::new(certificates);
    assert_eq!(&shown(&certificates, Some("one.test")), two.certificate.der());
    let mut watch = Watch::new(certificates.clone());
    assert_eq!(watch.look(), Look::Kept);
    fs::write(&files[0].key, whole).unwrap();
    assert_eq!(watch.look(), Look::Reloaded(1));
    assert_eq!(&shown(&certificates, Some("one.test")), one.certificate.der());
}

/// What a client saw of a handshake.
struct Handshake {
    certificate: CertificateDer<'static>,
    protocol: Option<Vec<u8>>,
    version: ProtocolVersion,
    kind: HandshakeKind,
}

fn client(trusted: &[&Made], protocols: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.certificate.der().clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

async fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &'static str) -> std::io::Result<Handshake> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let accept = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await
    };
    let connect = async {
        let mut stream = TlsConnector::from(client.clone()).connect(ServerName::try_from(name).unwrap(), near).await?;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
        assert_eq!(text, "hello");
        let session = stream.get_ref().1;
        Ok::<_, std::io::Error>(Handshake {
            certificate: session.peer_certificates().unwrap()[0].clone(),
            protocol: session.alpn_protocol().map(<[u8]>::to_vec),
            version: session.protocol_version().unwrap(),
            kind: session.handshake_kind().unwrap(),
        })
    };
    let (served, seen) = tokio::join!(accept, connect);
    let seen = seen?;
    served.map(|()| seen)
}

#[tokio::test]
async fn handshakes_show_the_certificate_of_the_name_and_agree_on_a_protocol() {
    let folder = Folder::new();
    let (one, two) = (make(&["one.test"]), make(&["*.two.test"]));
    let files = [folder.put("one", &one), folder.put("two", &two)];
    let certificates = Arc::new(Certificates::load(given(&files)).unwrap());
    let server = server_config(certificates, &[HTTP_2, HTTP_1]).unwrap();
    let both = client(&[&one, &two], &[HTTP_1, HTTP_2], &[&TLS13, &TLS12]);
    let seen = handshake(&server, &both, "a.two.test").await.unwrap();
    assert_eq!((&seen.certificate, seen.protocol.as_deref()), (two.certificate.der(), Some(HTTP_2)));
    assert_eq!(seen.version, ProtocolVersion::TLSv1_3);
    let old = client(&[&one], &[HTTP_1], &[&TLS12]);
    let seen = handshake(&server, &old, "one.test").await.unwrap();
    assert_eq!((&seen.certificate, seen.protocol.as_deref()), (one.certificate.der(), Some(HTTP_1)));
    assert_eq!(seen.version, ProtocolVersion::TLSv1_2);
    let silent = client(&[&one], &[], &[&TLS13]);
    assert_eq!(handshake(&server, &silent, "one.test").await.unwrap().protocol, None);
    let strange = client(&[&one], &[b"spdy/1"], &[&TLS13]);
    assert!(handshake(&server, &strange, "one.test").await.is_err());
}

#[tokio::test]
async fn a_reload_is_seen_by_new_handshakes_of_the_same_settings_and_sessions_go_on() {
    let folder = Folder::new();
    let (old, new) = (make(&["one.test"]), make(&["one.test"]));
    let files = folder.put("one", &old);
    let certificates = Arc::new(Certificates::load(given(&[files])).unwrap());
    let server = server_config(certificates.clone(), &[HTTP_1]).unwrap();
    for versions in [&[&TLS13], &[&TLS12]] {
        let returning = client(&[&old], &[HTTP_1], versions);
        assert_eq!(handshake(&server, &returning, "one.test").await.unwrap().kind, HandshakeKind::Full);
        assert_eq!(handshake(&server, &returning, "one.test").await.unwrap().kind, HandshakeKind::Resumed);
    }
    folder.put("one", &new);
    assert_eq!(certificates.reload().unwrap(), 1);
    let seen = handshake(&server, &client(&[&new], &[HTTP_1], &[&TLS13]), "one.test").await.unwrap();
    assert_eq!(&seen.certificate, new.certificate.der());
}
