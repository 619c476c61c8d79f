//! The server at each `healthCheckNodePort`. Load balancers ask it whether this node has endpoints of the Service.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::ConnectInfo,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    CONNECTIONS, Connections, EVERYWHERE, Published, ServiceHealth,
    listen::{self, ListenAddress},
};
use crate::model::{Family, PerFamily};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckAnswer {
    service: Name,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name {
    namespace: String,
    name: String,
}

/// Keeps one server per `healthCheckNodePort` of [`Published::checks`]. Does not return, as long as it holds `published`, which
/// has the sender of the checks.
pub async fn run(published: Arc<Published>) -> Result<()> {
    let mut checks = published.checks();
    let connections = Connections::new(CONNECTIONS);
    let mut servers: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted: Vec<u16> = checks.borrow_and_update().keys().copied().collect();
        servers.retain(|port, server| {
            let is_wanted = wanted.contains(port);
            if !is_wanted {
                server.abort();
            }
            is_wanted
        });
        for port in wanted {
            servers.entry(port).or_insert_with(|| tokio::spawn(serve(port, published.clone(), connections.clone())));
        }
        checks.changed().await.context("the agent's loop ended")?;
    }
}

async fn serve(port: u16, published: Arc<Published>, connections: Arc<Connections>) {
    let checks = published.checks();
    let name = match checks.borrow().get(&port) {
        Some(health) => format!("health checks of Service {} on port {port}", health.service),
        None => return,
    };
    let listener = listen::bind(&name, ListenAddress { address: (EVERYWHERE, port).into(), flag: None }).await;
    let router = Router::new().fallback(move |ConnectInfo(client): ConnectInfo<SocketAddr>| async move {
        answer(port, client.ip(), &checks, &published)
    });
    listen::serve(listener, router, connections).await;
}

fn answer(
    port: u16,
    client: IpAddr,
    checks: &watch::Receiver<BTreeMap<u16, ServiceHealth>>,
    published: &Published,
) -> Response {
    let Some(ServiceHealth { service, check }) = checks.borrow().get(&port).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let ready = ready(&check.ready, client);
    let is_healthy = published.is_healthy();
    let status = if ready > 0 && is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [("X-Content-Type-Options", "nosniff".to_owned()), ("X-Load-Balancing-Endpoint-Weight", ready.to_string())];
    let name = Name { namespace: service.namespace().to_owned(), name: service.name().to_owned() };
    let body = CheckAnswer { service: name, local_endpoints: ready, service_proxy_healthy: is_healthy };
    (status, headers, Json(body)).into_response()
}

/// The number of ready local endpoints of the client's address family. If the Service lacks that family, the number of the
/// other one.
fn ready(counts: &PerFamily<Option<usize>>, client: IpAddr) -> usize {
    let asked = *counts.get(Family::of(client.to_canonical()));
    asked.or(counts.v4).or(counts.v6).unwrap_or_default()
}
