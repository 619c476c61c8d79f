//! Connected UDP sockets whose backend serves no more: nothing tells them, so they are destroyed, and connect anew.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::{
    datapath::{
        pin::Pins,
        stale::{StaleSocket, StaleSockets},
    },
    maps::{Capacity, grace::Grace},
    network::{namespaces, sock_diag},
};

/// Between the two searches after endpoints ended: a client may be on its way through `connect()` during the first.
const AGAIN: Duration = Duration::from_secs(1);

/// The search for such sockets.
pub struct Stale {
    /// None where the kernel cannot find or destroy them.
    sockets: Option<Arc<StaleSockets>>,
    search: Option<JoinHandle<Result<usize>>>,
    /// How many searches are still to be made.
    wanted: u8,
    last: Option<Instant>,
}

impl Stale {
    /// Prepares for searches; says so where they cannot be.
    pub fn new(pins: &Pins, capacity: Capacity) -> Self {
        let sockets = prepare(pins, capacity);
        if let Err(error) = &sockets {
            tracing::warn!("{error:#}: connected UDP sockets stay with endpoints that end");
        }
        Self { sockets: sockets.ok().map(Arc::new), search: None, wanted: 0, last: None }
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
    pub fn check(&mut self, pins: PathBuf) {
        let Some(sockets) = &self.sockets else { return };
        if self.search.is_none() && self.wanted > 0 && self.last.is_none_or(|last| last.elapsed() >= AGAIN) {
            (self.wanted, self.last) = (self.wanted - 1, Some(Instant::now()));
            let sockets = sockets.clone();
            self.search = Some(tokio::task::spawn_blocking(move || search(&pins, &sockets)));
        }
    }

    /// Returns when a search has ended, and was reported; never without one.
    pub async fn ended(&mut self) {
        let Some(search) = &mut self.search else { return std::future::pending().await };
        let result = search.await.context("the search for stale UDP sockets crashed").flatten();
        self.search = None;
        match result {
            Ok(0) => {}
            Ok(destroyed) => tracing::info!("destroyed {destroyed} UDP sockets that were connected to endpoints which ended"),
            Err(error) => tracing::warn!("{error:#}; UDP sockets may stay connected to endpoints which ended"),
        }
    }
}

fn prepare(pins: &Pins, capacity: Capacity) -> Result<StaleSockets> {
    ensure!(sock_diag::is_supported()?, "this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    StaleSockets::load(pins, capacity)
}

/// Destroys the sockets of ended endpoints in their namespaces.
fn search(pins: &Path, stale: &StaleSockets) -> Result<usize> {
    // Programs that chose such an endpoint have noted it on the socket then.
    Grace::open(pins)?.wait()?;
    let mut sockets: BTreeMap<u64, BTreeMap<u64, SocketAddr>> = BTreeMap::new();
    for StaleSocket { cookie, namespace, peer } in stale.list()? {
        sockets.entry(namespace).or_default().insert(cookie, peer);
    }
    if sockets.is_empty() {
        return Ok(0);
    }
    let (mut destroyed, mut failure) = (0, None);
    for namespace in namespaces::all()? {
        // Where the kernel does not tell a namespace's cookie, the sockets' own have to do: they are told apart by them alone.
        let of_namespace = match namespace.cookie() {
            Ok(cookie) => sockets.get(&cookie).cloned().unwrap_or_default(),
            Err(_) => sockets.values().flatten().map(|(cookie, peer)| (*cookie, *peer)).collect(),
        };
        if of_namespace.is_empty() {
            continue;
        }
        match namespace.enter(|| sock_diag::destroy_udp(&of_namespace)) {
            Ok(count) => destroyed += count,
            // The other namespaces' sockets have nothing to do with it.
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(destroyed),
    }
}
