//! TCP connections to the API server, with or without translation by the node's eBPF programs.
//!
//! If the API server's address is the address of a Service, translation may be the only way to reach it. But translation may
//! also be wrong: the maps are as old as the last agent, and another Service may claim the API server's address. The right
//! route is unknown in advance. So usually both routes are tried, and the first TCP connection is used. The route of the last
//! response usually comes first. If that route was untranslated, it is the only one until requests have failed for a minute.
//! TLS and the responses show whether the API server is there; [`super::connection`] reports the result.

mod routes;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail};
use futures::{StreamExt as _, stream::FuturesUnordered};
use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tower::{Service, service_fn};

use crate::kernel::OWN_PRIORITY;
use routes::ConnectionRoutes;
pub use routes::Route;

/// Delay between the start of two attempts. The next attempt starts at once if an attempt fails.
const HEAD_START: Duration = Duration::from_secs(1);

/// Timeout of one attempt. It is shorter than the timeout of the whole connection, so that the errors of both routes to one
/// address are reported.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// Makes TCP connections, and keeps the state of the routes.
#[derive(Clone)]
pub struct Connector(Arc<Mutex<ConnectionRoutes>>);

impl Connector {
    /// A connector that starts without translation. This works for every address except a Service address that only portmap
    /// serves.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(ConnectionRoutes::new())))
    }

    /// The connector as a `Service` for hyper: it connects to the host of a URI.
    pub fn service(
        &self,
    ) -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = Error, Future: Send + 'static> + Clone + Send + Sync + 'static
    {
        let connector = self.clone();
        service_fn(move |uri| {
            let connector = connector.clone();
            async move { connector.connect(uri).await.map(TokioIo::new) }
        })
    }

    /// Records a response of the API server over the last connection. Returns the route if it is not the route of the
    /// response before.
    pub fn answered(&self) -> Option<Route> {
        self.lock().answered()
    }

    /// Records a failed request. If the API server has not responded since the failure before or the start, another server may
    /// have its address: then the other route comes first.
    pub fn failed(&self) {
        self.lock().failed(Instant::now());
    }

    async fn connect(&self, uri: Uri) -> Result<TcpStream> {
        let addresses = resolve(&uri).await?;
        let routes = self.lock().to_try(Instant::now());
        let attempts =
            routes.into_iter().flat_map(|route| addresses.clone().into_iter().map(move |address| attempt(route, address)));
        let (route, stream) = match first_of(HEAD_START, attempts).await {
            Ok(connected) => connected,
            Err(failed) => {
                self.lock().mark_failure(Instant::now());
                return Err(connect_error(&failed)).with_context(|| format!("failed to connect to {uri}"));
            }
        };
        self.lock().connected = route;
        Ok(stream)
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionRoutes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks up the addresses of the host in the API server's URI. The port is 443 (80 for `http`) if the URI names none.
async fn resolve(uri: &Uri) -> Result<Vec<SocketAddr>> {
    let host = uri.host().with_context(|| format!("{uri} names no host"))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
    let found = lookup_host((host.trim_matches(['[', ']']), port)).await;
    let addresses: Vec<_> = found.with_context(|| format!("failed to look up the address of {host}"))?.collect();
    if addresses.is_empty() {
        bail!("{host} has no address");
    }
    Ok(addresses)
}

/// Runs attempts until one succeeds. The next attempt starts when one fails, or after `head_start`.
///
/// # Errors
///
/// The routes and errors of all attempts.
async fn first_of<F, T>(head_start: Duration, attempts: impl Iterator<Item = F>) -> Result<(Route, T), Vec<(Route, Error)>>
where
    F: Future<Output = (Route, Result<T>)>,
{
    let mut failed = Vec::new();
    let mut running = FuturesUnordered::new();
    for attempt in attempts {
        running.push(attempt);
        match timeout(head_start, running.next()).await {
            Ok(Some((route, Ok(connection)))) => return Ok((route, connection)),
            Ok(Some((route, Err(error)))) => failed.push((route, error)),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some((route, outcome)) = running.next().await {
        match outcome {
            Ok(connection) => return Ok((route, connection)),
            Err(error) => failed.push((route, error)),
        }
    }
    Err(failed)
}

async fn attempt(route: Route, address: SocketAddr) -> (Route, Result<TcpStream>) {
    let connected = timeout(ATTEMPT_TIMEOUT, connect_by(route, address)).await;
    (route, connected.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()))))
}

async fn connect_by(route: Route, address: SocketAddr) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if route == Route::Translated {
        return Ok(socket.connect(address).await?);
    }
    let set = setsockopt(&socket, sockopt::Priority, &OWN_PRIORITY.cast_signed());
    set.context("failed to set SO_PRIORITY, which requires CAP_NET_ADMIN")?;
    let stream = socket.connect(address).await?;
    // The programs need the priority only in connect(). Later packets are sent with the default priority.
    setsockopt(&stream, sockopt::Priority, &0).context("failed to reset SO_PRIORITY")?;
    Ok(stream)
}

/// The error of failed attempts. It names both routes if translation changed the error, because then the address may be a
/// Service's.
fn connect_error(failed: &[(Route, Error)]) -> Error {
    let of = |route| {
        let mut texts: Vec<_> =
            failed.iter().filter(|(other, _)| *other == route).map(|(_, error)| format!("{error:#}")).collect();
        texts.dedup();
        texts.join(", ")
    };
    let (untranslated, translated) = (of(Route::Untranslated), of(Route::Translated));
    if translated.is_empty() || untranslated == translated {
        return anyhow!(untranslated);
    }
    anyhow!(
        "without portmap's translation: {untranslated}; with it: {translated}. If this is a Service's address, give the agent an \
         address that works without Services: KUBERNETES_SERVICE_HOST, or --kubeconfig"
    )
}

#[cfg(test)]
mod tests {
    use futures::{
        FutureExt as _,
        channel::oneshot,
        future::{self, BoxFuture},
    };

    use super::*;

    type Attempt = BoxFuture<'static, (Route, Result<u32>)>;

    const LONG: Duration = Duration::from_hours(1);

    fn ready(route: Route, outcome: Result<u32>) -> Attempt {
        future::ready((route, outcome)).boxed()
    }

    async fn first(head_start: Duration, attempts: [Attempt; 2]) -> (Route, u32) {
        let first = timeout(Duration::from_mins(1), first_of(head_start, attempts.into_iter()));
        first.await.expect("no attempt takes a minute").expect("a connection")
    }

    #[tokio::test]
    async fn the_next_attempt_does_not_wait_for_one_that_hangs() {
        let hangs = future::pending().boxed();
        assert_eq!(first(Duration::from_millis(1), [hangs, ready(Route::Translated, Ok(2))]).await, (Route::Translated, 2));
    }

    #[tokio::test]
    async fn the_next_attempt_begins_when_one_fails() {
        let fails = ready(Route::Untranslated, Err(anyhow!("refused")));
        assert_eq!(first(LONG, [fails, ready(Route::Translated, Ok(2))]).await, (Route::Translated, 2));
    }

    #[tokio::test]
    async fn an_attempt_that_succeeds_is_the_only_one() {
        let never = future::lazy(|_| panic!("the second attempt is not needed")).boxed();
        assert_eq!(first(LONG, [ready(Route::Untranslated, Ok(1)), never]).await, (Route::Untranslated, 1));
    }

    #[tokio::test]
    async fn an_attempt_may_succeed_after_the_next_failed() {
        let (fail, has_failed) = oneshot::channel();
        let slow = has_failed.map(|_| (Route::Untranslated, Ok(1))).boxed();
        let fails = future::lazy(move |_| {
            fail.send(()).expect("the first attempt waits");
            (Route::Translated, Err(anyhow!("refused")))
        });
        assert_eq!(first(Duration::from_millis(1), [slow, fails.boxed()]).await, (Route::Untranslated, 1));
    }

    #[test]
    fn both_routes_are_named_if_their_errors_differ() {
        let failed = |untranslated, translated| {
            connect_error(&[(Route::Untranslated, anyhow!("{untranslated}")), (Route::Translated, anyhow!("{translated}"))])
                .to_string()
        };
        assert_eq!(failed("refused", "refused"), "refused");
        assert_eq!(connect_error(&[(Route::Untranslated, anyhow!("refused"))]).to_string(), "refused");
        let text = failed("no route", "refused");
        assert!(text.starts_with("without portmap's translation: no route; with it: refused."), "{text}");
        assert!(text.contains("KUBERNETES_SERVICE_HOST"), "{text}");
    }
}
