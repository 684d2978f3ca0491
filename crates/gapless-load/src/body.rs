//! The body of a response: takes the framing off and says whether the whole arrived.

use crate::head::{Framing, FramingError, MAX_HEAD_BYTES, parse_field};

/// Longest line before a chunk, in bytes: 16 digits and what extensions are seen in the wild.
const MAX_CHUNK_LINE_BYTES: usize = 4096;

/// Takes a body apart as its bytes arrive.
#[derive(Debug)]
pub enum BodyDecoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Inside a chunked body.
    Chunked(Chunks),
    /// Until the connection ends.
    UntilClose,
}

/// Where a chunked body stands.
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    Done,
}

impl BodyDecoder {
    /// A decoder for a body framed like this.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body's end was seen.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == ChunkState::Done,
            Self::UntilClose => false,
        }
    }

    /// Whether the end of the connection, now, is the body's proper end.
    pub fn may_end_here(&self) -> bool {
        self.is_complete() || matches!(self, Self::UntilClose)
    }

    /// Hands the content in `input` to `sink`; how many bytes of `input` belonged to the body.
    pub fn feed(&mut self, input: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, FramingError> {
        match self {
            Self::Length(left) => {
                let content = prefix(input, *left);
                *left -= content.len() as u64;
                sink(content);
                Ok(content.len())
            }
            Self::Chunked(chunks) => chunks.feed(input, sink),
            Self::UntilClose => {
                sink(input);
                Ok(input.len())
            }
        }
    }
}

impl Chunks {
    fn feed(&mut self, input: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, FramingError> {
        let mut rest = input;
        while !rest.is_empty() && self.state != ChunkState::Done {
            rest = match self.state {
                ChunkState::Data(left) => {
                    let content = prefix(rest, left);
                    sink(content);
                    let left = left - content.len() as u64;
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    &rest[content.len()..]
                }
                _ => self.feed_line(rest)?,
            };
        }
        Ok(input.len() - rest.len())
    }

    /// Takes bytes until the end of a line, and acts on the line when it is whole.
    fn feed_line<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], FramingError> {
        let end = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
        self.line.extend_from_slice(&input[..end]);
        if self.line.len() > MAX_CHUNK_LINE_BYTES {
            return Err(FramingError("a chunk's line is too long"));
        }
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r\n").ok_or(FramingError("a chunk's line does not end in CRLF"))?;
            self.end_line(line)?;
        }
        Ok(&input[end..])
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        self.state = match self.state {
            ChunkState::Size => match parse_chunk_size(line)? {
                0 => ChunkState::Trailer,
                size => ChunkState::Data(size),
            },
            ChunkState::DataEnd if line.is_empty() => ChunkState::Size,
            ChunkState::DataEnd => return Err(FramingError("a chunk is longer than its size says")),
            ChunkState::Trailer if line.is_empty() => ChunkState::Done,
            _ => {
                parse_field(line)?;
                self.trailer_bytes += line.len();
                if self.trailer_bytes > MAX_HEAD_BYTES {
                    return Err(FramingError("the trailer is too long"));
                }
                ChunkState::Trailer
            }
        };
        Ok(())
    }
}

/// The size of `SIZE[;EXTENSION]`, in hexadecimal.
fn parse_chunk_size(line: &[u8]) -> Result<u64, FramingError> {
    let wrong = FramingError("a chunk size that is not a hexadecimal number");
    let (digits, extension) = match line.iter().position(|byte| *byte == b';') {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    let digits = if extension.is_empty() { digits } else { digits.trim_ascii_end() };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong);
    }
    if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(FramingError("a control character in a chunk extension"));
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong)?;
    u64::from_str_radix(digits, 16).map_err(|_| wrong)
}

fn prefix(input: &[u8], limit: u64) -> &[u8] {
    let length = usize::try_from(limit).unwrap_or(usize::MAX).min(input.len());
    &input[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, bytes used and completeness after feeding `input` in pieces of `step` bytes.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), FramingError> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut content, mut used) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            used += decoder.feed(piece, &mut |bytes| content.extend_from_slice(bytes))?;
            if decoder.is_complete() {
                break;
            }
        }
        Ok((content, used, decoder.is_complete()))
    }

    #[test]
    fn lengths_end_where_they_say() {
        for step in 1..9 {
            let (content, used, complete) = decode(Framing::Length(5), b"helloMORE", step).unwrap();
            assert_eq!((content.as_slice(), used, complete), (&b"hello"[..], 5, true));
        }
        assert!(!decode(Framing::Length(6), b"hello", 2).unwrap().2);
        assert!(BodyDecoder::new(Framing::Length(0)).is_complete());
    }

    #[test]
    fn chunks_are_put_together_however_they_are_cut() {
        let input = b"5\r\nhello\r\n6 ;name=\"v\"\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
        for step in 1..=input.len() {
            let (content, used, complete) = decode(Framing::Chunked, input, step).unwrap();
            assert_eq!((content.as_slice(), used, complete), (&b"hello world"[..], input.len(), true));
        }
        for cut in 0..input.len() {
            let (_, _, complete) = decode(Framing::Chunked, &input[..cut], 7).unwrap();
            assert!(!complete, "cut at {cut}");
        }
    }

    #[test]
    fn refuses_malformed_chunks() {
        let table: &[&[u8]] = &[
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n",
            b"5;a\x00b\r\n",
            b"11111111111111111\r\n",
            b"0\r\nno colon\r\n\r\n",
        ];
        for text in table {
            assert!(decode(Framing::Chunked, text, 3).is_err(), "{}", text.escape_ascii());
        }
        assert!(decode(Framing::Chunked, &vec![b'1'; MAX_CHUNK_LINE_BYTES + 1], 100).is_err());
    }

    #[test]
    fn only_a_close_delimited_body_may_end_with_its_connection() {
        assert!(BodyDecoder::new(Framing::UntilClose).may_end_here());
        assert!(!BodyDecoder::new(Framing::Length(1)).may_end_here());
        assert!(!BodyDecoder::new(Framing::Chunked).may_end_here());
    }
}
