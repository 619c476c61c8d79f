//! Connected UDP sockets whose backend serves no more: nothing tells them, so they are destroyed, and connect anew.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::{
    maps::{bpf::BpfMaps, grace::Grace},
    network::{namespaces, sock_diag},
};

/// The search for such sockets.
#[derive(Default)]
pub struct Stale {
    search: Option<JoinHandle<Result<usize>>>,
    is_wanted: bool,
}

impl Stale {
    /// Has the sockets searched for.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Begins a search that is wanted, and reports one that has ended.
    pub async fn check(&mut self, pins: PathBuf) {
        if let Some(search) = self.search.take_if(|search| search.is_finished()) {
            match search.await.context("the search for stale UDP sockets crashed").flatten() {
                Ok(0) => {}
                Ok(destroyed) => {
                    tracing::info!("destroyed {destroyed} UDP sockets that were connected to endpoints which ended")
                }
                Err(error) => tracing::warn!("{error:#}; UDP sockets may stay connected to endpoints which ended"),
            }
        }
        if self.search.is_none() && std::mem::take(&mut self.is_wanted) {
            self.search = Some(tokio::task::spawn_blocking(move || search(&pins)));
        }
    }

    /// Returns when a search ends; never without one.
    pub async fn ended(&mut self) {
        match &mut self.search {
            Some(search) => {
                while !search.is_finished() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// Destroys the sockets of ended endpoints in their namespaces.
fn search(pins: &Path) -> Result<usize> {
    // Programs that chose such an endpoint have written down its socket then.
    Grace::open(pins)?.wait()?;
    let mut sockets: BTreeMap<u64, BTreeMap<u64, SocketAddr>> = BTreeMap::new();
    for (cookie, namespace, peer) in BpfMaps::open(pins)?.stale_sockets()? {
        sockets.entry(namespace).or_default().insert(cookie, peer);
    }
    if sockets.is_empty() {
        return Ok(0);
    }
    let mut destroyed = 0;
    for namespace in namespaces::all()? {
        // Where the kernel does not tell a namespace's cookie, the sockets' own have to do: they are told apart by them alone.
        let of_namespace = match namespace.cookie() {
            Ok(cookie) => sockets.get(&cookie).cloned().unwrap_or_default(),
            Err(_) => sockets.values().flatten().map(|(cookie, peer)| (*cookie, *peer)).collect(),
        };
        if !of_namespace.is_empty() {
            destroyed += namespace.enter(|| sock_diag::destroy_udp(&of_namespace))?;
        }
    }
    Ok(destroyed)
}
