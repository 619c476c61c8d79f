//! Listening, tried again while a port is in use, and accepting connections.

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

/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Every address of this host, of both families where it has them.
pub const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct ListenAddress {
    /// The address and port; at [`EVERYWHERE`] also those of IPv4.
    pub address: SocketAddr,
    /// The flag that gives it, if one does.
    pub flag: Option<&'static str>,
}

/// As a message says where it is, and what to do about it.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flag {
            Some(flag) => write!(f, "({}); give another address with {flag}", self.address),
            None => write!(f, "(port {})", self.address.port()),
        }
    }
}

/// Listens as soon as the port is free; says once that it is not.
pub async fn bind(what: &str, place: ListenAddress) -> TcpListener {
    let mut said = false;
    loop {
        match listen(place.address) {
            Ok(listener) => {
                if said {
                    tracing::info!("{what} are served now");
                }
                return listener;
            }
            Err(error) if !said => {
                tracing::warn!("failed to serve {what}, trying again: {error} {place}");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Answers requests for ever.
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

/// The next connection. Those that ended before they were accepted are passed over.
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
        // A kernel without IPv6.
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
        // The default is the host's (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
