//! A small HTTP/1.1 client on a plain socket. It never tries again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn node(&self) -> &str {
        self.header("x-gapless-node").unwrap_or("")
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection that is kept between requests, and opened when there is none.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Goes on with a connection that is open.
    pub fn of(address: SocketAddr, stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        Self { address, stream: Some(BufReader::new(stream)) }
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.request("POST", path, &[], body)
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: web.test\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat(), method == "HEAD")
    }

    /// Sends bytes as they are and reads one answer.
    pub fn raw(&mut self, bytes: &[u8], is_head: bool) -> io::Result<Answer> {
        let answered = self.exchange(bytes, is_head);
        match &answered {
            Ok(answer) if !answer.closes() => {}
            _ => self.stream = None,
        }
        answered
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream()?.get_mut().write_all(bytes)
    }

    pub fn receive(&mut self) -> io::Result<Answer> {
        read_answer(self.stream()?, false)
    }

    pub fn close(&mut self) {
        self.stream = None;
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    pub fn stream(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, DEADLINE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            self.stream = Some(BufReader::new(stream));
        }
        Ok(self.stream.as_mut().expect("just opened"))
    }

    fn exchange(&mut self, bytes: &[u8], is_head: bool) -> io::Result<Answer> {
        let stream = self.stream()?;
        stream.get_mut().write_all(bytes)?;
        read_answer(stream, is_head)
    }
}

pub fn read_answer(stream: &mut BufReader<TcpStream>, is_head: bool) -> io::Result<Answer> {
    loop {
        let (status, headers) = read_head(stream)?;
        if matches!(status, 100 | 102..200) {
            continue;
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if is_head || status == 204 || status == 304 || status == 101 {
            return Ok(answer);
        }
        answer.body = read_body(stream, &answer)?;
        return Ok(answer);
    }
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed inside the head, after `{line}`")));
    }
    Ok(line.trim_end().to_string())
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<(String, String)>)> {
    let status_line = read_line(stream)?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status line: {status_line}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        match line.split_once(": ") {
            Some((name, value)) => headers.push((name.to_string(), value.to_string())),
            None if line.is_empty() => return Ok((status, headers)),
            None => return Err(io::Error::other(format!("no header line: {line}"))),
        }
    }
}

fn read_body(stream: &mut BufReader<TcpStream>, answer: &Answer) -> io::Result<Vec<u8>> {
    if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return read_chunks(stream);
    }
    let mut body = Vec::new();
    match answer.header("content-length").and_then(|value| value.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_chunks(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let length = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16)
            .map_err(|error| io::Error::other(format!("chunk `{line}`: {error}")))?;
        if length == 0 {
            while !read_line(stream)?.is_empty() {}
            return Ok(body);
        }
        let begun = body.len();
        body.resize(begun + length, 0);
        stream.read_exact(&mut body[begun..])?;
        read_line(stream)?;
    }
}
