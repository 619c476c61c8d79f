//! What the agent answers over HTTP: its health, health checks for load balancers, and metrics.
//!
//! The loop writes what it knows into [`Facts`]; the servers only read it.

mod checks;
mod facts;
mod health;
mod listen;
mod metrics;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{Router, routing::get};

pub use facts::{Facts, ServiceHealth};
use listen::Place;
pub use metrics::{Metrics, Sync};

/// Where to listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// For `/healthz`, `/livez` and `/readyz`; none: nowhere.
    pub health: Option<SocketAddr>,
    /// For `/metrics`; none: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Serves until one of the servers fails, which none does for want of a port: that is tried again.
pub async fn run(addresses: Addresses, facts: Arc<Facts>, metrics: Arc<Metrics>) -> Result<()> {
    tokio::try_join!(
        optional("health checks", "--healthz-bind-address", addresses.health, health::router(facts.clone(), metrics.clone())),
        optional("metrics", "--metrics-bind-address", addresses.metrics, metrics_router(facts.clone(), metrics)),
        checks::run(facts),
    )?;
    Ok(())
}

async fn optional(what: &str, flag: &'static str, address: Option<SocketAddr>, router: Router) -> Result<()> {
    match address {
        Some(address) => listen::serve(listen::bind(what, Place::Address(address, flag)).await, router).await,
        None => std::future::pending().await,
    }
}

fn metrics_router(facts: Arc<Facts>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { metrics.answer() }))
        .route("/proxyMode", get(|| async { "portmap" }))
        .merge(health::plain_router(facts))
}
