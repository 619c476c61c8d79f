//! The way to the API server, and back to it after trouble.
//!
//! Addresses, authorities and credentials change while an agent runs. Whoever is not let in, or finds nobody, reads them again
//! before the next request; watches do not notice, and go on from where they were.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use tower::service_fn;

use crate::source::{Kind, Watches};

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
    way: Mutex<Way>,
    watches: Arc<Watches>,
}

/// How requests get there.
struct Way {
    client: Client,
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
        let way = Mutex::new(Way { client: new_client(config)?, is_doubted: false, rest: Instant::now() });
        Ok(Arc::new(Self { kubeconfig: kubeconfig.map(Path::to_owned), server, way, watches }))
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
    pub fn client(self: &Arc<Self>, kind: Kind) -> Client {
        let cluster = self.clone();
        let send = move |request| {
            let cluster = cluster.clone();
            async move { cluster.send(kind, request).await }
        };
        Client::new(service_fn(send), "default")
    }

    async fn send(&self, kind: Kind, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let rest = self.way.lock().await.rest;
        sleep_until(rest).await;
        self.watches.asks(kind);
        let outcome = self.client_now().await.send(request).await;
        let Ok(response) = outcome else {
            self.doubt().await;
            return outcome;
        };
        if response.status().is_success() && self.watches.works(kind) {
            tracing::info!("{kind} are watched again");
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.doubt().await;
        }
        if let Some(wait) = wanted_wait(response.headers()) {
            self.way.lock().await.rest = Instant::now() + wait;
        }
        Ok(response)
    }

    async fn client_now(&self) -> Client {
        let mut way = self.way.lock().await;
        if std::mem::take(&mut way.is_doubted) {
            match configuration(self.kubeconfig.as_deref()).await.and_then(new_client) {
                Ok(client) => way.client = client,
                Err(error) => tracing::warn!("going on with the credentials read before: {error:#}"),
            }
        }
        way.client.clone()
    }

    async fn doubt(&self) {
        self.way.lock().await.is_doubted = true;
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

fn new_client(mut config: Config) -> Result<Client> {
    config.connect_timeout = Some(CONNECTING);
    config.read_timeout = Some(SILENCE);
    // Or the time that a connection lay idle would count.
    config.reset_reader_on_write = true;
    // What tries again in silence cannot say what is wrong.
    config.default_retry = false;
    Client::try_from(config).context("failed to make a client of the API server")
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
