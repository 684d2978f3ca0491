//! https targets: the chain and the name are proved, and a stream cut without TLS's own end is not whole.

use std::path::Path;
use std::sync::Arc;

use gapless_load::{Check, ClassPlan, Recording};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::backend::response;
use crate::{causes, plan_of, run_plan};

/// Answers all requests of all connections with `answer`; after the first it cuts the TCP connection if told so.
async fn start_server(name: &str, answer: Vec<u8>, cut: bool, folder: &Path) -> std::net::SocketAddr {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join("authorities.pem"), cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(acceptor.clone(), stream, answer.clone(), cut));
        }
    });
    address
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, answer: Vec<u8>, cut: bool) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if cut {
            return;
        }
    }
}

async fn ask(asked: &str, proved: &str, answer: Vec<u8>, cut: bool) -> Recording {
    let folder = tempfile::tempdir().unwrap();
    let address = start_server(proved, answer, cut, folder.path()).await;
    let class = ClassPlan::get("small", 1000, "/", Check::Complete);
    let mut plan = plan_of(&format!("https://{asked}"), class, 20, 4);
    plan.target.address = Some(address);
    plan.target.authorities = Some(folder.path().join("authorities.pem"));
    run_plan(plan).await
}

#[tokio::test]
async fn a_proved_server_is_asked_over_kept_connections() {
    let recording = ask("web.example", "web.example", response(200, b"content"), false).await;
    assert_eq!((recording.report.requests, recording.report.failed), (4, 0));
}

#[tokio::test]
async fn another_name_is_a_tls_failure() {
    let recording = ask("other.example", "web.example", response(200, b"content"), false).await;
    assert_eq!(causes(&recording), [("tls", 4)]);
}

#[tokio::test]
async fn a_stream_cut_without_close_notify_is_truncated() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ncontent".to_vec();
    let recording = ask("web.example", "web.example", answer, true).await;
    assert_eq!(causes(&recording), [("truncated", 4)]);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_a_tls_failure() {
    let backend = crate::backend::Backend::start(|_| crate::backend::Answer::Close(b"HTTP/1.1 400 Bad\r\n\r\n".to_vec())).await;
    let class = ClassPlan::get("small", 1000, "/", Check::Complete);
    let mut plan = plan_of("https://web.example", class, 20, 1);
    plan.target.address = Some(backend.address);
    plan.deadline_ms = 500;
    assert_eq!(causes(&run_plan(plan).await), [("tls", 1)]);
}
