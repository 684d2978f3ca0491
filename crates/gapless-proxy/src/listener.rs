//! The listening sockets: opened once by the holder, inherited by each worker, closed by nobody in between.

use crate::error::ProxyError;
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How many connections may wait to be accepted on each socket; the kernel lowers it to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// More threads than this bring nothing to a proxy of one machine, and every thread has its own pool.
const CORE_LIMIT: usize = 16;
/// The first descriptor that a service manager passes on (`SD_LISTEN_FDS_START`).
const FIRST_OF_SERVICE_MANAGER: RawFd = 3;
/// How long to wait for a worker without a holder to let go of the port: it does so as soon as it notices.
const ORPHAN_LIMIT: Duration = Duration::from_secs(2);
const ORPHAN_INTERVAL: Duration = Duration::from_millis(10);

/// How many threads a worker has.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(CORE_LIMIT)
}

/// One address, with a socket for each core.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    /// One for each core; a socket that a service manager gave is the same for all.
    sockets: Vec<TcpListener>,
}

/// All addresses.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Place>);

impl Listeners {
    /// The same sockets and new ones for these addresses: those that stay are never closed. Those of addresses that do not stay are closed when the last process that has them lets go.
    ///
    /// A port 0 becomes one that is free, the same for every core.
    ///
    /// # Errors
    /// When an address is not this machine's, or somebody else listens there; nothing has changed then.
    pub(crate) fn with(&self, listen: &[SocketAddr], cores: usize) -> Result<Self, ProxyError> {
        let mut places = Vec::new();
        for wanted in listen {
            let known = self.0.iter().find(|place| place.address == *wanted);
            places.push(known.map_or_else(|| open_place(*wanted, cores), Place::again)?);
        }
        Ok(Self(places))
    }

    /// Takes over sockets that another process has opened: for each address those of all cores. May be called once for a descriptor.
    ///
    /// # Errors
    /// When a descriptor is not a listening socket.
    pub(crate) fn adopt(places: &[(SocketAddr, Vec<RawFd>)]) -> Result<Self, ProxyError> {
        let adopted = places.iter().map(|(address, descriptors)| {
            let sockets = descriptors.iter().map(|descriptor| inherit_one(&descriptor.to_string())).collect::<Result<_, _>>()?;
            Ok(Place { address: *address, sockets })
        });
        adopted.collect::<Result<_, _>>().map(Self)
    }

    /// The sockets that a service manager opened for this process (`sd_listen_fds`(3)), each shared by all cores; `None`: it opened none. May be called once in a process.
    ///
    /// # Errors
    /// When one of them is no listening TCP socket.
    pub(crate) fn of_service_manager(cores: usize) -> Result<Option<Self>, ProxyError> {
        let told = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<RawFd>().ok());
        let is_for_this = told("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
        let Some(count) = told("LISTEN_FDS").filter(|count| is_for_this && *count > 0) else { return Ok(None) };
        let places = (FIRST_OF_SERVICE_MANAGER..FIRST_OF_SERVICE_MANAGER + count).map(|descriptor| {
            let socket = inherit_one(&descriptor.to_string())?;
            let unusable = |error: io::Error| {
                ProxyError::new(format!("the service manager's socket {descriptor} cannot be used: {error}"))
                    .hint("give it ListenStream= with an address and a port")
            };
            socket.set_nonblocking(true).map_err(unusable)?;
            let address = socket.local_addr().map_err(unusable)?;
            let sockets = (0..cores).map(|_| socket.try_clone()).collect::<io::Result<_>>().map_err(unusable)?;
            Ok(Place { address, sockets })
        });
        places.collect::<Result<_, ProxyError>>().map(|places| Some(Self(places)))
    }

    /// For each address the descriptors of all cores.
    pub(crate) fn places(&self) -> Vec<(SocketAddr, Vec<RawFd>)> {
        self.0.iter().map(|place| (place.address, place.sockets.iter().map(AsRawFd::as_raw_fd).collect())).collect()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|place| place.address).collect()
    }

    /// The descriptors as a worker finds them in its environment: cores by `;`, addresses by `,`.
    pub(crate) fn names(&self) -> String {
        let cores = self.0.first().map_or(0, |place| place.sockets.len());
        let of_core = |core: usize| self.0.iter().map(|place| place.sockets[core].as_raw_fd().to_string()).collect::<Vec<_>>().join(",");
        (0..cores).map(of_core).collect::<Vec<_>>().join(";")
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.0.iter().flat_map(|place| &place.sockets).map(AsRawFd::as_raw_fd).collect()
    }
}

impl Place {
    fn again(&self) -> Result<Self, ProxyError> {
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>();
        sockets.map(|sockets| Self { address: self.address, sockets }).map_err(|error| cannot_listen(self.address, &error))
    }
}

fn open_place(wanted: SocketAddr, cores: usize) -> Result<Place, ProxyError> {
    wait_until_free(wanted)?;
    let (mut address, mut sockets) = (wanted, Vec::new());
    for _ in 0..cores {
        let listener = open_one(address).map_err(|error| cannot_listen(address, &error))?;
        address = listener.local_addr().map_err(|error| cannot_listen(address, &error))?;
        sockets.push(listener);
    }
    Ok(Place { address, sockets })
}

/// Takes over the descriptors that [`Listeners::names`] named. May be called once in a process.
///
/// # Errors
/// When the text is not such a list, or a descriptor is not a listening socket.
pub(crate) fn inherit(names: &str) -> Result<Vec<Vec<TcpListener>>, ProxyError> {
    names.split(';').map(|core| core.split(',').filter(|name| !name.is_empty()).map(inherit_one).collect()).collect()
}

fn inherit_one(name: &str) -> Result<TcpListener, ProxyError> {
    let wrong = |reason: String| ProxyError::new(format!("the inherited descriptor `{name}` is no listening socket: {reason}"));
    let descriptor: RawFd = name.parse().map_err(|_| wrong("not a number".to_string()))?;
    if descriptor <= 2 {
        return Err(wrong("a standard stream".to_string()));
    }
    // SAFETY: the holder left this descriptor open for this process alone, and each name is taken over once.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let socket = Socket::from(owned);
    let prepared = socket.is_listener().and_then(|listens| {
        if listens { fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(io::Error::from) } else { Err(ErrorKind::InvalidInput.into()) }
    });
    prepared.map_err(|error| wrong(error.to_string()))?;
    Ok(socket.into())
}

/// Lets these descriptors live on in the program that this process is about to become. Safe between fork and exec.
pub(crate) fn leave_open(descriptors: &[RawFd]) -> io::Result<()> {
    for descriptor in descriptors {
        // SAFETY: the listeners are the holder's and outlive every spawn.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(*descriptor) };
        fcntl_setfd(borrowed.as_fd(), FdFlags::empty())?;
    }
    Ok(())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

pub(crate) fn open_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `SO_REUSEPORT` would let a second proxy of the same user share the port in silence, so ask first without it.
fn wait_until_free(address: SocketAddr) -> Result<(), ProxyError> {
    let until = Instant::now() + ORPHAN_LIMIT;
    loop {
        let probed = socket(address).and_then(|socket| socket.bind(&address.into()));
        match probed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => std::thread::sleep(ORPHAN_INTERVAL),
            Err(error) => return Err(cannot_listen(address, &error)),
        }
    }
}

pub(crate) fn cannot_listen(address: SocketAddr, error: &io::Error) -> ProxyError {
    let told = ProxyError::new(format!("cannot listen on {address}: {error}"));
    match error.kind() {
        ErrorKind::AddrInUse => told.hint(format!(
            "another program listens there: `ss -ltnp 'sport = :{}'` names it; stop it or choose another port",
            address.port()
        )),
        ErrorKind::PermissionDenied => told.hint("ports below 1024 need root"),
        ErrorKind::AddrNotAvailable => told.hint("the address is not one of this machine's: `ip address` lists them"),
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_listen_on_one_port_and_a_second_proxy_may_not() {
        let listeners = Listeners::default().with(&[([127, 0, 0, 1], 0).into()], 3).unwrap();
        assert_eq!(listeners.descriptors().len(), 3);
        let address = listeners.addresses()[0];
        assert_ne!(address.port(), 0);
        let refused = Listeners::default().with(&[address], 1).unwrap_err();
        assert!(refused.to_string().contains("cannot listen on"), "{refused}");
        assert!(refused.hint_text().unwrap().contains("another program"));
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_refused() {
        assert!(inherit("1").is_err());
        assert!(inherit("x").is_err());
    }
}
