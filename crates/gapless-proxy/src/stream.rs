//! A TCP connection that both of its directions share, and that others on its thread may look at, or break off.
//!
//! No timer is armed for it: whoever waits says until when, and the core looks through all streams in an interval ([`Streams::wake_late`]). So a request costs no
//! timer, and a limit is kept to within that interval.

use crate::buffer::Inlet;
use crate::exchange::Abort;
use slab::Slab;
use socket2::{SockRef, TcpKeepalive};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How long a connection may be silent before the kernel asks whether the other machine is still there.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);
/// How long the kernel waits before it asks again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it asks before it gives the connection up: a request on a vanished node fails, or is sent elsewhere, after some 6 s.
const PROBES: u32 = 3;
/// How long a client may be silent before the kernel asks: mobile networks lose packets for some seconds, and asking wakes their radios.
const CLIENT_SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long the kernel waits before it asks a client again.
const CLIENT_PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// All streams of a core, so that it can look at their deadlines.
#[derive(Debug, Default)]
pub(crate) struct Streams(RefCell<Slab<Weak<Stream>>>);

impl Streams {
    /// Takes a client's connection over.
    pub(crate) fn of_client(self: &Rc<Self>, stream: TcpStream) -> Rc<Stream> {
        prepare_client(&stream);
        self.enter(Io::Plain(stream))
    }

    /// Takes a client's connection over that speaks TLS. [`prepare_client`] was for its socket.
    pub(crate) fn of_secure_client(self: &Rc<Self>, stream: TlsStream<TcpStream>) -> Rc<Stream> {
        self.enter(Io::Tls(Box::new(stream)))
    }

    /// Takes a connection to a node over: a node whose machine is gone says nothing any more, so the kernel asks.
    pub(crate) fn to_node(self: &Rc<Self>, stream: TcpStream) -> Rc<Stream> {
        let keepalive = TcpKeepalive::new().with_time(SILENCE_LIMIT).with_interval(PROBE_INTERVAL).with_retries(PROBES);
        // As above.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let _ = stream.set_nodelay(true);
        self.enter(Io::Plain(stream))
    }

    fn enter(self: &Rc<Self>, io: Io) -> Rc<Stream> {
        let mut streams = self.0.borrow_mut();
        let place = streams.vacant_entry();
        let stream = Rc::new(Stream {
            io: RefCell::new(io),
            waiting: RefCell::new(None),
            aborted: Cell::new(false),
            reading: Limit::default(),
            writing: Limit::default(),
            all: self.clone(),
            key: place.key(),
        });
        place.insert(Rc::downgrade(&stream));
        stream
    }

    /// Wakes everybody whose wait has become too long.
    pub(crate) fn wake_late(&self, now: Instant) {
        for stream in self.all() {
            let (reading, writing) = (stream.reading.look(now), stream.writing.look(now));
            if reading || writing {
                stream.wake();
            }
        }
    }

    /// Wakes everybody who waits, to look at what has changed.
    pub(crate) fn wake_all(&self) {
        self.all().iter().for_each(|stream| stream.wake());
    }

    fn all(&self) -> Vec<Rc<Stream>> {
        self.0.borrow().iter().filter_map(|(_, stream)| stream.upgrade()).collect()
    }
}

/// Lets the kernel ask whether a silent client is still there, and send what is written at once: Nagle's delay would hold the last part of a message back.
pub(crate) fn prepare_client(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(CLIENT_SILENCE_LIMIT).with_interval(CLIENT_PROBE_INTERVAL).with_retries(PROBES);
    // A socket that refuses this is about to fail anyway, and says so at its first use.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
}

/// Until when one direction may wait.
#[derive(Debug, Default)]
struct Limit {
    by: Cell<Option<Instant>>,
    late: Cell<bool>,
}

impl Limit {
    fn set(&self, by: Option<Instant>) {
        self.by.set(by);
        self.late.set(false);
    }

    /// Whether it has just become late.
    fn look(&self, now: Instant) -> bool {
        let is_late = self.by.get().is_some_and(|by| by <= now);
        is_late && !self.late.replace(true)
    }
}

/// What a connection is made of.
#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn socket(&self) -> &TcpStream {
        match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Under TLS there may be something to read while the socket has nothing: what came with an earlier part.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Io::Tls(stream) = self {
            let waiting = stream.get_mut().1.process_new_packets();
            if waiting.map_or(true, |state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed()) {
                return Poll::Ready(Ok(()));
            }
        }
        self.socket().poll_read_ready(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (self, parts) {
            (Io::Plain(stream), [only]) => Pin::new(stream).poll_write(cx, only),
            (Io::Plain(stream), parts) => Pin::new(stream).poll_write_vectored(cx, parts),
            (Io::Tls(stream), parts) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    /// Under TLS what was written may still wait to be encrypted and sent.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Says under TLS that nothing more will be written (RFC 8446, section 6.1), as far as the socket takes it now.
    fn say_goodbye(&mut self) {
        if let Io::Tls(stream) = self {
            let (socket, session) = stream.get_mut();
            session.send_close_notify();
            while session.wants_write() && session.write_tls(&mut AtOnce(socket)).is_ok() {}
        }
    }
}

/// Writes what a socket takes without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection. All its users run on one thread and, but for an abort, in one task.
#[derive(Debug)]
pub(crate) struct Stream {
    io: RefCell<Io>,
    /// Whoever waits to read or write: both directions run in one task.
    waiting: RefCell<Option<Waker>>,
    aborted: Cell<bool>,
    reading: Limit,
    writing: Limit,
    all: Rc<Streams>,
    key: usize,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(self.key);
    }
}

impl Stream {
    /// Until when reading may wait, to within the interval in which the core looks; then it fails with `TimedOut`.
    pub(crate) fn read_by(&self, deadline: Option<Instant>) {
        self.reading.set(deadline);
    }

    /// Until when writing may wait.
    pub(crate) fn write_by(&self, deadline: Option<Instant>) {
        self.writing.set(deadline);
    }

    /// Reads what is there, or waits for something.
    ///
    /// # Errors
    /// The system's; `ConnectionAborted` after [`Self::abort`], and `TimedOut`.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.step(cx, &self.reading, |io, cx| {
            let mut read = ReadBuf::new(buffer);
            ready!(io.poll_read(cx, &mut read))?;
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Waits until there is something to read, without a place to put it.
    ///
    /// # Errors
    /// As [`Self::poll_read`].
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(cx, &self.reading, |io, cx| io.poll_read_ready(cx))
    }

    fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(self.step(cx, &self.writing, |io, cx| io.poll_write(cx, parts)))? {
            0 => Poll::Ready(Err(ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// With how much was written; also after [`Self::abort`], and when it has to wait for too long.
    pub(crate) async fn write(&self, parts: &mut [IoSlice<'_>]) -> Result<(), Unwritten> {
        let mut left = parts;
        let mut written = 0;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, left)).await {
                Ok(count) => {
                    written += count;
                    IoSlice::advance_slices(&mut left, count);
                }
                Err(_) => return Err(Unwritten { written }),
            }
        }
        poll_fn(|cx| self.step(cx, &self.writing, Io::poll_flush)).await.map_err(|_| Unwritten { written })
    }

    /// One step of reading or writing: none on an aborted connection, and one that has to wait is woken by the abort and at its deadline.
    fn step<T>(
        &self,
        cx: &mut Context<'_>,
        limit: &Limit,
        act: impl FnOnce(&mut Io, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.aborted.get() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let polled = act(&mut self.io.borrow_mut(), cx);
        if polled.is_pending() {
            if limit.late.get() {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.remember(cx);
        }
        polled
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Open, and the other side has said nothing, not even that it closes.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::<u8>::uninit(); 1];
        matches!(SockRef::from(self.io.borrow().socket()).peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the runtime has already heard that there is something to read, or the end. Asks nobody.
    pub(crate) fn has_been_heard(&self) -> bool {
        // Not by polling: a task that has used its share of time up would hear nothing.
        self.io.borrow().socket().try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Says that nothing more will be written.
    pub(crate) fn close_writing(&self) {
        self.io.borrow_mut().say_goodbye();
        // One that is gone needs no word.
        let _ = SockRef::from(self.io.borrow().socket()).shutdown(Shutdown::Write);
    }
}

impl Abort for Stream {
    /// Lets every further read and write fail, also one that waits for somebody who does not read, so that its owner closes it.
    fn abort(&self) {
        self.aborted.set(true);
        self.wake();
    }

    /// Lets the close that follows be a reset: where the protocol has no other way to say that an answer is not whole.
    fn reset_at_close(&self) {
        // As above.
        let _ = SockRef::from(self.io.borrow().socket()).set_linger(Some(Duration::ZERO));
    }
}

/// A connection as the crate `h2` wants it: what has been read of it already comes first.
#[derive(Debug)]
pub(crate) struct Duplex {
    pub(crate) stream: Rc<Stream>,
    pub(crate) inlet: Inlet,
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.inlet.data().is_empty() {
            let count = self.inlet.data().len().min(buffer.remaining());
            buffer.put_slice(&self.inlet.data()[..count]);
            self.inlet.consume(count);
            return Poll::Ready(Ok(()));
        }
        self.inlet = Inlet::default();
        let read = ready!(self.stream.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.step(cx, &self.stream.writing, Io::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.close_writing();
        Poll::Ready(Ok(()))
    }
}

/// A write that came to its end too early: so many bytes the kernel took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwritten {
    pub(crate) written: usize,
}
