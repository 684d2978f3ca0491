//! A TCP connection whose socket can be looked at, and broken, while hyper owns it.

use crate::sync::lock;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a node's connection may be silent before the kernel asks whether the machine is still there.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);
/// How long the kernel waits before it asks again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How often it asks before it gives the connection up: a request on a vanished node fails, or is sent elsewhere, after some 6 s.
const PROBES: u32 = 3;

/// The descriptor's place when the connection is closed.
const CLOSED: RawFd = -1;

/// A connection, as hyper takes it.
#[derive(Debug)]
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    handle: Handle,
}

impl Stream {
    /// Takes a connection to a node over: a node whose machine is gone says nothing any more, so the kernel asks.
    pub(crate) fn to_node(stream: TcpStream) -> Self {
        let keepalive = TcpKeepalive::new().with_time(SILENCE_LIMIT).with_interval(PROBE_INTERVAL).with_retries(PROBES);
        // A socket that refuses this is about to fail anyway, and says so at its first use.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        Self::new(stream)
    }

    /// Takes a connection over, without Nagle's delay.
    pub(crate) fn new(stream: TcpStream) -> Self {
        // A socket that refuses this is about to fail anyway, and says so at its first use.
        let _ = stream.set_nodelay(true);
        let handle = Handle(Arc::new(Inside {
            descriptor: AtomicI32::new(stream.as_raw_fd()),
            aborted: AtomicBool::new(false),
            waiting: Mutex::new(None),
        }));
        Self { io: TokioIo::new(stream), handle }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// One step of reading or writing: none on an aborted connection, and one that has to wait is woken by the abort.
    fn step<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut TokioIo<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.handle.0.aborted.load(Ordering::Relaxed) {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let polled = act(Pin::new(&mut self.io), cx);
        if polled.is_pending() {
            let mut waiting = lock(&self.handle.0.waiting);
            if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waiting = Some(cx.waker().clone());
            }
        }
        polled
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Before the descriptor is closed and its number can be another socket's. Handles are used on this stream's own thread only.
        self.handle.0.descriptor.store(CLOSED, Ordering::SeqCst);
    }
}

/// A look at a [`Stream`] from outside, on the same thread.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    descriptor: AtomicI32,
    aborted: AtomicBool,
    /// Whoever waits to read or write; hyper does both in one task.
    waiting: Mutex<Option<Waker>>,
}

impl Handle {
    /// Open, and the other side has said nothing, not even that it closes.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::<u8>::uninit(); 1];
        let looked = self.with(|socket| socket.peek(&mut byte));
        matches!(looked, Some(Err(error)) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends the connection in order, in both directions.
    pub(crate) fn shutdown(&self) {
        self.with(|socket| socket.shutdown(Shutdown::Both));
    }

    /// Lets the close that follows be a reset: where the protocol has no other way to say that an answer is not whole.
    pub(crate) fn reset_at_close(&self) {
        self.with(|socket| socket.set_linger(Some(Duration::ZERO)));
    }

    /// Lets every further read and write fail, also one that waits for a client that does not read, so that its owner closes it.
    pub(crate) fn abort(&self) {
        self.0.aborted.store(true, Ordering::Relaxed);
        if let Some(waker) = lock(&self.0.waiting).take() {
            waker.wake();
        }
    }

    fn with<T>(&self, act: impl FnOnce(SockRef<'_>) -> T) -> Option<T> {
        let descriptor = self.0.descriptor.load(Ordering::SeqCst);
        if descriptor == CLOSED {
            return None;
        }
        // SAFETY: the stream that owns the descriptor marks it as closed before it closes it, and runs on this very thread.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        Some(act(SockRef::from(&borrowed)))
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.step(cx, |io, cx| io.poll_read(cx, buffer))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.step(cx, |io, cx| io.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(cx, Write::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(cx, Write::poll_shutdown)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.step(cx, |io, cx| io.poll_write_vectored(cx, slices))
    }
}
