//! The head of a response: status line and header fields, read as strictly as RFC 9112 allows.

/// Longest head in bytes, interim heads counted apart: 64 KiB, several times what servers send.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most header fields of a head.
const MAX_FIELDS: usize = 200;
/// The response header with the release that answered.
const RELEASE_HEADER: &str = "x-gapless-release";
/// The response header with the node that answered.
const NODE_HEADER: &str = "x-gapless-node";

/// What is wrong with a response's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingError(pub &'static str);

/// What the witness needs of a response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// HTTP/1.0 instead of HTTP/1.1.
    pub old_version: bool,
    /// The status code, 100 to 599.
    pub status: u16,
    /// `Content-Length`, when there is one.
    pub content_length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub chunked: bool,
    /// `Connection` names `close`.
    pub close: bool,
    /// `x-gapless-release`.
    pub release: Option<String>,
    /// `x-gapless-node`.
    pub node: Option<String>,
}

/// A line without its end, and what follows it.
type LineAndRest<'a> = (&'a [u8], &'a [u8]);

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of length 0.
    Chunked,
    /// All until the connection ends.
    UntilClose,
}

impl Head {
    /// A head that announces another one (100, 102, 103).
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Whether the connection may carry another request after this response.
    pub fn keeps_connection(&self) -> bool {
        !self.close && !self.old_version
    }

    /// How the body's end will be known. A body that only the connection's end could bound is accepted
    /// if the response says that the connection ends: otherwise a cut body would pass for a whole one.
    pub fn framing(&self) -> Result<Framing, FramingError> {
        match (self.status, self.content_length) {
            (204, None | Some(0)) if !self.chunked => Ok(Framing::Length(0)),
            (204, _) => Err(FramingError("a 204 with a body")),
            (304, _) => Ok(Framing::Length(0)),
            _ if self.chunked => Ok(Framing::Chunked),
            (_, Some(length)) => Ok(Framing::Length(length)),
            _ if self.close || self.old_version => Ok(Framing::UntilClose),
            _ => Err(FramingError("neither a length nor chunks nor Connection: close")),
        }
    }
}

/// Reads a head from the start of `bytes`: the head and its length, or nothing if more bytes are needed.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, FramingError> {
    let Some((status_line, mut rest)) = take_line(bytes)? else { return Ok(None) };
    let mut head = parse_status_line(status_line)?;
    for _ in 0..=MAX_FIELDS {
        let Some((line, after)) = take_line(rest)? else { return Ok(None) };
        rest = after;
        if line.is_empty() {
            refuse_contradictions(&head)?;
            return Ok(Some((head, bytes.len() - rest.len())));
        }
        let (name, value) = parse_field(line)?;
        take_field(&mut head, name, value)?;
    }
    Err(FramingError("too many header fields"))
}

/// The bytes before the next CRLF and those after it; nothing if there is no whole line yet.
fn take_line(bytes: &[u8]) -> Result<Option<LineAndRest<'_>>, FramingError> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        None if bytes.len() > MAX_HEAD_BYTES => Err(FramingError("a line without end")),
        None => Ok(None),
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some((&bytes[..end - 1], &bytes[end + 1..]))),
        Some(_) => Err(FramingError("a line that does not end in CRLF")),
    }
}

fn parse_status_line(line: &[u8]) -> Result<Head, FramingError> {
    let (version, rest) = line.split_at_checked(9).ok_or(FramingError("a short status line"))?;
    let old_version = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err(FramingError("a status line without HTTP/1.1 or HTTP/1.0")),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(FramingError("a short status line"))?;
    if !code.iter().all(u8::is_ascii_digit) || !matches!(code[0], b'1'..=b'5') {
        return Err(FramingError("a status code that is not 100 to 599"));
    }
    match reason.split_first() {
        Some((b' ', text)) if text.iter().all(|byte| is_field_byte(*byte)) => {}
        _ => return Err(FramingError("a status code without a space and a reason after it")),
    }
    let status = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if status == 101 {
        return Err(FramingError("a switch of protocols that nobody asked for"));
    }
    Ok(Head { old_version, status, ..Head::default() })
}

/// Name and trimmed value of a header or trailer field.
pub fn parse_field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingError> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(FramingError("a header field without a colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) {
        return Err(FramingError("a header field's name that is not a token"));
    }
    if !value.iter().all(|byte| is_field_byte(*byte)) {
        return Err(FramingError("a control character in a header field"));
    }
    Ok((name, value))
}

fn take_field(head: &mut Head, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
    if name.eq_ignore_ascii_case(b"content-length") {
        let length = parse_length(value)?;
        if head.content_length.replace(length).is_some() {
            return Err(FramingError("two Content-Length fields"));
        }
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        if head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError("a Transfer-Encoding other than chunked"));
        }
        head.chunked = true;
    } else if name.eq_ignore_ascii_case(b"connection") {
        let options = value.split(|byte| *byte == b',');
        head.close |= options.into_iter().any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
    } else if name.eq_ignore_ascii_case(RELEASE_HEADER.as_bytes()) {
        head.release = Some(String::from_utf8_lossy(value).into_owned());
    } else if name.eq_ignore_ascii_case(NODE_HEADER.as_bytes()) {
        head.node = Some(String::from_utf8_lossy(value).into_owned());
    }
    Ok(())
}

fn parse_length(value: &[u8]) -> Result<u64, FramingError> {
    let wrong = FramingError("a Content-Length that is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(wrong)
}

fn refuse_contradictions(head: &Head) -> Result<(), FramingError> {
    if head.chunked && head.content_length.is_some() {
        return Err(FramingError("both Content-Length and Transfer-Encoding"));
    }
    if head.chunked && head.old_version {
        return Err(FramingError("chunks in HTTP/1.0"));
    }
    if head.is_interim() && (head.chunked || head.content_length.is_some()) {
        return Err(FramingError("an interim response with a body"));
    }
    Ok(())
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_good_head_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-gapless-release: web-r7\r\n\
            X-Gapless-Node:\tweb-r7-2 \r\nConnection: Keep-Alive, CLOSE\r\n\r\nhello";
        let end = text.len() - 5;
        for cut in 0..end {
            assert_eq!(parse_head(&text[..cut]), Ok(None), "cut at {cut}");
        }
        let (head, used) = parse_head(text).unwrap().unwrap();
        assert_eq!(used, end);
        assert_eq!(head.status, 200);
        assert_eq!(head.framing(), Ok(Framing::Length(5)));
        assert_eq!(head.release.as_deref(), Some("web-r7"));
        assert_eq!(head.node.as_deref(), Some("web-r7-2"));
        assert!(!head.keeps_connection());
    }

    #[test]
    fn refuses_malformed_heads() {
        let table: &[&[u8]] = &[
            b"\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 20\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 600 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 200 O\x00K\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: empty name\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : space before colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n continued\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\x7f\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        ];
        for text in table {
            assert!(parse_head(text).is_err(), "{}", text.escape_ascii());
        }
        let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(MAX_FIELDS + 1), b"\r\n".to_vec()];
        assert!(parse_head(&many.concat()).is_err());
        assert!(parse_head(&vec![b'H'; MAX_HEAD_BYTES + 1]).is_err());
    }

    #[test]
    fn knows_how_bodies_end() {
        let framing = |text: &str| parse_head(text.as_bytes()).unwrap().unwrap().0.framing();
        let table = [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok(Framing::Chunked)),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", Ok(Framing::UntilClose)),
            ("HTTP/1.0 200 OK\r\n\r\n", Ok(Framing::UntilClose)),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(Framing::Length(0))),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", Ok(Framing::Length(0))),
        ];
        for (text, expected) in table {
            assert_eq!(framing(text), expected, "{text}");
        }
        assert!(framing("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(framing("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n").is_err());
    }

    #[test]
    fn an_empty_reason_needs_its_space() {
        assert!(parse_head(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n").unwrap().is_some());
    }
}
