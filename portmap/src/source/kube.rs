//! The API server as a source: lists and watches Services, EndpointSlices and the own Node.

use std::{fmt::Debug, path::Path, pin::pin};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{Event, Events, Kind, Object};
use crate::{
    message,
    object::{HEADLESS_LABEL, PROXY_NAME_LABEL, object_name},
};

/// An API server.
pub struct Cluster {
    client: Client,
    /// Its address, for people.
    server: String,
}

/// A client of the API server: of a kubeconfig file, else of `$KUBECONFIG`, `~/.kube/config` or the pod's service account.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Cluster> {
    let config = match kubeconfig {
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("failed to use the kubeconfig {}", path.display()))?
        }
        None => Config::infer()
            .await
            .context("found no cluster: give a kubeconfig with --kubeconfig, or a directory of objects with --manifests")?,
    };
    tracing::info!("watching {}", config.cluster_url);
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).context("failed to make a client of the API server")?;
    Ok(Cluster { client, server })
}

/// Watches until a watch ends, which none does by itself: what fails is tried again, with backoff.
pub async fn run(cluster: Cluster, node: String, events: Events) -> Result<()> {
    let Cluster { client, server } = cluster;
    // Services that name another proxy are not ours, and headless ones have nothing to translate.
    let services = watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL}")).fields("spec.clusterIP!=None");
    let slices = watcher::Config::default().labels(&format!("!{HEADLESS_LABEL}"));
    tokio::try_join!(
        watch::<Service>(
            Api::all(client.clone()),
            services,
            &server,
            Kind::Service,
            |service| Object::Service(service.into()),
            &events
        ),
        watch::<EndpointSlice>(
            Api::all(client.clone()),
            slices,
            &server,
            Kind::Slice,
            |slice| Object::Slice(slice.into()),
            &events
        ),
        watch_node(Api::all(client), &server, &node),
    )?;
    Ok(())
}

/// Watches all objects of a kind. Nothing is sent of a list before it is complete.
async fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    server: &str,
    kind: Kind,
    convert: fn(K) -> Object,
    events: &Events,
) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    let mut trouble = Trouble::default();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                trouble.report(server, &format!("{kind}s"), &error);
                continue;
            }
        };
        let event = match event {
            watcher::Event::Init => {
                listed.clear();
                continue;
            }
            watcher::Event::InitApply(object) => {
                listed.push(convert(object));
                continue;
            }
            watcher::Event::InitDone => {
                trouble.end(&format!("{kind}s"));
                Event::Listed(kind, std::mem::take(&mut listed))
            }
            watcher::Event::Apply(object) => Event::Changed(convert(object)),
            watcher::Event::Delete(object) => Event::Removed(kind, object_name(object.meta().clone())),
        };
        events.send(event).await.context("the agent's loop ended")?;
    }
    bail!("the watch of {kind}s ended")
}

/// Watches the own Node: endpoints are recognised as local by its name.
async fn watch_node(api: Api<Node>, server: &str, name: &str) -> Result<()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = pin!(watcher(api, config).default_backoff());
    let (mut exists, mut trouble) = (false, Trouble::default());
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => exists = false,
            Ok(watcher::Event::InitApply(_) | watcher::Event::Apply(_)) => exists = true,
            Ok(watcher::Event::InitDone) if exists => tracing::info!("this is Node {name}"),
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                tracing::warn!("there is no Node {name}: no endpoint counts as local; give this node's name with --node-name");
            }
            Err(error) => trouble.report(server, &format!("the Node {name}"), &error),
        }
    }
    bail!("the watch of the Node {name} ended")
}

/// What is wrong with a watch, said once.
#[derive(Default)]
struct Trouble {
    last: Option<String>,
}

impl Trouble {
    fn report(&mut self, server: &str, what: &str, error: &watcher::Error) {
        let text = message::of_error(error);
        if self.last.as_ref() != Some(&text) {
            tracing::warn!("failed to watch {what} at {server}, trying again; the tables stay as they are: {text}");
            self.last = Some(text);
        }
    }

    fn end(&mut self, what: &str) {
        if self.last.take().is_some() {
            tracing::info!("{what} are watched again");
        }
    }
}
