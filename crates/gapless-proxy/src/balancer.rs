//! The PROXY protocol, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`): what a balancer before the proxy says about its client.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1 in bytes, its line ending included (section 2.1).
const LINE_LIMIT: usize = 107;
/// The longest part behind the first 16 bytes of version 2 that is taken, in bytes: addresses take 216, and additions rarely as much again.
const REST_LIMIT: usize = 4096;

/// Whom a balancer speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// A client at this address.
    For(IpAddr),
    /// Itself, such as to see whether anybody is there.
    Itself,
}

/// Reads what a balancer says, and not a byte more.
///
/// # Errors
/// When it is not of the protocol.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Spoken> {
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { read_binary(stream).await } else { read_line(stream, &begin).await }
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "no line of the PROXY protocol")
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), begin: &[u8]) -> io::Result<Spoken> {
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_LIMIT || !b"PROXY ".starts_with(&line[..line.len().min(6)]) {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| malformed())?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err(malformed());
    }
    let family = words.next();
    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
    match (family, address) {
        (Some("TCP4"), Some(address @ IpAddr::V4(_))) | (Some("TCP6"), Some(address @ IpAddr::V6(_))) if words.clone().count() == 3 => {
            Ok(Spoken::For(address))
        }
        (Some("UNKNOWN"), _) => Ok(Spoken::Itself),
        _ => Err(malformed()),
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Spoken> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version_and_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_LIMIT {
        return Err(malformed());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (version_and_command, family >> 4) {
        (0x20, _) | (0x21, 0 | 3) => Ok(Spoken::Itself),
        (0x21, 1) => {
            let bytes: [u8; 4] = rest.get(..4).filter(|_| length >= 12).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
            Ok(Spoken::For(IpAddr::V4(Ipv4Addr::from(bytes))))
        }
        (0x21, 2) => {
            let bytes: [u8; 16] = rest.get(..16).filter(|_| length >= 36).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
            Ok(Spoken::For(IpAddr::V6(Ipv6Addr::from(bytes))))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Option<(Spoken, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut rest = bytes;
        runtime.block_on(read(&mut rest)).ok().map(|spoken| (spoken, rest.len()))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest, b"GET"].concat()
    }

    #[test]
    fn both_versions_tell_the_client_and_leave_the_rest() {
        let client = Spoken::For([10, 0, 0, 1].into());
        assert_eq!(said(b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\nGET"), Some((client, 3)));
        assert_eq!(said(b"PROXY TCP6 ::1 ::2 1 2\r\n"), Some((Spoken::For("::1".parse().unwrap()), 0)));
        assert_eq!(said(b"PROXY UNKNOWN\r\nGET"), Some((Spoken::Itself, 3)));
        assert_eq!(said(&binary(0x21, 0x11, &[10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 0, 80])), Some((client, 3)));
        assert_eq!(said(&binary(0x21, 0x11, &[10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 0, 80, 4, 0, 1, 9])), Some((client, 3)), "with an addition");
        assert_eq!(said(&binary(0x21, 0x21, &[0; 36])), Some((Spoken::For(Ipv6Addr::UNSPECIFIED.into()), 3)));
        assert_eq!(said(&binary(0x20, 0x00, b"")), Some((Spoken::Itself, 3)));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 4000\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP5 1 2 3 4\r\n",
            b"proxy UNKNOWN\r\n",
            b"PROXY TCP4 10.0.0.1",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x21, &[0; 35]),
            &binary(0x22, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(said(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
