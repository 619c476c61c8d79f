//! The API server as a source: lists and watches Services, EndpointSlices, ServiceCIDRs and the own Node.

mod connection;
mod connector;

use std::{fmt::Debug, path::Path, pin::pin, sync::Arc};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::{discovery::v1::EndpointSlice, networking::v1::ServiceCIDRSpec};
use kube::{
    Api, Resource,
    api::{ApiResource, NotUsed},
    core::{GroupVersionKind, object::Object as Manifest},
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{Events, Watches};
use crate::model::event::{Event, Object, ObjectKind, Wanted};
use crate::{
    error_text,
    model::object::{HEADLESS_LABEL, PROXY_NAME_LABEL, object_name},
};
use connection::Cluster;

/// The versions of ServiceCIDR, the newest first. An API server has one, or neither.
const CIDR_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Finds the API server of a kubeconfig file, else of `$KUBECONFIG`, `~/.kube/config` or the pod's service account.
pub async fn open(kubeconfig: Option<&Path>, watches: Arc<Watches>) -> Result<Arc<Cluster>> {
    Cluster::open(kubeconfig, watches).await
}

/// Watches until a watch ends, which none does by itself: what fails is tried again, with backoff.
pub async fn run(cluster: Arc<Cluster>, wanted: Wanted, events: Events) -> Result<()> {
    let watch = |kind| KindWatch { cluster: &cluster, events: &events, kind };
    let (ours, others) = match &wanted.proxy_name {
        Some(name) => (format!("{PROXY_NAME_LABEL}={name}"), format!("{PROXY_NAME_LABEL}!={name}")),
        None => (format!("!{PROXY_NAME_LABEL}"), PROXY_NAME_LABEL.to_owned()),
    };
    // Headless Services have nothing to translate.
    let with_address = || watcher::Config::default().fields("spec.clusterIP!=None");
    let slices = watcher::Config::default().labels(&format!("!{HEADLESS_LABEL}"));
    let node = watcher::Config::default().fields(&format!("metadata.name={}", wanted.node));
    tokio::try_join!(
        watch(ObjectKind::Service).run(with_address().labels(&ours), Object::service),
        watch(ObjectKind::OtherService).run(with_address().labels(&others), Object::other_service),
        watch(ObjectKind::Slice).run(slices, |slice: EndpointSlice| Object::slice(slice, &wanted.node)),
        watch(ObjectKind::Node).run(node, Object::node),
        watch(ObjectKind::ServiceCidr).run_service_cidrs(),
    )?;
    Ok(())
}

/// The watch of a kind, and what hears of it.
#[derive(Clone, Copy)]
struct KindWatch<'a> {
    cluster: &'a Arc<Cluster>,
    events: &'a Events,
    kind: ObjectKind,
}

/// What an error means for a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// It is tried again from where it was.
    Retry,
    /// What it would go on from is forgotten: everything is listed anew.
    Relist,
    /// The API server does not have the kind.
    Unserved,
    /// The API server does not let us see the kind.
    Forbidden,
}

impl KindWatch<'_> {
    /// Watches all objects of a kind. What has to be listed anew is.
    async fn run<K>(self, config: watcher::Config, convert: impl Fn(K) -> Object) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = Api::all(self.cluster.client(self.kind));
        let mut trouble = Trouble::default();
        loop {
            self.follow(&api, &config, &convert, &mut trouble).await?;
        }
    }

    /// As [`Self::run`], in the version that the API server has.
    async fn run_service_cidrs(self) -> Result<()> {
        let convert = |cidr: Manifest<ServiceCIDRSpec, NotUsed>| {
            let (object, faults) = Object::service_cidr(&cidr.metadata, cidr.spec);
            for fault in faults {
                tracing::warn!("{fault}");
            }
            object
        };
        let mut trouble = Trouble::default();
        for version in CIDR_VERSIONS.into_iter().cycle() {
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.k8s.io", version, "ServiceCIDR"));
            let api = Api::all_with(self.cluster.client(self.kind), &kind);
            self.follow(&api, &watcher::Config::default(), &convert, &mut trouble).await?;
        }
        bail!("there is no version of {}", self.kind)
    }

    /// Follows one watch until it has to begin anew, or the API server does not have the kind. Nothing is sent of a list before it
    /// is complete.
    async fn follow<K>(
        self,
        api: &Api<K>,
        config: &watcher::Config,
        convert: impl Fn(K) -> Object,
        trouble: &mut Trouble,
    ) -> Result<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut stream = pin!(watcher(api.clone(), config.clone()));
        let mut listed = Vec::new();
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.push(convert(object));
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    trouble.end();
                    Event::Listed(self.kind, std::mem::take(&mut listed))
                }
                Ok(watcher::Event::Apply(object)) => {
                    trouble.calm();
                    Event::Changed(convert(object))
                }
                Ok(watcher::Event::Delete(object)) => {
                    trouble.calm();
                    Event::Removed(self.kind, object_name(object.meta()))
                }
                Err(error) => match self.fail(&error, trouble).await? {
                    Recovery::Retry | Recovery::Forbidden => continue,
                    Recovery::Relist | Recovery::Unserved => return Ok(()),
                },
            };
            self.send(event).await?;
        }
        bail!("the watch of {} ended", self.kind)
    }

    /// Says what is wrong, and waits.
    async fn fail(self, error: &watcher::Error, trouble: &mut Trouble) -> Result<Recovery> {
        let verdict = verdict(error);
        let is_missing = self.kind.is_optional() && matches!(verdict, Recovery::Unserved | Recovery::Forbidden);
        let is_new = trouble.report(self.cluster.server(), self.kind, error);
        if !is_missing {
            self.cluster.watches().fails(self.kind);
        } else if is_new {
            // That is as good as none of it.
            self.send(Event::Listed(self.kind, Vec::new())).await?;
        }
        trouble.wait().await;
        Ok(verdict)
    }

    async fn send(self, event: Event) -> Result<()> {
        self.events.send(event).await.context("the agent's loop ended")
    }
}

fn verdict(error: &watcher::Error) -> Recovery {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410 => Recovery::Relist,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 404 =>
        {
            Recovery::Unserved
        }
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403 => Recovery::Forbidden,
        watcher::Error::WatchStartFailed(_)
        | watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => Recovery::Retry,
    }
}

/// What is wrong with a watch, said once, and how long to wait before it is tried again.
#[derive(Default)]
struct Trouble {
    last: Option<String>,
    backoff: DefaultBackoff,
}

impl Trouble {
    /// True if it was not said just before.
    fn report(&mut self, server: &str, kind: ObjectKind, error: &watcher::Error) -> bool {
        let text = error_text::of_error(error);
        if self.last.as_ref() == Some(&text) {
            return false;
        }
        tracing::warn!("failed to watch {kind} at {server}, trying again; the tables stay as they are: {text}");
        self.last = Some(text);
        true
    }

    async fn wait(&mut self) {
        if let Some(wait) = self.backoff.next() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Everything is known again. A list alone is no reason to hurry next time: it may be all that a server manages.
    fn end(&mut self) {
        self.last = None;
    }

    /// The watch itself works.
    fn calm(&mut self) {
        self.backoff.reset();
    }
}
