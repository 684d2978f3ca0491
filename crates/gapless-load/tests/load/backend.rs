//! A backend on a raw listener that answers as a test tells it to, down to the single byte.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as the backend read it.
pub struct Request {
    /// Its number at this backend, from 0.
    pub number: u64,
    /// Number of the connection it came on, from 0.
    pub connection: u64,
    pub path: String,
    pub one_shot: bool,
    pub body: Vec<u8>,
}

/// What the backend does for one request.
pub enum Answer {
    /// Sends these bytes and goes on.
    Keep(Vec<u8>),
    /// Sends these bytes and closes in order.
    Close(Vec<u8>),
    /// Sends these bytes and resets the connection.
    Reset(Vec<u8>),
    /// Waits, then does something else.
    Later(Duration, Box<Answer>),
    /// Never answers.
    Hang,
}

pub struct Backend {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    acceptor: JoinHandle<()>,
}

impl Backend {
    /// Starts a backend that does what `decide` says.
    pub async fn start(decide: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let decide: Decide = Arc::new(decide);
        let (counted, opened) = (Arc::clone(&requests), Arc::clone(&connections));
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, connection, Arc::clone(&decide), Arc::clone(&counted)));
            }
        });
        Self { address, requests, connections, acceptor }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

type Decide = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

async fn serve(stream: TcpStream, connection: u64, decide: Decide, counted: Arc<AtomicU64>) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream, connection).await {
        request.number = counted.fetch_add(1, Ordering::SeqCst);
        if !act(decide(&request), stream.get_mut()).await {
            return;
        }
    }
}

/// Does what the answer says; whether the connection goes on.
fn act(answer: Answer, stream: &mut TcpStream) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
    Box::pin(async move {
        match answer {
            Answer::Keep(bytes) => stream.write_all(&bytes).await.is_ok(),
            Answer::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                false
            }
            Answer::Reset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
                false
            }
            Answer::Later(wait, answer) => {
                tokio::time::sleep(wait).await;
                act(*answer, stream).await
            }
            Answer::Hang => std::future::pending().await,
        }
    })
}

async fn read_request(stream: &mut BufReader<TcpStream>, connection: u64) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        number: 0,
        connection,
        path: lines[0].split(' ').nth(1).expect("a path").to_owned(),
        one_shot: lines.iter().any(|line| line == "Connection: close"),
        body,
    })
}

/// A good response of this status and content.
pub fn response(status: u16, content: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n\r\n", content.len());
    [head.as_bytes(), content].concat()
}

/// Content whose first line is the digest of the rest.
pub fn self_digested(rest: &[u8]) -> Vec<u8> {
    [hex(rest).as_bytes(), b"\n", rest].concat()
}

pub fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
