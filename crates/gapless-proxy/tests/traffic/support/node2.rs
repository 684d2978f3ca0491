//! A node that speaks HTTP/2 without TLS, and HTTP/1.1 to its checks.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

pub struct Node2 {
    pub address: SocketAddr,
    pub connections: Arc<AtomicU64>,
    /// A connection takes no more requests after so many; 0: it does for ever.
    pub goodbye_after: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl Node2 {
    pub fn start(name: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, goodbye_after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, goodbye) = (connections.clone(), goodbye_after.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(name, stream, goodbye.clone()));
            }
        });
        Self { address, connections, goodbye_after, _runtime: runtime }
    }
}

async fn serve(name: &'static str, mut stream: TcpStream, goodbye: Arc<AtomicU64>) {
    let mut begin = [0; 4];
    if stream.peek(&mut begin).await.is_ok() && begin.starts_with(b"GET ") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        return;
    }
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut taken = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        taken += 1;
        if taken == goodbye.load(Ordering::SeqCst) {
            connection.graceful_shutdown();
        }
        tokio::spawn(async move { answer(name, request, respond).await });
    }
}

async fn answer(name: &str, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<()> {
    let (head, mut incoming) = request.into_parts();
    let query: HashMap<&str, &str> = head.uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')).collect();
    let number = |key: &str| query.get(key).and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(chunk.len());
        body.extend_from_slice(&chunk);
    }
    let trailers = incoming.trailers().await.ok().flatten().unwrap_or_default();
    let text = |headers: &HeaderMap, name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_string();
    let mut last = None;
    let answer = match head.uri.path() {
        "/upload" => format!("{name} {}", body.len()).into_bytes(),
        "/bytes" => vec![b'x'; number("n")],
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number("ms") as u64)).await;
            name.as_bytes().to_vec()
        }
        "/grpc" => {
            last = Some(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]));
            format!("{} te={} x-sum={}", String::from_utf8_lossy(&body), text(&head.headers, "te"), text(&trailers, "x-sum")).into_bytes()
        }
        _ => name.as_bytes().to_vec(),
    };
    let mut stream = respond.send_response(Response::new(()), false).ok()?;
    send(&mut stream, &answer, last.is_none()).await?;
    if let Some(trailers) = last {
        stream.send_trailers(trailers).ok()?;
    }
    Some(())
}

async fn send(stream: &mut SendStream<Bytes>, mut bytes: &[u8], is_end: bool) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        bytes = later;
        stream.send_data(Bytes::copy_from_slice(now), is_end && bytes.is_empty()).ok()?;
    }
    Some(())
}
