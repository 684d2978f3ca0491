//! Heads: where one ends, what it says, and how long the body after it is.

use crate::fields::{Fields, Name};
use memchr::memchr_iter;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The most header fields that a message may have: browsers send some twenty.
pub(crate) const FIELD_COUNT_LIMIT: usize = 128;
/// The largest head of a node's answer in bytes: applications that set many cookies stay far below it.
pub(crate) const ANSWER_HEAD_LIMIT: usize = 256 * 1024;
/// How many members `Connection` may have: each is compared with each field.
const CONNECTION_MEMBER_LIMIT: usize = 32;
/// So many digits a length may have: what has more is larger than any file.
const LENGTH_DIGITS: usize = 18;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line that ends without a carriage return, or one that does not end there.
    LineEnding,
    /// The request's or status line, or a field, is not what the grammar says.
    Malformed(&'static str),
    /// A version that is not 1.0 or 1.1.
    Version,
    /// It says in more than one way how long it is, or in a way that cannot be trusted.
    Framing(&'static str),
    /// The request's target is longer than it may be.
    TargetTooLong,
    /// More bytes, or more fields, than a head may have.
    TooLarge,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::LineEnding => "a line does not end with CR LF",
            Fault::Malformed(what) | Fault::Framing(what) => what,
            Fault::Version => "neither HTTP/1.1 nor HTTP/1.0",
            Fault::TargetTooLong => "the target is too long",
            Fault::TooLarge => "the head or the trailers are too large",
        })
    }
}

/// Looks for the end of a head in what has come so far, each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EndOfHead {
    seen: usize,
}

impl EndOfHead {
    /// Nothing was looked at yet.
    pub(crate) fn is_at_the_beginning(self) -> bool {
        self.seen == 0
    }

    /// How long the head is, its empty line included.
    ///
    /// # Errors
    /// A line that ends with a line feed alone (RFC 9112, section 2.2, lets a recipient accept it; others do not, and so what is a line for one is none for another).
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        for at in memchr_iter(b'\n', &bytes[self.seen..]).map(|at| at + self.seen) {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(Fault::LineEnding);
            }
            if bytes[..=at].ends_with(b"\r\n\r\n") {
                return Ok(Some(at + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// The first line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Range<usize>,
    pub(crate) target: Range<usize>,
    /// The version is 1.`minor`.
    pub(crate) minor: u8,
}

/// The first line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusLine {
    pub(crate) status: u16,
    /// The version is 1.`minor`.
    pub(crate) minor: u8,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The end of the connection is the body's.
    UntilClose,
}

type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; FIELD_COUNT_LIMIT];

/// Reads a request's whole head.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_request(head: &[u8], fields: &mut Fields) -> Result<RequestLine, Fault> {
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; FIELD_COUNT_LIMIT];
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, head, &mut slots);
    check(parsed, head.len())?;
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Fault::Malformed("the request line is not whole"));
    };
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Fault::Malformed("the target has a character that must be encoded"));
    }
    take_fields(request.headers, fields)?;
    Ok(RequestLine { method: place(head, method.as_bytes()), target: place(head, target.as_bytes()), minor })
}

/// Reads an answer's whole head: its first line, and the reason in it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_answer<'h>(head: &'h [u8], fields: &mut Fields) -> Result<(StatusLine, &'h str), Fault> {
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; FIELD_COUNT_LIMIT];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, head, &mut slots);
    check(parsed, head.len())?;
    let (Some(status), Some(minor)) = (answer.code, answer.version) else {
        return Err(Fault::Malformed("the status line is not whole"));
    };
    if !(100..1000).contains(&status) {
        return Err(Fault::Malformed("the status is below 100"));
    }
    take_fields(answer.headers, fields)?;
    Ok((StatusLine { status, minor }, answer.reason.unwrap_or_default()))
}

/// Reads the fields after the last chunk.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse_trailers(section: &[u8], fields: &mut Fields) -> Result<(), Fault> {
    let mut slots = [httparse::EMPTY_HEADER; FIELD_COUNT_LIMIT];
    match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((length, parsed))) if length == section.len() => take_fields(parsed, fields),
        Ok(_) => Err(Fault::Malformed("the trailers are not whole")),
        Err(error) => Err(fault(error)),
    }
}

fn check(parsed: httparse::Result<usize>, length: usize) -> Result<(), Fault> {
    match parsed {
        Ok(httparse::Status::Complete(parsed)) if parsed == length => Ok(()),
        Ok(_) => Err(Fault::LineEnding),
        Err(error) => Err(fault(error)),
    }
}

fn fault(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::HeaderName => Fault::Malformed("a header's name has a character that no name has"),
        httparse::Error::HeaderValue => Fault::Malformed("a header's value has a character that no value has"),
        httparse::Error::NewLine => Fault::LineEnding,
        httparse::Error::Status => Fault::Malformed("the status line is malformed"),
        httparse::Error::Token => Fault::Malformed("the first line is malformed"),
        httparse::Error::TooManyHeaders => Fault::TooLarge,
        httparse::Error::Version => Fault::Version,
    }
}

fn take_fields(parsed: &[httparse::Header<'_>], fields: &mut Fields) -> Result<(), Fault> {
    fields.clear();
    let is_connection = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("connection");
    let members = parsed.iter().filter(is_connection).map(|header| memchr_iter(b',', header.value).count() + 1).sum::<usize>();
    if members > CONNECTION_MEMBER_LIMIT {
        return Err(Fault::TooLarge);
    }
    for header in parsed {
        // A carriage return alone is a line's end for some.
        if header.value.contains(&b'\r') {
            return Err(Fault::LineEnding);
        }
        fields.push(header.name.as_bytes(), header.value.trim_ascii());
    }
    Ok(())
}

/// Where a part of the head stands in it.
fn place(head: &[u8], part: &[u8]) -> Range<usize> {
    let begin = part.as_ptr().addr() - head.as_ptr().addr();
    begin..begin + part.len()
}

/// How a request's body ends (RFC 9112, section 6.3).
///
/// # Errors
/// When it says so in two ways, in one that differs between programs, or in one that its version does not know.
pub(crate) fn request_framing(fields: &Fields, minor: u8) -> Result<Framing, Fault> {
    if fields.has(Name::TransferEncoding) {
        check_chunked(fields, minor)?;
        return Ok(Framing::Chunked);
    }
    Ok(match length(fields)? {
        None | Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
    })
}

/// How an answer's body ends (RFC 9112, section 6.3).
///
/// # Errors
/// As [`request_framing`].
pub(crate) fn answer_framing(fields: &Fields, line: StatusLine, is_head: bool) -> Result<Framing, Fault> {
    if is_head || line.status < 200 || matches!(line.status, 204 | 304) {
        length(fields)?;
        return Ok(Framing::Empty);
    }
    if fields.has(Name::TransferEncoding) {
        check_chunked(fields, line.minor)?;
        return Ok(Framing::Chunked);
    }
    Ok(match length(fields)? {
        None => Framing::UntilClose,
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
    })
}

fn check_chunked(fields: &Fields, minor: u8) -> Result<(), Fault> {
    if fields.has(Name::ContentLength) {
        return Err(Fault::Framing("both Content-Length and Transfer-Encoding"));
    }
    if minor == 0 {
        return Err(Fault::Framing("Transfer-Encoding in HTTP/1.0"));
    }
    let mut values = fields.all(Name::TransferEncoding);
    match (values.next(), values.next()) {
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Fault::Framing("a Transfer-Encoding other than chunked")),
    }
}

/// The length that the fields tell.
///
/// # Errors
/// When they tell several, or no number.
pub(crate) fn length(fields: &Fields) -> Result<Option<u64>, Fault> {
    let mut values = fields.all(Name::ContentLength);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::Framing("more than one Content-Length"));
    }
    let is_number = !value.is_empty() && value.len() <= LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
    if !is_number {
        return Err(Fault::Framing("a Content-Length that is no number"));
    }
    Ok(Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<(RequestLine, Framing), Fault> {
        let mut fields = Fields::default();
        let line = parse_request(head.as_bytes(), &mut fields)?;
        let framing = request_framing(&fields, line.minor)?;
        Ok((line, framing))
    }

    #[test]
    fn the_end_is_found_wherever_the_head_is_torn() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for torn in 0..head.len() {
            let mut end = EndOfHead::default();
            assert_eq!(end.find(&head[..torn]), Ok(None), "{torn}");
            assert_eq!(end.find(&[head, b"rest".as_slice()].concat()), Ok(Some(head.len())), "{torn}");
        }
        for bad in [b"GET / HTTP/1.1\n".as_slice(), b"\nGET", b"GET / HTTP/1.1\r\nHost: a\n\r\n"] {
            assert_eq!(EndOfHead::default().find(bad), Err(Fault::LineEnding));
        }
    }

    #[test]
    fn a_request_is_read_and_its_framing_with_it() {
        let (line, framing) = request("POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!((line, framing), (RequestLine { method: 0..4, target: 5..9, minor: 1 }, Framing::Length(12)));
        assert_eq!(request("GET / HTTP/1.0\r\n\r\n").unwrap().1, Framing::Empty);
        assert_eq!(request("PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap().1, Framing::Chunked);
    }

    #[test]
    fn an_answers_framing_depends_on_its_status_and_the_method() {
        let framing = |head: &str, is_head| {
            let mut fields = Fields::default();
            let (line, _) = parse_answer(head.as_bytes(), &mut fields).unwrap();
            answer_framing(&fields, line, is_head)
        };
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Ok(Framing::Empty));
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", false), Ok(Framing::UntilClose));
        assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false), Ok(Framing::Empty));
        assert!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false).is_err());
    }

    #[test]
    fn trailers_are_fields_with_an_empty_line_after_them() {
        let mut fields = Fields::default();
        parse_trailers(b"Digest: x\r\nB:\r\n\r\n", &mut fields).unwrap();
        assert_eq!(fields.iter().map(|field| field.value).collect::<Vec<_>>(), [b"x".as_slice(), b""]);
        assert!(parse_trailers(b"Digest x\r\n\r\n", &mut fields).is_err());
    }
}
