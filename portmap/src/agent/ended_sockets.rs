//! The destruction of connected UDP sockets whose endpoint ended. Often no packet reports the end to such a socket; a destroyed
//! socket gets an error, and its owner can connect again.
//!
//! The agent's loop requests a search after endpoints ended. Among the sockets that a search finds, it chooses the sockets
//! to destroy.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::{
    datapath::iterators::{EndedSocket, SocketIterators},
    kernel::{
        exhaustion::{self, is_exhausted},
        limits::KEEPS_UDP_SOCKETS,
        namespaces, sock_diag,
    },
    maps::{Capacity, grace::Grace, pin::Pins},
};

/// The time between the two searches after an endpoint ended: during the first search a client may still be in `connect()`.
const AGAIN: Duration = Duration::from_secs(1);

/// The searches for UDP sockets of ended endpoints, and the destruction that is under way.
pub struct EndedSockets {
    /// The iterators that find the sockets; none if the kernel cannot find or destroy them.
    sockets: Option<Arc<SocketIterators>>,
    search: Option<JoinHandle<Result<Vec<EndedSocket>>>>,
    destruction: Option<JoinHandle<Result<usize>>>,
    /// The number of requested searches that have not started yet.
    requested: u8,
    last: Option<Instant>,
}

impl EndedSockets {
    /// Prepares the searches. Logs a kernel that cannot find or destroy the sockets, and fails only for lack of descriptors or
    /// memory.
    pub fn new(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let sockets = match prepare(pins, capacity) {
            Ok(sockets) => Some(Arc::new(sockets)),
            // After a shortage it is unknown whether the kernel has the features.
            Err(error) if is_exhausted(&error) => return Err(error),
            Err(error) => {
                tracing::warn!("{error:#}: {KEEPS_UDP_SOCKETS}");
                None
            }
        };
        Ok(Self { sockets, search: None, destruction: None, requested: 0, last: None })
    }

    /// Continues with the maps of another set. Forgets a search that is under way, and searches again.
    pub fn follow(&mut self, pins: &Pins, capacity: Capacity) -> Result<()> {
        let destruction = self.destruction.take();
        *self = Self { destruction, ..Self::new(pins, capacity)? };
        self.request();
        Ok(())
    }

    /// Whether the kernel can find and destroy the sockets.
    pub fn is_supported(&self) -> bool {
        self.sockets.is_some()
    }

    /// Requests two searches: one at once, and one after [`AGAIN`].
    pub fn request(&mut self) {
        (self.requested, self.last) = (2, None);
    }

    /// Starts a search if one is due, and no search or destruction is under way.
    pub fn start_if_due(&mut self, pins: &Pins) {
        let Some(sockets) = &self.sockets else { return };
        let is_idle = self.search.is_none() && self.destruction.is_none();
        if is_idle && self.requested > 0 && self.last.is_none_or(|last| last.elapsed() >= AGAIN) {
            (self.requested, self.last) = (self.requested - 1, Some(Instant::now()));
            let (pins, sockets) = (pins.clone(), sockets.clone());
            self.search = Some(tokio::task::spawn_blocking(move || search(&pins, &sockets)));
        }
    }

    /// Waits for the search or destruction that is under way. Returns the sockets that a search found: their endpoints are
    /// not in ENDPOINTS. Returns no socket after a destruction or a failure. Waits for ever without a task.
    pub async fn found(&mut self) -> Vec<EndedSocket> {
        if self.destruction.is_some() {
            self.destroyed().await;
            return Vec::new();
        }
        let Some(search) = &mut self.search else { return std::future::pending().await };
        let found = search.await.context("the search for UDP sockets of ended endpoints crashed").flatten();
        self.search = None;
        found.unwrap_or_else(|error| {
            self.give_up(&error);
            Vec::new()
        })
    }

    /// Starts to destroy these sockets in a task. Starts none without sockets.
    pub fn destroy(&mut self, sockets: Vec<EndedSocket>) {
        if !sockets.is_empty() {
            self.destruction = Some(tokio::task::spawn_blocking(move || destroy(sockets)));
        }
    }

    async fn destroyed(&mut self) {
        let Some(destruction) = &mut self.destruction else { return };
        let result = destruction.await.context("the destruction of UDP sockets of ended endpoints crashed").flatten();
        self.destruction = None;
        match result {
            Ok(0) => {}
            Ok(destroyed) => tracing::info!("destroyed {destroyed} UDP sockets that were connected to ended endpoints"),
            Err(error) => self.give_up(&error),
        }
    }

    /// Logs a failure of a search or destruction. After a failure for lack of descriptors or memory, another search is made.
    fn give_up(&mut self, error: &anyhow::Error) {
        if is_exhausted(error) {
            self.requested = self.requested.max(1);
            exhaustion::report(error);
        } else {
            tracing::warn!("{error:#}; UDP sockets may stay connected to ended endpoints");
        }
    }
}

fn prepare(pins: &Pins, capacity: Capacity) -> Result<SocketIterators> {
    ensure!(sock_diag::is_supported()?, "this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    SocketIterators::load(pins, capacity)
}

fn search(pins: &Pins, sockets: &SocketIterators) -> Result<Vec<EndedSocket>> {
    // After a grace period, each program that chose an ended endpoint has noted the endpoint on its socket.
    Grace::open(pins)?.wait()?;
    sockets.list()
}

/// Destroys sockets in their network namespaces. Returns the number of destroyed sockets.
fn destroy(sockets: Vec<EndedSocket>) -> Result<usize> {
    let mut by_namespace: BTreeMap<u64, BTreeMap<u64, SocketAddr>> = BTreeMap::new();
    for EndedSocket { cookie, namespace, asked: _, peer } in sockets {
        by_namespace.entry(namespace).or_default().insert(cookie, peer);
    }
    let (mut destroyed, mut failure) = (0, None);
    for namespace in namespaces::all()? {
        let namespace = match namespace {
            Ok(namespace) => namespace,
            // The sockets of the other namespaces are still destroyed.
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        // Kernels before 5.14 have no cookies of namespaces. Then, and if the query fails, the cookies of sockets, which are
        // unique, are compared alone.
        let of_namespace = match namespace.cookie() {
            Ok(cookie) => by_namespace.get(&cookie).cloned().unwrap_or_default(),
            Err(_) => by_namespace.values().flatten().map(|(cookie, peer)| (*cookie, *peer)).collect(),
        };
        if of_namespace.is_empty() {
            continue;
        }
        match namespace.enter(|| sock_diag::destroy_udp(&of_namespace)) {
            Ok(count) => destroyed += count,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(destroyed), Err)
}
