//! What was read from a connection and is not used up. Memory is held only while there is something in it, or about to be: a connection that waits has none.

use crate::stream::Stream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

/// The size of a buffer in bytes: a head, or a usual answer, in one read.
pub(crate) const BUFFER_SIZE: usize = 16 * 1024;
/// The size of a buffer for a body that is longer, in bytes: fewer calls for each megabyte, and still in the processor's cache.
pub(crate) const BODY_BUFFER_SIZE: usize = 128 * 1024;
/// How many buffers of each size a core keeps for the next one who needs them: 4 MiB and 4 MiB at most.
const KEPT: (usize, usize) = (256, 32);

/// A core's buffers that nobody uses just now.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    usual: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.usual.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE])
    }

    fn take_large(&self) -> Vec<u8> {
        self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; BODY_BUFFER_SIZE])
    }

    fn give(&self, buffer: Vec<u8>) {
        let (shelf, limit) = match buffer.len() {
            BUFFER_SIZE => (&self.usual, KEPT.0),
            BODY_BUFFER_SIZE => (&self.large, KEPT.1),
            _ => return,
        };
        let mut shelf = shelf.borrow_mut();
        if shelf.len() < limit {
            shelf.push(buffer);
        }
    }
}

/// Bytes on their way in.
#[derive(Debug, Default)]
pub(crate) struct Inlet {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inlet {
    /// What was read and not used up.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Uses up so many bytes of it.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Reads more, and says how much; 0 is the end.
    ///
    /// # Errors
    /// As [`Stream::poll_read`].
    pub(crate) async fn fill(&mut self, stream: &Stream, buffers: &Buffers) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, stream, buffers)).await
    }

    /// See [`Self::fill`].
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, stream: &Stream, buffers: &Buffers) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            ready!(stream.poll_readable(cx))?;
            self.bytes = buffers.take();
        }
        self.make_room();
        let read = ready!(stream.poll_read(cx, &mut self.bytes[self.end..]))?;
        self.end += read;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.end == self.bytes.len() {
            // Whoever reads bounds what they let stand unused.
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    /// Puts bytes behind what is there, as if they had been read.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(bytes);
        self.end = self.bytes.len();
    }

    /// Takes a large buffer for what follows.
    pub(crate) fn widen(&mut self, buffers: &Buffers) {
        if self.bytes.len() < BODY_BUFFER_SIZE {
            let mut large = buffers.take_large();
            let length = self.end - self.start;
            large[..length].copy_from_slice(self.data());
            buffers.give(std::mem::replace(&mut self.bytes, large));
            (self.start, self.end) = (0, length);
        }
    }

    /// Gives the memory back, if nothing is in it.
    pub(crate) fn rest(&mut self, buffers: &Buffers) {
        if self.start == self.end && !self.bytes.is_empty() {
            buffers.give(std::mem::take(&mut self.bytes));
            (self.start, self.end) = (0, 0);
        }
    }
}
