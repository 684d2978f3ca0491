//! A node: an HTTP/1.1 server on threads whose paths do what a test needs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What tests look at and turn.
#[derive(Default)]
pub struct Inside {
    pub name: String,
    /// The status of `/healthz`.
    pub health: AtomicU16,
    /// Requests whose head was read, checks apart.
    pub begun: AtomicU64,
    /// The same by target.
    asked: Mutex<HashMap<String, u64>>,
    /// Requests whose answer was written whole, or that were broken off on purpose.
    pub ended: AtomicU64,
    /// Requests whose client went away.
    pub broken: AtomicU64,
    /// Milliseconds after which a connection is closed that waits for another request than its first; 0: never.
    pub idle_ms: AtomicU64,
    /// Every request but checks is read and its connection closed.
    pub breaks: AtomicBool,
    /// Every request but checks and the first one of a connection is read and its connection closed.
    pub breaks_kept: AtomicBool,
    /// Milliseconds that every answer takes longer.
    pub delay_ms: AtomicU64,
    /// Bytes read of uploads.
    pub uploaded: AtomicU64,
    /// Connections accepted, checks included.
    pub connections: AtomicU64,
    /// Checks whose head was read.
    pub checks: AtomicU64,
    /// Milliseconds after which a check is answered.
    pub check_ms: AtomicU64,
    /// Checks that were answered; counted before the answer is written, so that whoever has read it finds it counted.
    pub checks_answered: AtomicU64,
    dead: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

pub struct Node {
    pub address: SocketAddr,
    pub inside: Arc<Inside>,
}

impl Node {
    pub fn start(name: &str) -> Self {
        Self::start_at(name, ([127, 0, 0, 1], 0).into())
    }

    pub fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port for a node");
        let address = listener.local_addr().expect("the node's address");
        let inside = Arc::new(Inside { name: name.to_string(), health: AtomicU16::new(200), ..Inside::default() });
        let shared = inside.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.dead.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let inside = shared.clone();
                thread::spawn(move || inside.serve(stream));
            }
        });
        Self { address, inside }
    }

    pub fn begun(&self) -> u64 {
        self.inside.begun.load(Ordering::SeqCst)
    }

    /// How many requests for this target, its query included, have begun.
    pub fn asked(&self, target: &str) -> u64 {
        self.inside.asked.lock().unwrap().get(target).copied().unwrap_or(0)
    }

    /// As by SIGKILL: the port refuses, every connection is reset.
    pub fn kill(&self) {
        self.inside.dead.store(true, Ordering::SeqCst);
        // Wakes the listener, which then closes.
        let _ = TcpStream::connect(self.address);
        for stream in self.inside.streams.lock().unwrap().drain(..) {
            reset(&stream);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn reset(stream: &TcpStream) {
    // Data that was not read lets the close be a reset; a plain shutdown is enough for these tests otherwise.
    let _ = stream.shutdown(Shutdown::Both);
}

struct Head {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: Vec<(String, String)>,
    raw: String,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> u64 {
        self.query.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut raw = String::new();
    while !raw.ends_with("\r\n\r\n") {
        if stream.read_line(&mut raw).ok()? == 0 {
            return None;
        }
    }
    let mut lines = raw.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_string(), first.next()?.to_string());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Some(Head { method, path: path.to_string(), query, headers, raw: raw.clone() })
}

impl Inside {
    fn serve(self: Arc<Self>, stream: TcpStream) {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        if let Ok(clone) = stream.try_clone() {
            let mut streams = self.streams.lock().unwrap();
            if self.dead.load(Ordering::SeqCst) {
                reset(&stream);
                return;
            }
            streams.push(clone);
        }
        let mut stream = BufReader::new(stream);
        let mut is_kept = false;
        loop {
            let idle = if is_kept { self.idle_ms.load(Ordering::SeqCst) } else { 0 };
            stream.get_mut().set_read_timeout((idle > 0).then(|| Duration::from_millis(idle))).expect("a read timeout");
            if stream.fill_buf().map_or(true, <[u8]>::is_empty) {
                break;
            }
            stream.get_mut().set_read_timeout(None).expect("no read timeout");
            let Some(head) = read_head(&mut stream) else { break };
            if head.path == "/healthz" {
                self.checks.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(self.check_ms.load(Ordering::SeqCst)));
                let status = self.health.load(Ordering::SeqCst);
                self.checks_answered.fetch_add(1, Ordering::SeqCst);
                let _ = write!(stream.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                break;
            }
            self.begun.fetch_add(1, Ordering::SeqCst);
            let target = head.raw.split(' ').nth(1).unwrap_or_default().to_string();
            *self.asked.lock().unwrap().entry(target).or_default() += 1;
            if self.breaks.load(Ordering::SeqCst) || (is_kept && self.breaks_kept.load(Ordering::SeqCst)) {
                break;
            }
            is_kept = true;
            thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
            let goes_on = self.answer(&mut stream, &head);
            match goes_on {
                Some(true) => drop(self.ended.fetch_add(1, Ordering::SeqCst)),
                Some(false) => {
                    self.ended.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                None => {
                    self.broken.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
        }
        let _ = stream.get_mut().shutdown(Shutdown::Both);
    }

    /// `Some(true)`: the connection goes on; `None`: the other side went away.
    fn answer(&self, stream: &mut BufReader<TcpStream>, head: &Head) -> Option<bool> {
        let length: u64 = head.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let name = self.name.clone();
        match head.path.as_str() {
            "/upload" => {
                let (bytes, sum) = self.read_upload(stream, head, length)?;
                return say(stream, 200, &format!("{name} {bytes} {sum}"));
            }
            "/close" => {
                drain_body(stream, length)?;
                return Some(false);
            }
            "/close-unread" => return Some(false),
            _ => drain_body(stream, length)?,
        }
        match head.path.as_str() {
            "/slow" => {
                thread::sleep(Duration::from_millis(head.number("ms")));
                say(stream, 200, &name)
            }
            "/status" => say(stream, u16::try_from(head.number("code")).unwrap_or(500), &name),
            "/head" => say(stream, 200, &head.raw),
            "/bytes" => say_bytes(stream, &vec![b'x'; usize::try_from(head.number("n")).unwrap_or(0)], head.method == "HEAD"),
            "/stream" => self.stream_chunks(stream, head.number("n"), head.number("ms"), true),
            "/truncated-chunks" => self.stream_chunks(stream, head.number("n"), 0, false),
            "/truncated-length" => {
                let bytes = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".as_slice(), &[b'x'; 10]].concat();
                stream.get_mut().write_all(&bytes).ok()?;
                Some(false)
            }
            "/until-close" => {
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end").ok()?;
                Some(false)
            }
            "/garbage" => {
                stream.get_mut().write_all(b"SMTP ready\r\n\r\n").ok()?;
                Some(false)
            }
            "/echo" => echo(stream),
            _ if head.method == "HEAD" => say_bytes(stream, name.as_bytes(), true),
            _ => say(stream, 200, &name),
        }
    }

    fn read_upload(&self, stream: &mut BufReader<TcpStream>, head: &Head, length: u64) -> Option<(u64, u64)> {
        let (mut bytes, mut sum) = (0, 0);
        let mut take = |stream: &mut BufReader<TcpStream>, mut left: u64| -> Option<()> {
            let mut buffer = [0; 16 * 1024];
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let read = stream.read(&mut buffer[..part]).ok().filter(|read| *read > 0)?;
                left -= read as u64;
                bytes += read as u64;
                sum = buffer[..read].iter().fold(sum, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                self.uploaded.fetch_add(read as u64, Ordering::SeqCst);
            }
            Some(())
        };
        if head.header("transfer-encoding").is_none() {
            take(stream, length)?;
            return Some((bytes, sum));
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let length = u64::from_str_radix(line.trim_end(), 16).ok()?;
            take(stream, length)?;
            let mut end = String::new();
            stream.read_line(&mut end).ok()?;
            if length == 0 {
                return Some((bytes, sum));
            }
        }
    }

    fn stream_chunks(&self, stream: &mut BufReader<TcpStream>, count: u64, pause_ms: u64, whole: bool) -> Option<bool> {
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
        for _ in 0..count {
            stream.get_mut().write_all(b"A\r\n0123456789\r\n").ok()?;
            thread::sleep(Duration::from_millis(pause_ms));
        }
        if !whole {
            return Some(false);
        }
        stream.get_mut().write_all(b"0\r\n\r\n").ok()?;
        Some(true)
    }
}

/// The checksum that `/upload` answers with.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn drain_body(stream: &mut BufReader<TcpStream>, length: u64) -> Option<()> {
    let read = std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?;
    (read == length).then_some(())
}

fn say(stream: &mut BufReader<TcpStream>, status: u16, text: &str) -> Option<bool> {
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    stream.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(true)
}

fn say_bytes(stream: &mut BufReader<TcpStream>, bytes: &[u8], head_only: bool) -> Option<bool> {
    write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).ok()?;
    if !head_only {
        stream.get_mut().write_all(bytes).ok()?;
    }
    Some(true)
}

fn echo(stream: &mut BufReader<TcpStream>) -> Option<bool> {
    stream.get_mut().write_all(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").ok()?;
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).ok()?;
        if read == 0 {
            return Some(false);
        }
        stream.get_mut().write_all(&buffer[..read]).ok()?;
    }
}
