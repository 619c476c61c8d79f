//! The agent's HTTP servers: probes of its health, health checks for load balancers, and metrics.
//!
//! The agent's loop writes [`Published`] and [`Metrics`]. The servers read them, and count their answers to probes.

mod connections;
mod listen;
mod metrics;
mod node_port_checks;
mod probes;
mod published;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{Router, routing::get};
use futures::future::join_all;

use connections::Connections;
pub use listen::EVERYWHERE;
use listen::ListenAddress;
pub use metrics::{Metrics, SyncKind};
pub use published::{Published, ServiceHealth};

/// The most connections that are open at once: of each server of `--healthz-bind-address` and `--metrics-bind-address`, and
/// of all servers of `healthCheckNodePort`s together.
const CONNECTIONS: usize = 64;

/// The addresses of the servers. [`EVERYWHERE`] includes the addresses of IPv4.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The addresses of `/healthz`, `/livez` and `/readyz`.
    pub health: Vec<SocketAddr>,
    /// The address of `/metrics` and `/proxyMode`, and of a plain `/healthz` and `/readyz`; none: no server.
    pub metrics: Option<SocketAddr>,
}

/// Runs all servers until its task ends: it does not return by itself. A server that cannot listen tries again until it can.
pub async fn run(addresses: Addresses, published: Arc<Published>, metrics: Arc<Metrics>) -> Result<()> {
    let Addresses { health, metrics: metrics_at } = addresses;
    let health_router = probes::router(published.clone(), metrics.clone());
    let metrics_router = metrics_router(published.clone(), metrics);
    let health = health.iter().map(|at| serve_at(*at, "health checks", "--healthz-bind-address", &health_router));
    let metrics = metrics_at.iter().map(|at| serve_at(*at, "metrics", "--metrics-bind-address", &metrics_router));
    let servers = async {
        join_all(health.chain(metrics)).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = node_port_checks::run(published) => ended,
        () = servers => Ok(()),
    }
}

async fn serve_at(address: SocketAddr, name: &str, flag: &'static str, router: &Router) {
    let listener = listen::bind(name, ListenAddress { address, flag: Some(flag) }).await;
    listen::serve(listener, router.clone(), Connections::new(CONNECTIONS)).await;
}

fn metrics_router(published: Arc<Published>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { metrics.answer() }))
        .route("/proxyMode", get(|| async { "portmap" }))
        .merge(probes::plain_router(published))
}
