//! The way to the API server, and back to it after trouble.
//!
//! Addresses, authorities and credentials change while an agent runs. Whoever is not let in, or finds nobody, reads them again
//! before the next request; watches do not notice, and go on from where they were. So does whoever finds another server there: which
//! of two routes a connection takes is for `connector` to know.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::connector::{Connector, Route};
use crate::{model::event::ObjectKind, source::Watches};

/// Nothing at all is heard for so long: the connection is given up. A watch hears a bookmark each minute, changes or not.
const SILENCE: Duration = Duration::from_secs(90);

/// For a connection to be made, TLS included.
const CONNECTING: Duration = Duration::from_secs(10);

/// No server makes us wait for longer.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// An API server.
pub struct Cluster {
    kubeconfig: Option<PathBuf>,
    /// Its address, for people.
    server: String,
    connector: Connector,
    way: Mutex<Way>,
    watches: Arc<Watches>,
}

/// How requests get there.
struct Way {
    client: Client,
    /// Clients before this one: what becomes of their requests says nothing of it.
    earlier: u64,
    is_doubted: bool,
    /// Until then the server does not want to be asked.
    rest: Instant,
}

impl Cluster {
    /// That of a kubeconfig file, else of `$KUBECONFIG`, `~/.kube/config` or the pod's service account.
    pub async fn open(kubeconfig: Option<&Path>, watches: Arc<Watches>) -> Result<Arc<Self>> {
        let config = configuration(kubeconfig).await?;
        tracing::info!("watching {}", config.cluster_url);
        let server = config.cluster_url.to_string();
        let connector = Connector::new();
        let client = new_client(config, &connector)?;
        let way = Mutex::new(Way { client, earlier: 0, is_doubted: false, rest: Instant::now() });
        Ok(Arc::new(Self { kubeconfig: kubeconfig.map(Path::to_owned), server, connector, way, watches }))
    }

    /// Its address, for people.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What is known of its watches.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// A client for the watch of one kind. Any answer but a refusal says that the watch works.
    pub fn client(self: &Arc<Self>, kind: ObjectKind) -> Client {
        let cluster = self.clone();
        let send = move |request| {
            let cluster = cluster.clone();
            async move { cluster.send(kind, request).await }
        };
        Client::new(service_fn(send), "default")
    }

    async fn send(&self, kind: ObjectKind, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let rest = self.way.lock().await.rest;
        sleep_until(rest).await;
        self.watches.asks(kind);
        let (client, number) = self.client_now().await;
        let outcome = client.send(request).await;
        let Ok(response) = outcome else {
            self.doubt(number).await;
            return outcome;
        };
        if response.status().is_success() {
            self.answered(kind, number).await;
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.doubt(number).await;
        }
        if let Some(wait) = wanted_wait(response.headers()) {
            self.way.lock().await.rest = Instant::now() + wait;
        }
        Ok(response)
    }

    /// The client for a request, and its number.
    async fn client_now(&self) -> (Client, u64) {
        let mut way = self.way.lock().await;
        if std::mem::take(&mut way.is_doubted) {
            self.connector.doubt();
            way.earlier += 1;
            match configuration(self.kubeconfig.as_deref()).await.and_then(|config| new_client(config, &self.connector)) {
                Ok(client) => way.client = client,
                Err(error) => tracing::warn!("going on with the credentials read before: {error:#}"),
            }
        }
        (way.client.clone(), way.earlier)
    }

    async fn answered(&self, kind: ObjectKind, client: u64) {
        if self.watches.works(kind) {
            tracing::info!("{kind} are watched again");
        }
        if self.way.lock().await.earlier == client && self.connector.answered() == Some(Route::Led) {
            tracing::warn!(
                "{} is reached only as portmap's own tables lead: if the API server's addresses change while no agent runs, the next \
                 one cannot find it; give the agent an address that works without Services (KUBERNETES_SERVICE_HOST)",
                self.server
            );
        }
    }

    async fn doubt(&self, client: u64) {
        let mut way = self.way.lock().await;
        way.is_doubted |= way.earlier == client;
    }
}

async fn configuration(kubeconfig: Option<&Path>) -> Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer()
            .await
            .context("found no cluster: give a kubeconfig with --kubeconfig, or a directory of objects with --manifests");
    };
    let file = Kubeconfig::read_from(path).with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("failed to use the kubeconfig {}", path.display()))
}

/// As kube makes one, but for the connections.
fn new_client(config: Config, connector: &Connector) -> Result<Client> {
    const FAILED: &str = "failed to make a client of the API server";
    if config.proxy_url.is_some() {
        // It says that there are no proxies here.
        return Client::try_from(config).context(FAILED);
    }
    let https = config.rustls_https_connector_with_connector(connector.service()).context(FAILED)?;
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(CONNECTING));
    connector.set_read_timeout(Some(SILENCE));
    // Or the time that a connection lay idle would count.
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build(connector);
    // There is no layer that tries again: in silence it could not say what is wrong.
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().context(FAILED)?)
        .layer(config.extra_headers_layer().context(FAILED)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// How long a server that turned a request away wants not to be asked.
fn wanted_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_the_time_it_asks_for() {
        let wait = |text: &'static str| wanted_wait(&[(RETRY_AFTER, text.parse().expect("a header"))].into_iter().collect());
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(LONGEST_WAIT));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(wanted_wait(&HeaderMap::new()), None);
    }
}
