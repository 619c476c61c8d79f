//! Listening sockets: an attempt to listen is repeated until it succeeds. Accepted connections go to [`Connections`].

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Connections;
use crate::kernel::{
    descriptors::{self, Use},
    exhaustion,
};

/// The time between two attempts to listen.
const RETRY: Duration = Duration::from_secs(2);

/// The number of connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// All addresses of this host, of both families if the kernel has both.
pub const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The address of a server.
#[derive(Clone, Copy, Debug)]
pub struct ListenAddress {
    /// The address and port; [`EVERYWHERE`] includes the addresses of IPv4.
    pub address: SocketAddr,
    /// The flag of `portmap run` that sets the address; none for a `healthCheckNodePort`.
    pub flag: Option<&'static str>,
}

/// The address, and the flag that changes it, as the end of a log line. Without a flag only the port.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flag {
            Some(flag) => write!(f, "({}); set another address with {flag}", self.address),
            None => write!(f, "(port {})", self.address.port()),
        }
    }
}

/// Listens on an address. Tries again every [`RETRY`] until it succeeds, and logs the first failure and a later success.
/// `name`: the subject of these lines, in the plural.
pub async fn bind(name: &str, address: ListenAddress) -> TcpListener {
    let mut is_logged = false;
    loop {
        match listen(address.address) {
            Ok(listener) => {
                if is_logged {
                    tracing::info!("{name} are served now");
                }
                return listener;
            }
            Err(error) if !is_logged => {
                tracing::warn!("failed to serve {name}, trying again: {error} {address}");
                is_logged = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Accepts connections and answers their requests, for ever.
pub async fn serve(listener: TcpListener, router: Router, connections: Arc<Connections>) -> ! {
    loop {
        match accept(&listener).await {
            Ok((stream, client)) => connections.answer(stream, client, &router).await,
            Err(error) => {
                exhaustion::report(&anyhow::Error::new(error).context("failed to accept a connection"));
                tokio::time::sleep(exhaustion::PAUSE).await;
            }
        }
    }
}

/// The next connection. Connections that ended before they were accepted are skipped.
async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            accepted => return accepted,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_at(address) {
        // The kernel has no IPv6.
        Err(error) if address.ip() == EVERYWHERE && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            listen_at((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        listener => listener,
    }
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if descriptors::is_reserved(&socket, Use::Listener) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if address.ip() == EVERYWHERE {
        // The default depends on the host (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
