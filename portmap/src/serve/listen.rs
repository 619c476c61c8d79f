//! Listening, tried again while a port is in use.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;

/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// At an address that a flag gives.
    Address(SocketAddr, &'static str),
    /// At a port of all addresses, of both families where the host has them.
    Everywhere(u16),
}

/// Listens as soon as the port is free; says once that it is not.
pub async fn bind(what: &str, place: Place) -> TcpListener {
    let mut said = false;
    loop {
        match place.bind().await {
            Ok(listener) => {
                if said {
                    tracing::info!("{what} are served now");
                }
                return listener;
            }
            Err(error) if !said => {
                tracing::warn!("failed to serve {what}, trying again: {error}{}", place.advice());
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl Place {
    async fn bind(self) -> io::Result<TcpListener> {
        match self {
            Self::Address(address, _) => TcpListener::bind(address).await,
            Self::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
                }
                bound => bound,
            },
        }
    }

    fn advice(self) -> String {
        match self {
            Self::Address(address, flag) => format!(" ({address}); give another address with {flag}"),
            Self::Everywhere(port) => format!(" (port {port})"),
        }
    }
}

/// Serves until it fails. Handlers can ask who the client is.
pub async fn serve(listener: TcpListener, router: Router) -> Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.context("an HTTP server failed")
}
