//! As much HTTP/1.1 as the harness needs to ask and tell: one request on one connection, no keep-alive.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than any answer that is asked for here may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The only name that the admin interfaces of all peers take on any socket.
pub const HOST: &str = "127.0.0.1";

/// The status and the body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// As text.
    pub body: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// The request target.
    pub path: &'a str,
    /// Header lines beside `host`, `connection` and the body's length, each with its end of line.
    pub headers: &'a str,
    /// Sent as it is.
    pub body: &'a str,
}

/// GETs a path.
///
/// # Errors
/// When there is no whole answer.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    to_address(address, Request { method: "GET", path, headers: "", body: "" })
}

/// Asks an address.
///
/// # Errors
/// When there is no whole answer.
pub fn to_address(address: SocketAddr, request: Request) -> Result<Answer, String> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
    exchange(stream, request)
}

/// Asks on a Unix socket.
///
/// # Errors
/// When there is no whole answer, or it is a refusal.
pub fn to_socket(socket: &Path, request: Request) -> Result<Answer, String> {
    let context = |problem: String| format!("{} {} on {}: {problem}", request.method, request.path, socket.display());
    let stream = UnixStream::connect(socket).map_err(|error| context(error.to_string()))?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| context(error.to_string()))?;
    let answer = exchange(stream, request).map_err(context)?;
    match answer.status {
        200..300 => Ok(answer),
        status => Err(context(format!("refused ({status}): {}", answer.body))),
    }
}

/// Asks on a Unix socket, with a JSON body if there is one, and reads a JSON answer (`null` for an empty one).
///
/// # Errors
/// When there is no whole answer, or it is a refusal.
pub fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = to_socket(socket, Request { method, path, headers: "content-type: application/json\r\n", body: &body })?;
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&answer.body).map_err(|error| format!("{method} {path} on {}: the answer is no JSON: {error}", socket.display()))
}

fn exchange(mut stream: impl Read + Write, request: Request) -> Result<Answer, String> {
    let Request { method, path, headers, body } = request;
    let length = body.len();
    let text = format!("{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).map_err(|error| format!("sending: {error}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| format!("reading: {error}"))?;
    parse(&bytes).ok_or_else(|| format!("not a whole answer: {:?}", String::from_utf8_lossy(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.lines()
            .skip(1)
            .find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()))
    };
    let body = match (header("transfer-encoding"), header("content-length")) {
        (Some(_), _) => dechunked(body)?,
        (None, Some(length)) if length.parse::<usize>().ok()? != body.len() => return None,
        _ => body.to_vec(),
    };
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_both_framings() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an answer");
        assert_eq!((plain.status, plain.body.as_str()), (200, "ok"));
        let chunked =
            parse(b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n").expect("an answer");
        assert_eq!((chunked.status, chunked.body.as_str()), (409, "ok!"));
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").is_none());
    }
}
