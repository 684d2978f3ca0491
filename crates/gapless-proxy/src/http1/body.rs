//! Bodies: what of the bytes that came is content, and where it ends.

use super::head::{EndOfHead, Fault, Framing, parse_trailers};
use crate::buffer::{BUFFER_SIZE, Buffers, Inlet};
use crate::fields::Fields;
use crate::stream::Stream;
use std::future::poll_fn;
use std::io;

/// The largest section of trailers in bytes.
const TRAILERS_LIMIT: usize = BUFFER_SIZE;
/// So many digits a chunk's size may have: 2^60 bytes in one chunk are more than anybody has.
const CHUNK_DIGITS: u8 = 15;
/// How long a chunk's extensions may be in bytes. They are read over: nobody uses them, and a limit keeps them from being a body that no limit counts.
const EXTENSIONS_LIMIT: usize = 256;
/// A body of at least so many bytes is worth a large buffer.
const WIDE_FROM: u64 = 2 * BUFFER_SIZE as u64;

/// Why a body came to no end.
#[derive(Debug)]
pub(crate) enum BodyFault {
    /// It ended too early, or could not be read.
    Broken(io::Error),
    /// It is not what its framing says.
    Malformed(Fault),
}

/// What can be taken from the bytes that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The first so many of them are content.
    Data(usize),
    /// None, before more have come.
    More,
    /// The body is over.
    End,
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunks(Chunk),
    UntilClose,
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// Inside the digits of its size.
    Size {
        digits: u8,
        size: u64,
    },
    /// Inside its extensions, so many bytes of them.
    Extensions {
        size: u64,
        length: usize,
    },
    /// Before the line feed after its size.
    SizeLine {
        size: u64,
    },
    Data(u64),
    /// Before the line ending after its data.
    DataReturn,
    DataLine,
    /// Behind the last one.
    Trailers(EndOfHead),
}

const FIRST: Chunk = Chunk::Size { digits: 0, size: 0 };

/// Takes a body from an inlet.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
    trailers: Option<Fields>,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Over,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunks(FIRST),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The fields after a chunked body that is over.
    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    /// Waits for the next piece: `Some` of so many bytes at the front of the inlet, or `None` at the end of the body.
    ///
    /// # Errors
    /// When it ends too early, or is not what its framing says.
    pub(crate) async fn next(&mut self, inlet: &mut Inlet, stream: &Stream, buffers: &Buffers) -> Result<Option<usize>, BodyFault> {
        loop {
            match self.piece(inlet).map_err(BodyFault::Malformed)? {
                Piece::Data(length) => return Ok(Some(length)),
                Piece::End => return Ok(None),
                Piece::More => {}
            }
            // Memory is taken when there is something to put into it.
            inlet.rest(buffers);
            poll_fn(|cx| stream.poll_readable(cx)).await.map_err(BodyFault::Broken)?;
            if self.is_wide() {
                inlet.widen(buffers);
            }
            let read = inlet.fill(stream, buffers).await.map_err(BodyFault::Broken)?;
            if read == 0 {
                self.end().map_err(BodyFault::Broken)?;
            }
        }
    }

    fn is_wide(&self) -> bool {
        match self.state {
            State::Length(left) | State::Chunks(Chunk::Data(left)) => left >= WIDE_FROM,
            _ => false,
        }
    }

    /// Looks at what has come. Framing is consumed; content is left to [`Self::consume`].
    ///
    /// # Errors
    /// When it is not what the framing says.
    pub(crate) fn piece(&mut self, inlet: &mut Inlet) -> Result<Piece, Fault> {
        loop {
            let length = inlet.data().len();
            match self.state {
                State::Over => return Ok(Piece::End),
                State::Length(0) => self.state = State::Over,
                State::Length(left) | State::Chunks(Chunk::Data(left)) if left > 0 => return Ok(some(length, left)),
                State::UntilClose => return Ok(some(length, u64::MAX)),
                State::Chunks(Chunk::Trailers(end)) => return self.take_trailers(inlet, end),
                State::Chunks(chunk) => {
                    let Some(byte) = inlet.data().first().copied() else { return Ok(Piece::More) };
                    self.state = State::Chunks(next_chunk(chunk, byte)?);
                    inlet.consume(1);
                }
                State::Length(_) => unreachable!("a length is 0 or more"),
            }
        }
    }

    /// Uses up so many bytes of content.
    pub(crate) fn consume(&mut self, inlet: &mut Inlet, count: usize) {
        inlet.consume(count);
        match &mut self.state {
            State::Length(left) => *left -= count as u64,
            State::Chunks(chunk @ Chunk::Data(_)) => {
                let Chunk::Data(left) = chunk else { return };
                *left -= count as u64;
                if *left == 0 {
                    *chunk = Chunk::DataReturn;
                }
            }
            _ => {}
        }
        if matches!(self.state, State::Length(0)) {
            self.state = State::Over;
        }
    }

    fn take_trailers(&mut self, inlet: &mut Inlet, mut end: EndOfHead) -> Result<Piece, Fault> {
        let bytes = inlet.data();
        if bytes.starts_with(b"\r\n") {
            inlet.consume(2);
            self.state = State::Over;
            return Ok(Piece::End);
        }
        match end.find(bytes)? {
            Some(length) if length <= TRAILERS_LIMIT => {
                let mut trailers = Fields::default();
                parse_trailers(&bytes[..length], &mut trailers)?;
                self.trailers = Some(trailers);
                inlet.consume(length);
                self.state = State::Over;
                Ok(Piece::End)
            }
            None if bytes.len() < TRAILERS_LIMIT => {
                // A lone carriage return is looked at again with what follows it.
                self.state = State::Chunks(Chunk::Trailers(if bytes.len() < 2 { EndOfHead::default() } else { end }));
                Ok(Piece::More)
            }
            _ => Err(Fault::TooLarge),
        }
    }

    /// The connection has ended.
    fn end(&mut self) -> io::Result<()> {
        match self.state {
            State::UntilClose => {
                self.state = State::Over;
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn some(length: usize, left: u64) -> Piece {
    match usize::try_from(left).unwrap_or(usize::MAX).min(length) {
        0 => Piece::More,
        count => Piece::Data(count),
    }
}

/// The state after one more byte of framing.
fn next_chunk(chunk: Chunk, byte: u8) -> Result<Chunk, Fault> {
    const SIZE: Fault = Fault::Framing("a chunk's size is no hexadecimal number");
    const ENDING: Fault = Fault::Framing("a chunk does not end where its size says");
    match (chunk, byte) {
        (Chunk::Size { digits: CHUNK_DIGITS, .. }, byte) if byte.is_ascii_hexdigit() => Err(SIZE),
        (Chunk::Size { digits, size }, byte) if byte.is_ascii_hexdigit() => {
            let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
            Ok(Chunk::Size { digits: digits + 1, size: size * 16 + digit })
        }
        (Chunk::Size { digits: 0, .. }, _) => Err(SIZE),
        (Chunk::Size { size, .. }, b';') => Ok(Chunk::Extensions { size, length: 0 }),
        (Chunk::Size { size, .. } | Chunk::Extensions { size, .. }, b'\r') => Ok(Chunk::SizeLine { size }),
        (Chunk::Extensions { length: EXTENSIONS_LIMIT, .. }, _) => Err(Fault::TooLarge),
        (Chunk::Extensions { size, length }, b'\t' | b' '..=b'~') => Ok(Chunk::Extensions { size, length: length + 1 }),
        (Chunk::SizeLine { size: 0 }, b'\n') => Ok(Chunk::Trailers(EndOfHead::default())),
        (Chunk::SizeLine { size }, b'\n') => Ok(Chunk::Data(size)),
        (Chunk::DataReturn, b'\r') => Ok(Chunk::DataLine),
        (Chunk::DataLine, b'\n') => Ok(FIRST),
        (Chunk::DataReturn | Chunk::DataLine, _) => Err(ENDING),
        _ => Err(SIZE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the bytes arrive in parts of this size.
    fn read(framing: Framing, bytes: &[u8], part: usize) -> Result<(Vec<u8>, usize, Option<Fields>), Fault> {
        let (mut reader, mut inlet) = (BodyReader::new(framing), Inlet::default());
        let (mut whole, mut rest) = (Vec::new(), bytes);
        loop {
            match reader.piece(&mut inlet)? {
                Piece::Data(count) => {
                    whole.extend_from_slice(&inlet.data()[..count]);
                    reader.consume(&mut inlet, count);
                }
                Piece::End => return Ok((whole, inlet.data().len() + rest.len(), reader.trailers)),
                Piece::More => {
                    assert!(!rest.is_empty(), "it waits for more than there is");
                    let (now, later) = rest.split_at(part.min(rest.len()));
                    inlet.push(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn chunks_are_read_wherever_they_are_torn() {
        let bytes = b"5\r\nhello\r\n00b;a=\"b\" ;c\r\n wide world\r\n0\r\nDigest: x\r\n\r\nnext";
        for part in 1..bytes.len() {
            let (whole, rest, trailers) = read(Framing::Chunked, bytes, part).unwrap();
            assert_eq!((whole.as_slice(), rest), (b"hello wide world".as_slice(), 4), "{part}");
            assert_eq!(trailers.unwrap().iter().next().unwrap().value, b"x");
        }
        for part in 1..5 {
            assert_eq!(read(Framing::Chunked, b"0\r\n\r\nnext", part).unwrap().1, 4);
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        assert_eq!(read(Framing::Length(3), b"abcdef", 2).unwrap(), (b"abc".to_vec(), 3, None));
    }

    #[test]
    fn chunks_that_two_programs_could_read_differently_are_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\nhello",
            "5\nhello",
            " 5\r\nhello",
            "5 \r\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\n",
            "1000000000000000\r\n",
            "5;\u{1}\r\nhello",
            "0\r\nA: b\n\r\n",
            "0\r\nA b\r\n\r\n",
            "5\rhello",
            "0\r\n A: b\r\n\r\n",
        ] {
            for part in [1, 100] {
                assert!(read(Framing::Chunked, bad.as_bytes(), part).is_err(), "{bad:?}");
            }
        }
        let extensions = format!("5;{}\r\nhello", "x".repeat(EXTENSIONS_LIMIT + 1));
        assert_eq!(read(Framing::Chunked, extensions.as_bytes(), 100).unwrap_err(), Fault::TooLarge);
        let trailers = format!("0\r\nA: {}\r\n\r\n", "x".repeat(TRAILERS_LIMIT));
        assert_eq!(read(Framing::Chunked, trailers.as_bytes(), 100).unwrap_err(), Fault::TooLarge);
    }
}
