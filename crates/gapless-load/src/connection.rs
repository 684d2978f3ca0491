//! One TCP connection to the target, plain or with TLS, and how it is opened.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::endpoint::Endpoint;
use crate::failure::{Cause, Failure};
use crate::tls::Tls;

/// How long an answer of DNS is used: short enough to follow a failover, long enough to spare the resolver.
const RESOLVED_FOR: Duration = Duration::from_secs(5);

/// An open connection.
pub enum Connection {
    /// HTTP over TCP.
    Plain(TcpStream),
    /// HTTP over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Whether an idle connection can no longer carry a request: closed, broken, or with bytes on it
    /// that nobody asked for. Asks the kernel, for what the runtime knows may be old.
    pub fn is_stale(&self) -> bool {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(socket).peek(&mut byte) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

/// Opens connections to one endpoint. Each is one attempt at one address: where a name has several, they
/// take turns, so that an address that refuses is seen and not hidden behind the next.
pub struct Connector {
    endpoint: Endpoint,
    tls: Option<Tls>,
    resolved: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    turn: AtomicUsize,
}

impl Connector {
    /// A connector for `endpoint`, with TLS if `tls` is given.
    pub fn new(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        Self { endpoint, tls, resolved: Mutex::new(None), turn: AtomicUsize::new(0) }
    }

    /// Opens a connection, or says by `deadline` why there is none.
    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Failure> {
        let address = self.address(deadline).await?;
        let stream = match timeout_at(deadline, TcpStream::connect(address)).await {
            Err(_) => return Err(Failure::new(Cause::ConnectTimeout, format!("no connection to {address} in time"))),
            Ok(Err(error)) => return Err(Failure::of_connect(&error)),
            Ok(Ok(stream)) => stream,
        };
        stream.set_nodelay(true).map_err(|error| Failure::of_stream("set TCP_NODELAY", &error))?;
        match &self.tls {
            None => Ok(Connection::Plain(stream)),
            Some(tls) => secure(tls, stream, deadline).await,
        }
    }

    async fn address(&self, deadline: Instant) -> Result<SocketAddr, Failure> {
        if let Some(address) = self.endpoint.address {
            return Ok(address);
        }
        let failed = |why: String| Failure::new(Cause::Dns, format!("{}: {why}", self.endpoint.host));
        let mut resolved = match timeout_at(deadline, self.resolved.lock()).await {
            Ok(resolved) => resolved,
            Err(_) => return Err(failed("no answer of DNS in time".to_owned())),
        };
        if resolved.as_ref().is_none_or(|(since, _)| since.elapsed() > RESOLVED_FOR) {
            let lookup = tokio::net::lookup_host((self.endpoint.host.as_str(), self.endpoint.port));
            let addresses = match timeout_at(deadline, lookup).await {
                Err(_) => return Err(failed("no answer of DNS in time".to_owned())),
                Ok(Err(error)) => return Err(failed(error.to_string())),
                Ok(Ok(addresses)) => one_family(addresses.collect()),
            };
            *resolved = Some((Instant::now(), addresses));
        }
        let addresses = resolved.as_ref().map_or(&[][..], |(_, addresses)| addresses);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = addresses.get(turn % addresses.len().max(1));
        address.copied().ok_or_else(|| failed("the name has no address".to_owned()))
    }
}

/// IPv4 addresses if there are any: a machine without a route for IPv6 still resolves its names.
fn one_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses
}

async fn secure(tls: &Tls, stream: TcpStream, deadline: Instant) -> Result<Connection, Failure> {
    match timeout_at(deadline, tls.connector.connect(tls.name.clone(), stream)).await {
        Err(_) => Err(Failure::new(Cause::Tls, "the TLS handshake did not end in time")),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Err(Failure::of_stream("TLS handshake", &error)),
        Ok(Err(error)) => Err(Failure::new(Cause::Tls, format!("TLS handshake: {error}"))),
        Ok(Ok(stream)) => Ok(Connection::Tls(Box::new(stream))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_prefers_ipv4_and_keeps_ipv6_alone() {
        let both: Vec<SocketAddr> = vec!["[::1]:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()];
        assert_eq!(one_family(both.clone()), vec![both[1]]);
        assert_eq!(one_family(vec![both[0]]), vec![both[0]]);
    }
}
