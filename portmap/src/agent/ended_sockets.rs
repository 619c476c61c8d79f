//! Connected UDP sockets whose backend serves no more: nothing tells them, so they are destroyed, and connect anew.

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

/// Between the two searches after endpoints ended: a client may be on its way through `connect()` during the first.
const AGAIN: Duration = Duration::from_secs(1);

/// The search for such sockets, and their destruction.
pub struct EndedSockets {
    /// None where the kernel cannot find or destroy them.
    sockets: Option<Arc<SocketIterators>>,
    search: Option<JoinHandle<Result<Vec<EndedSocket>>>>,
    destruction: Option<JoinHandle<Result<usize>>>,
    /// How many searches are still to be made.
    wanted: u8,
    last: Option<Instant>,
}

impl EndedSockets {
    /// Prepares for searches; says so where they cannot be. Fails only for want of descriptors or memory.
    pub fn new(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let sockets = match prepare(pins, capacity) {
            Ok(sockets) => Some(Arc::new(sockets)),
            // A shortage says nothing of the kernel.
            Err(error) if is_exhausted(&error) => return Err(error),
            Err(error) => {
                tracing::warn!("{error:#}: {KEEPS_UDP_SOCKETS}");
                None
            }
        };
        Ok(Self { sockets, search: None, destruction: None, wanted: 0, last: None })
    }

    /// Whether such sockets are destroyed here.
    pub fn is_supported(&self) -> bool {
        self.sockets.is_some()
    }

    /// Has the sockets searched for: at once, and once more.
    pub fn want(&mut self) {
        (self.wanted, self.last) = (2, None);
    }

    /// Begins a search that is due.
    pub fn check(&mut self, pins: &Pins) {
        let Some(sockets) = &self.sockets else { return };
        let is_idle = self.search.is_none() && self.destruction.is_none();
        if is_idle && self.wanted > 0 && self.last.is_none_or(|last| last.elapsed() >= AGAIN) {
            (self.wanted, self.last) = (self.wanted - 1, Some(Instant::now()));
            let (pins, sockets) = (pins.clone(), sockets.clone());
            self.search = Some(tokio::task::spawn_blocking(move || search(&pins, &sockets)));
        }
    }

    /// Returns when a search has ended, the sockets whose endpoints are not in ENDPOINTS; or when a destruction has, none. Never
    /// without either.
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

    /// Begins to destroy sockets.
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
            Ok(destroyed) => tracing::info!("destroyed {destroyed} UDP sockets that were connected to endpoints which ended"),
            Err(error) => self.give_up(&error),
        }
    }

    /// After a failure: the sockets are searched for again if only descriptors or memory were short.
    fn give_up(&mut self, error: &anyhow::Error) {
        if is_exhausted(error) {
            self.wanted = self.wanted.max(1);
            exhaustion::report(error);
        } else {
            tracing::warn!("{error:#}; UDP sockets may stay connected to endpoints which ended");
        }
    }
}

fn prepare(pins: &Pins, capacity: Capacity) -> Result<SocketIterators> {
    ensure!(sock_diag::is_supported()?, "this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    SocketIterators::load(pins, capacity)
}

fn search(pins: &Pins, sockets: &SocketIterators) -> Result<Vec<EndedSocket>> {
    // Programs that chose an ended endpoint have noted it on the socket then.
    Grace::open(pins)?.wait()?;
    sockets.list()
}

/// Destroys sockets in their namespaces.
fn destroy(sockets: Vec<EndedSocket>) -> Result<usize> {
    let mut by_namespace: BTreeMap<u64, BTreeMap<u64, SocketAddr>> = BTreeMap::new();
    for EndedSocket { cookie, namespace, asked: _, peer } in sockets {
        by_namespace.entry(namespace).or_default().insert(cookie, peer);
    }
    let (mut destroyed, mut failure) = (0, None);
    for namespace in namespaces::all()? {
        let namespace = match namespace {
            Ok(namespace) => namespace,
            // The other namespaces' sockets have nothing to do with it.
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        // Where the kernel does not tell a namespace's cookie, the sockets' own have to do: they are told apart by them alone.
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
