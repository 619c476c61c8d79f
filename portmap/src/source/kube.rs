//! The API server as a source: lists and watches Services, EndpointSlices, ServiceCIDRs and the own Node.

use std::{fmt::Debug, path::Path, pin::pin};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
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

use super::{Event, Events, Kind, Object, Wanted};
use crate::{
    message,
    object::{self, HEADLESS_LABEL, PROXY_NAME_LABEL, object_name},
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
pub async fn run(cluster: Cluster, wanted: Wanted, events: Events) -> Result<()> {
    let Cluster { client, server } = cluster;
    let watch = Watch { server: &server, events: &events };
    let (ours, others) = match &wanted.proxy_name {
        Some(name) => (format!("{PROXY_NAME_LABEL}={name}"), format!("{PROXY_NAME_LABEL}!={name}")),
        None => (format!("!{PROXY_NAME_LABEL}"), PROXY_NAME_LABEL.to_owned()),
    };
    // Headless Services have nothing to translate.
    let with_address = || watcher::Config::default().fields("spec.clusterIP!=None");
    let slices = watcher::Config::default().labels(&format!("!{HEADLESS_LABEL}"));
    let node = watcher::Config::default().fields(&format!("metadata.name={}", wanted.node));
    let of_services = || Api::<Service>::all(client.clone());
    let cidrs = Api::<ServiceCIDR>::all(client.clone());
    tokio::try_join!(
        watch.run(of_services(), with_address().labels(&ours), Kind::Service, |service| Object::Service(service.into())),
        watch.run(of_services(), with_address().labels(&others), Kind::OtherService, |service| {
            Object::OtherService(service.into())
        }),
        watch.run(Api::<EndpointSlice>::all(client.clone()), slices, Kind::Slice, |slice| Object::Slice(slice.into())),
        watch.run(Api::<Node>::all(client.clone()), node, Kind::Node, |node| {
            Object::Node(object_name(node.metadata.clone()), node.into())
        }),
        watch.run(cidrs, watcher::Config::default(), Kind::ServiceCidr, |cidr| {
            Object::ServiceCidr(object_name(cidr.metadata.clone()), object::cidrs(cidr))
        }),
    )?;
    Ok(())
}

/// Where watches watch, and what hears of it.
#[derive(Clone, Copy)]
struct Watch<'a> {
    server: &'a str,
    events: &'a Events,
}

impl Watch<'_> {
    /// Watches all objects of a kind. Nothing is sent of a list before it is complete.
    async fn run<K>(self, api: Api<K>, config: watcher::Config, kind: Kind, convert: fn(K) -> Object) -> Result<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let Self { server, events } = self;
        let mut stream = pin!(watcher(api, config).default_backoff());
        let mut listed = Vec::new();
        let mut trouble = Trouble::default();
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let is_new = trouble.report(server, kind, &error);
                    if is_new && kind.is_optional() && is_unknown(&error) {
                        // An older cluster does not have the kind: that is as good as none of it.
                        events.send(Event::Listed(kind, Vec::new())).await.context("the agent's loop ended")?;
                    }
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
                    trouble.end(kind);
                    Event::Listed(kind, std::mem::take(&mut listed))
                }
                watcher::Event::Apply(object) => Event::Changed(convert(object)),
                watcher::Event::Delete(object) => Event::Removed(kind, object_name(object.meta().clone())),
            };
            events.send(event).await.context("the agent's loop ended")?;
        }
        bail!("the watch of {kind} ended")
    }
}

/// Whether the API server does not know the kind, or does not let us see it.
fn is_unknown(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 403 | 404)
}

/// What is wrong with a watch, said once.
#[derive(Default)]
struct Trouble {
    last: Option<String>,
}

impl Trouble {
    /// True if it was not said just before.
    fn report(&mut self, server: &str, kind: Kind, error: &watcher::Error) -> bool {
        let text = message::of_error(error);
        if self.last.as_ref() == Some(&text) {
            return false;
        }
        tracing::warn!("failed to watch {kind} at {server}, trying again; the tables stay as they are: {text}");
        self.last = Some(text);
        true
    }

    fn end(&mut self, kind: Kind) {
        if self.last.take().is_some() {
            tracing::info!("{kind} are watched again");
        }
    }
}
