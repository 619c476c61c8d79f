//! TCP connections to the API server, past the node's tables or led by them.
//!
//! The programs translate the agent's own calls like any others. Where the API server's address is a Service's, the tables may be
//! all that leads there; and they may lead to a wrong place: they are as old as the last agent, and a Service may claim that very
//! address. Neither can be known before. So both routes are tried, and the one that worked last goes first. The first that connects
//! is taken; whether the API server is there shows in TLS and in its answers, which `connection` judges.

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

/// How long an attempt is alone before the next begins, if it does not fail at once.
const HEAD_START: Duration = Duration::from_secs(1);

/// How long the tables are not asked when the API server, which answered past them, does not any more. It may just start again, and a
/// Service with its address must not be taken for it meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// For one attempt: less than for a connection with TLS, so that the reasons of all attempts are told.
const ATTEMPT: Duration = Duration::from_secs(8);

/// How the node's tables deal with a connection of the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// They leave it alone.
    Past,
    /// They lead it, as they lead those of other processes.
    Led,
}

impl Route {
    const fn other(self) -> Self {
        match self {
            Self::Past => Self::Led,
            Self::Led => Self::Past,
        }
    }
}

/// Makes connections, and remembers which route is good.
#[derive(Clone)]
pub struct Connector(Arc<Mutex<ConnectionRoutes>>);

/// What is known of the routes.
#[derive(Debug)]
struct ConnectionRoutes {
    /// The one to try first.
    first: Route,
    /// The one that connected last.
    connected: Route,
    /// The API server answered since the last doubt.
    has_answered: bool,
    /// The one on which it answered last.
    answered: Option<Route>,
    /// When something went wrong first after that.
    failing_since: Option<Instant>,
}

impl Connector {
    /// Past the tables first: that is right for every address but a Service's that nobody else serves.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(ConnectionRoutes::new())))
    }

    /// As hyper takes it.
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

    /// The API server has answered on a connection. Returns the route if its last answer came on the other, or none came before.
    pub fn answered(&self) -> Option<Route> {
        self.lock().answered()
    }

    /// Something went wrong on a connection. If the API server never answered since the last time, another server may be there:
    /// the other route goes first then.
    pub fn doubt(&self) {
        self.lock().doubt(Instant::now());
    }

    async fn connect(&self, uri: Uri) -> Result<TcpStream> {
        let addresses = resolve(&uri).await?;
        let routes = self.lock().to_try(Instant::now());
        let attempts =
            routes.into_iter().flat_map(|route| addresses.clone().into_iter().map(move |address| attempt(route, address)));
        let (route, stream) = match first_of(HEAD_START, attempts).await {
            Ok(connected) => connected,
            Err(failed) => {
                self.lock().fail(Instant::now());
                return Err(refusal(&failed)).with_context(|| format!("failed to connect to {uri}"));
            }
        };
        self.lock().connected = route;
        Ok(stream)
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionRoutes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionRoutes {
    const fn new() -> Self {
        let (first, connected) = (Route::Past, Route::Past);
        Self { first, connected, has_answered: false, answered: None, failing_since: None }
    }

    /// The routes for a connection that is made now, in their order.
    fn to_try(&self, now: Instant) -> Vec<Route> {
        let lasts = self.failing_since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        if self.answered == Some(Route::Past) && !lasts { vec![Route::Past] } else { vec![self.first, self.first.other()] }
    }

    fn fail(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    fn answered(&mut self) -> Option<Route> {
        self.has_answered = true;
        self.failing_since = None;
        self.first = self.connected;
        let before = self.answered.replace(self.connected);
        (before != Some(self.connected)).then_some(self.connected)
    }

    fn doubt(&mut self, now: Instant) {
        self.fail(now);
        if !std::mem::take(&mut self.has_answered) {
            self.first = self.connected.other();
        }
    }
}

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

/// The first attempt that succeeds, or why all failed. Each begins when the one before it fails, or after this time.
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
    let connected = timeout(ATTEMPT, connect_by(route, address)).await;
    (route, connected.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ATTEMPT.as_secs()))))
}

async fn connect_by(route: Route, address: SocketAddr) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if route == Route::Led {
        return Ok(socket.connect(address).await?);
    }
    let marked = setsockopt(&socket, sockopt::Priority, &OWN_PRIORITY.cast_signed());
    marked.context("failed to set SO_PRIORITY, which takes CAP_NET_ADMIN")?;
    let stream = socket.connect(address).await?;
    // It is for the programs only: packets are sent like those of others.
    setsockopt(&stream, sockopt::Priority, &0).context("failed to reset SO_PRIORITY")?;
    Ok(stream)
}

/// What to tell of attempts that failed. Where the routes differ, the address is one that the tables have a say in.
fn refusal(failed: &[(Route, Error)]) -> Error {
    let of = |route| {
        let mut texts: Vec<_> =
            failed.iter().filter(|(other, _)| *other == route).map(|(_, error)| format!("{error:#}")).collect();
        texts.dedup();
        texts.join(", ")
    };
    let (past, led) = (of(Route::Past), of(Route::Led));
    if led.is_empty() || past == led {
        return anyhow!(past);
    }
    anyhow!(
        "past portmap's tables: {past}; led by them: {led}. If this is a Service's address, give the agent one that works without \
         Services: KUBERNETES_SERVICE_HOST, or --kubeconfig"
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

    #[test]
    fn a_route_on_which_nothing_answers_gives_way_to_the_other() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        routes.doubt(now);
        assert_eq!(routes.first, Route::Led);
        routes.connected = Route::Led;
        routes.doubt(now);
        assert_eq!(routes.first, Route::Past);
    }

    #[test]
    fn a_route_that_was_good_is_tried_once_more() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        routes.connected = Route::Led;
        assert_eq!(routes.answered(), Some(Route::Led));
        assert_eq!(routes.answered(), None, "it is told once");
        routes.doubt(now);
        assert_eq!(routes.first, Route::Led);
        routes.doubt(now);
        assert_eq!(routes.first, Route::Past);
    }

    #[test]
    fn the_tables_are_asked_when_the_api_server_does_not_come_back() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        assert_eq!(routes.to_try(now), [Route::Past, Route::Led], "at first");
        routes.answered();
        routes.fail(now);
        routes.doubt(now + PATIENCE / 2);
        assert_eq!(routes.to_try(now + PATIENCE / 2), [Route::Past]);
        assert_eq!(routes.to_try(now + PATIENCE).len(), 2, "since the first failure");
        routes.answered();
        assert_eq!(routes.to_try(now + PATIENCE), [Route::Past], "it came back");
        routes.connected = Route::Led;
        routes.answered();
        assert_eq!(routes.to_try(now), [Route::Led, Route::Past], "the tables led there");
    }

    type Attempt = BoxFuture<'static, (Route, Result<u32>)>;

    const LONG: Duration = Duration::from_hours(1);

    fn ready(route: Route, outcome: Result<u32>) -> Attempt {
        future::ready((route, outcome)).boxed()
    }

    async fn first(head_start: Duration, attempts: [Attempt; 2]) -> (Route, u32) {
        let first = timeout(Duration::from_mins(1), first_of(head_start, attempts.into_iter()));
        first.await.expect("it takes no time").expect("a connection")
    }

    #[tokio::test]
    async fn the_next_attempt_does_not_wait_for_one_that_hangs() {
        let hangs = future::pending().boxed();
        assert_eq!(first(Duration::from_millis(1), [hangs, ready(Route::Led, Ok(2))]).await, (Route::Led, 2));
    }

    #[tokio::test]
    async fn the_next_attempt_begins_when_one_fails() {
        let fails = ready(Route::Past, Err(anyhow!("refused")));
        assert_eq!(first(LONG, [fails, ready(Route::Led, Ok(2))]).await, (Route::Led, 2));
    }

    #[tokio::test]
    async fn an_attempt_that_succeeds_is_the_only_one() {
        let never = future::lazy(|_| panic!("it is not needed")).boxed();
        assert_eq!(first(LONG, [ready(Route::Past, Ok(1)), never]).await, (Route::Past, 1));
    }

    #[tokio::test]
    async fn an_attempt_may_succeed_after_the_next_failed() {
        let (fail, has_failed) = oneshot::channel();
        let slow = has_failed.map(|_| (Route::Past, Ok(1))).boxed();
        let fails = future::lazy(move |_| {
            fail.send(()).expect("somebody waits");
            (Route::Led, Err(anyhow!("refused")))
        });
        assert_eq!(first(Duration::from_millis(1), [slow, fails.boxed()]).await, (Route::Past, 1));
    }

    #[test]
    fn the_tables_are_named_where_they_make_a_difference() {
        let failed = |past, led| refusal(&[(Route::Past, anyhow!("{past}")), (Route::Led, anyhow!("{led}"))]).to_string();
        assert_eq!(failed("refused", "refused"), "refused");
        assert_eq!(refusal(&[(Route::Past, anyhow!("refused"))]).to_string(), "refused");
        let text = failed("no route", "refused");
        assert!(text.starts_with("past portmap's tables: no route; led by them: refused."), "{text}");
        assert!(text.contains("KUBERNETES_SERVICE_HOST"), "{text}");
    }
}
