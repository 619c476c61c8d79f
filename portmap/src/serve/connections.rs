//! The connections to the HTTP servers. Any host may be able to open them, so their number, duration and memory are limited.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tower::ServiceExt as _;

use crate::kernel::descriptors::{self, Use};

/// The longest duration of a connection. Then it is closed, even before its answer is complete.
const LIFETIME: Duration = Duration::from_secs(10);

/// The maximum size in bytes of a connection's buffers for requests and answers.
const BUFFER: usize = 16 * 1024;

/// The connections of one server, or of several servers that share a limit.
#[derive(Debug)]
pub struct Connections {
    /// The most connections that are open at once.
    most: usize,
    open: Mutex<Open>,
}

/// The open connections by number. A later connection has a higher number.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    task: JoinHandle<()>,
}

impl Connections {
    /// Starts without connections. `most`: the most connections that are open at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Answers the connection's request in a task. If the limit is reached, it first ends the oldest connection of the client
    /// with the most connections: so no single client can shut others out. Closes the connection if no descriptor outside of
    /// the reserve is free.
    pub async fn answer(self: &Arc<Self>, stream: TcpStream, client: SocketAddr, router: &Router) {
        let Ok(Some(mut stream)) = self.leave_reserve(stream).await else { return };
        while let Some(refused) = self.start(stream, client, router) {
            stream = refused;
            self.end_one().await;
        }
    }

    /// Answers the connection's request in a task if the limit is not reached; otherwise returns the connection.
    fn start(self: &Arc<Self>, stream: TcpStream, client: SocketAddr, router: &Router) -> Option<TcpStream> {
        let mut open = self.lock();
        if open.connections.len() >= self.most {
            return Some(stream);
        }
        let number = open.next;
        open.next += 1;
        let (connections, router) = (self.clone(), router.clone());
        let task = tokio::spawn(async move {
            answer(stream, client, router).await;
            connections.lock().connections.remove(&number);
        });
        open.connections.insert(number, Connection { client: network_of(client.ip()), task });
        None
    }

    /// Ends the connection that [`dispensable`] chooses, if any is open. Returns after its descriptor is closed.
    async fn end_one(&self) {
        let ended = {
            let mut open = self.lock();
            let clients: Vec<(u64, IpAddr)> = open.connections.iter().map(|(number, it)| (*number, it.client)).collect();
            dispensable(&clients).and_then(|number| open.connections.remove(&number))
        };
        if let Some(Connection { client: _, task }) = ended {
            task.abort();
            // The error is that the task was aborted.
            drop(task.await);
        }
    }

    /// Moves the connection to a descriptor outside of the agent's reserve, if it is in the reserve; ends another connection
    /// for that. None if no such descriptor is free.
    async fn leave_reserve(&self, stream: TcpStream) -> io::Result<Option<TcpStream>> {
        let is_reserved = |stream: &TcpStream| descriptors::is_reserved(stream, Use::Connection);
        if !is_reserved(&stream) {
            return Ok(Some(stream));
        }
        self.end_one().await;
        // The copy has the lowest free number.
        let copy = stream.into_std()?.try_clone()?;
        Ok(Some(TcpStream::from_std(copy)?).filter(|copy| !is_reserved(copy)))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request. A failure ends only this connection.
async fn answer(stream: TcpStream, client: SocketAddr, router: Router) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(client));
        router.clone().oneshot(request.map(Body::new))
    });
    let mut server = http1::Builder::new();
    // One request per connection: a wait for further requests would need another deadline.
    server.keep_alive(false).max_buf_size(BUFFER);
    drop(timeout(LIFETIME, server.serve_connection(TokioIo::new(stream), service)).await);
}

/// The number of the connection to end: the oldest of the client with the most connections; `None` without connections.
/// `connections`: numbers and clients.
fn dispensable(connections: &[(u64, IpAddr)]) -> Option<u64> {
    let mut of_client: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
    for (number, client) in connections {
        let (count, oldest) = of_client.entry(*client).or_insert((0, *number));
        (*count, *oldest) = (*count + 1, (*oldest).min(*number));
    }
    let most = of_client.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
    most.map(|(_, oldest)| oldest)
}

/// The address that identifies a client: for IPv6 its /64, because one host may use any address in it.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> IpAddr {
        network_of(address.parse().expect("an address"))
    }

    #[test]
    fn who_has_the_most_connections_loses_the_oldest() {
        let [one, many] = [client("192.0.2.1"), client("192.0.2.2")];
        assert_eq!(dispensable(&[(1, one), (2, many), (3, many)]), Some(2));
        assert_eq!(dispensable(&[(1, many), (2, one)]), Some(1), "of two with as many, the older one");
        assert_eq!(dispensable(&[]), None);
    }

    #[test]
    fn a_subnet_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::2:3:4:5"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
