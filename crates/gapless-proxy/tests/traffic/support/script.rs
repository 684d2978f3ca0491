//! A node that says what a test wants it to say, byte by byte, and keeps what it heard.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What follows on what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next request on the connection.
    Stays,
    Closes,
    Resets,
    /// The same again, as long as somebody reads it.
    Repeats,
}

#[derive(Clone)]
struct Script {
    bytes: Arc<Vec<u8>>,
    then: Then,
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<HashMap<String, Script>>,
    heard: Mutex<Vec<String>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicU64,
    dead: AtomicBool,
}

pub struct Scripted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Scripted {
    /// Checks pass, and whoever asks for what has no script is told the target that it asked for.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for a node");
        let address = listener.local_addr().expect("the node's address");
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if inside.dead.load(Ordering::SeqCst) {
                    return;
                }
                let inside = inside.clone();
                // How a connection ends is in the script, or the other side's affair.
                thread::spawn(move || drop(inside.serve(stream)));
            }
        });
        Self { address, shared }
    }

    /// Whoever asks for this target is told this.
    pub fn script(&self, target: &str, bytes: impl Into<Vec<u8>>, then: Then) {
        self.shared.scripts.lock().unwrap().insert(target.to_string(), Script { bytes: Arc::new(bytes.into()), then });
    }

    /// Every request as it came, checks apart.
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// How many connections had a request that was no check.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Says something on every connection that had a request, unasked.
    pub fn say_unasked(&self, bytes: &[u8]) {
        self.shared.streams.lock().unwrap().retain_mut(|stream| stream.write_all(bytes).is_ok());
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.dead.store(true, Ordering::SeqCst);
        // Wakes the listener, which then closes.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut is_first = true;
        loop {
            let request = read_request(&mut stream)?;
            let target = request.split(' ').nth(1).unwrap_or_default().to_string();
            if target == "/healthz" {
                return stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
            self.heard.lock().unwrap().push(request);
            if std::mem::take(&mut is_first) {
                self.connections.fetch_add(1, Ordering::SeqCst);
                self.streams.lock().unwrap().push(stream.get_ref().try_clone()?);
            }
            let scripted = self.scripts.lock().unwrap().get(&target).cloned();
            let Some(Script { bytes, then }) = scripted else {
                write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len())?;
                continue;
            };
            stream.get_mut().write_all(&bytes)?;
            match then {
                Then::Stays => {}
                Then::Closes => return stream.get_mut().shutdown(Shutdown::Both),
                Then::Resets => {
                    // The other clone keeps the socket open.
                    self.streams.lock().unwrap().clear();
                    return socket2::SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
                }
                Then::Repeats => loop {
                    stream.get_mut().write_all(&bytes)?;
                },
            }
        }
    }
}

/// A request with its body, as it came.
fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut raw = Vec::new();
    read_until(stream, &mut raw, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        read_until(stream, &mut raw, b"\r\n0\r\n")?;
        read_until(stream, &mut raw, b"\r\n\r\n")?;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_end(&mut raw)?;
    Ok(String::from_utf8_lossy(&raw).into_owned())
}

fn read_until(stream: &mut BufReader<TcpStream>, raw: &mut Vec<u8>, end: &[u8]) -> io::Result<()> {
    while stream.read_until(b'\n', raw)? > 0 {
        if raw.ends_with(end) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
