//! The HTTP client of the API server, and its recovery after errors.
//!
//! Addresses, certificate authorities and credentials change while an agent runs. After a request without a response, or with a
//! 401 Unauthorized, the configuration is read again before the next request. Watches then continue from their resourceVersion,
//! if the API server still has it. [`super::connector`] makes the TCP connections, and selects their route.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::{
    configuration::ClusterConfig,
    connector::{Connector, Route},
};
use crate::{model::event::ObjectKind, source::Watches};

/// A connection without any data for this time is closed. A watch gets a bookmark each minute, even without changes.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Timeout of a new connection, including the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum of the wait that a server requests by `Retry-After`.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// An API server, with one HTTP client for all watches.
pub struct Cluster {
    /// `--kubeconfig` and `--context`, read again after errors.
    config: ClusterConfig,
    /// The URL of the API server at the start, for log lines.
    server: String,
    connector: Connector,
    access: Mutex<Access>,
    watches: Arc<Watches>,
}

/// The current HTTP client, and the state of the API server.
struct Access {
    client: Client,
    /// The number of this client: it grows with each attempt to renew the client. Successes and failures of requests under an
    /// earlier number are not counted for this client.
    earlier: u64,
    /// Whether the configuration is read again before the next request.
    is_outdated: bool,
    /// No request is sent before this time, by `Retry-After` of the server.
    not_before: Instant,
}

impl Cluster {
    /// See [`super::open`].
    pub async fn open(place: ClusterConfig, watches: Arc<Watches>) -> Result<Arc<Self>> {
        let config = place.read().await?;
        tracing::info!("watching {}", config.cluster_url);
        let server = config.cluster_url.to_string();
        let connector = Connector::new();
        let client = new_client(config, &connector)?;
        let access = Mutex::new(Access { client, earlier: 0, is_outdated: false, not_before: Instant::now() });
        Ok(Arc::new(Self { config: place, server, connector, access, watches }))
    }

    /// The URL of the API server at the start, for log lines.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The state of the watches of this API server.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// A client for the watch of one kind. A successful response records that the watch works.
    pub fn client(self: &Arc<Self>, kind: ObjectKind) -> Client {
        self.client_for(Some(kind))
    }

    /// A client for requests that are no watch.
    pub fn plain_client(self: &Arc<Self>) -> Client {
        self.client_for(None)
    }

    fn client_for(self: &Arc<Self>, kind: Option<ObjectKind>) -> Client {
        let cluster = self.clone();
        let send = move |request| {
            let cluster = cluster.clone();
            async move { cluster.send(kind, request).await }
        };
        Client::new(service_fn(send), "default")
    }

    /// Sends a request of the watch of a kind, or a request that is no watch.
    async fn send(&self, kind: Option<ObjectKind>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let not_before = self.access.lock().await.not_before;
        sleep_until(not_before).await;
        if let Some(kind) = kind {
            self.watches.requested(kind);
        }
        let (client, number) = self.client_now().await;
        let outcome = client.send(request).await;
        let Ok(response) = outcome else {
            self.mark_outdated(number).await;
            return outcome;
        };
        if response.status().is_success() {
            self.answered(kind, number).await;
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.mark_outdated(number).await;
        }
        if let Some(wait) = requested_wait(response.headers()) {
            self.access.lock().await.not_before = Instant::now() + wait;
        }
        Ok(response)
    }

    /// The client for a request, and its number. If the configuration is outdated, reads it again and creates a new client.
    /// If that fails, the former client is used under a new number.
    async fn client_now(&self) -> (Client, u64) {
        let mut access = self.access.lock().await;
        if std::mem::take(&mut access.is_outdated) {
            self.connector.failed();
            access.earlier += 1;
            match self.config.read().await.and_then(|config| new_client(config, &self.connector)) {
                Ok(client) => access.client = client,
                Err(error) => {
                    tracing::warn!("failed to renew the configuration of the API server, using the former one: {error:#}");
                }
            }
        }
        (access.client.clone(), access.earlier)
    }

    /// Records a successful response to a request of the client with this number. Warns if the response came over a translated
    /// connection, and the response before did not.
    async fn answered(&self, kind: Option<ObjectKind>, client: u64) {
        if let Some(kind) = kind.filter(|kind| self.watches.succeeded(*kind)) {
            tracing::info!("{kind} are watched again");
        }
        if self.access.lock().await.earlier == client && self.connector.answered() == Some(Route::Translated) {
            tracing::warn!(
                "{} is reachable only through portmap's own translation: if the API server's addresses change while no agent runs, \
                 the next agent cannot connect; give the agent an address that works without Services (KUBERNETES_SERVICE_HOST)",
                self.server
            );
        }
    }

    /// Marks the configuration to be read again before the next request, unless the client with this number is already
    /// replaced.
    async fn mark_outdated(&self, client: u64) {
        let mut access = self.access.lock().await;
        access.is_outdated |= access.earlier == client;
    }
}

/// A client for the configuration. Like the client of kube-rs, but with the connections of `connector` and without retries.
pub fn new_client(config: Config, connector: &Connector) -> Result<Client> {
    const FAILED: &str = "failed to create a client of the API server";
    if config.proxy_url.is_some() {
        // Fails: kube-rs is built without support for proxies, and its error says so.
        return Client::try_from(config).context(FAILED);
    }
    let https = config.rustls_https_connector_with_connector(connector.service()).context(FAILED)?;
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(READ_TIMEOUT));
    // Without this, the read timeout would include the time in which the connection was idle.
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build(connector);
    // No retry layer: it would repeat requests without a log line.
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().context(FAILED)?)
        .layer(config.extra_headers_layer().context(FAILED)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// The wait that a server requests by `Retry-After` in seconds, at most `MAX_WAIT`. A date is ignored.
fn requested_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_that_a_server_requests_is_limited() {
        let wait = |text: &'static str| requested_wait(&[(RETRY_AFTER, text.parse().expect("a header"))].into_iter().collect());
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(MAX_WAIT));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(requested_wait(&HeaderMap::new()), None);
    }
}
