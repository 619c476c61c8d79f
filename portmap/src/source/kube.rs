//! The API server as a source: lists and watches Services, EndpointSlices, ServiceCIDRs and the agent's Node.
//!
//! The watcher of kube-rs lists objects, watches them, and resumes an interrupted watch from its last resourceVersion. After
//! a 410 Gone in the middle of a watch it returns the error once, and lists again at the next poll. After a 410 at the start
//! of a watch it would repeat its request for ever: this module handles that case. [`connection`] has the HTTP client.

mod configuration;
mod connection;
mod connector;
pub mod events;
pub mod list;

use std::{fmt::Debug, pin::pin, sync::Arc};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::ServiceCIDRSpec;
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
    model::object::{EndpointSlice, HEADLESS_LABEL, PROXY_NAME_LABEL, object_name},
};
pub use configuration::ClusterConfig;
use connection::Cluster;

/// The versions of ServiceCIDR, the newest first. An API server may have one, both or neither.
const CIDR_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Configures the connection to the API server. Does not connect.
///
/// # Errors
///
/// There is no configuration, or it is invalid.
pub async fn open(config: ClusterConfig, watches: Arc<Watches>) -> Result<Arc<Cluster>> {
    Cluster::open(config, watches).await
}

/// Watches all kinds of objects and sends their events. Failed requests are repeated with backoff.
///
/// # Errors
///
/// The agent's loop has ended.
pub async fn run(cluster: Arc<Cluster>, wanted: Wanted, events: Events) -> Result<()> {
    let watch = |kind| KindWatch { cluster: &cluster, events: &events, kind };
    let Selectors { services, ours, others, slices, node } = Selectors::of(&wanted);
    let with_address = || watcher::Config::default().fields(&services);
    let slices = watcher::Config::default().labels(&slices);
    let node = watcher::Config::default().fields(&node);
    tokio::try_join!(
        watch(ObjectKind::Service).run(with_address().labels(&ours), Object::service),
        watch(ObjectKind::OtherService).run(with_address().labels(&others), Object::other_service),
        watch(ObjectKind::Slice).run(slices, |slice: EndpointSlice| Object::slice(slice, &wanted.node)),
        watch(ObjectKind::Node).run(node, Object::node),
        watch(ObjectKind::ServiceCidr).run_service_cidrs(),
    )?;
    Ok(())
}

/// The selectors of the objects that portmap uses.
struct Selectors {
    /// Fields of Services. Headless Services have no address to translate.
    services: String,
    /// Labels of the Services that portmap serves.
    ours: String,
    /// Labels of the Services that other proxies serve.
    others: String,
    /// Labels of EndpointSlices.
    slices: String,
    /// Fields of the Node.
    node: String,
}

impl Selectors {
    fn of(wanted: &Wanted) -> Self {
        let (ours, others) = match &wanted.proxy_name {
            Some(name) => (format!("{PROXY_NAME_LABEL}={name}"), format!("{PROXY_NAME_LABEL}!={name}")),
            None => (format!("!{PROXY_NAME_LABEL}"), PROXY_NAME_LABEL.to_owned()),
        };
        Self {
            services: "spec.clusterIP!=None".to_owned(),
            ours,
            others,
            slices: format!("!{HEADLESS_LABEL}"),
            node: format!("metadata.name={}", wanted.node),
        }
    }
}

/// The watch of one kind of objects at the API server.
#[derive(Clone, Copy)]
struct KindWatch<'a> {
    cluster: &'a Arc<Cluster>,
    events: &'a Events,
    kind: ObjectKind,
}

/// The reaction of a watch to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// The watcher continues: it repeats the request, or lists again (for example after a 410 Gone in the middle of a watch).
    Retry,
    /// The resourceVersion is too old to start a watch; a new watcher lists all objects.
    Relist,
    /// The API server does not have the kind in this version. A new watcher starts; for ServiceCIDRs it uses the next version.
    Unserved,
    /// The agent may not list the kind. The watcher repeats the request.
    Forbidden,
}

impl KindWatch<'_> {
    /// Watches the objects that `config` selects. Starts a new watcher whenever the old one has to be replaced.
    async fn run<K>(self, config: watcher::Config, convert: impl Fn(K) -> Object) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = Api::all(self.cluster.client(self.kind));
        let mut failures = Failures::default();
        loop {
            self.follow(&api, &config, &convert, &mut failures).await?;
        }
    }

    /// Watches ServiceCIDRs in one version. A new watcher uses the next version, and after the last version the first.
    async fn run_service_cidrs(self) -> Result<()> {
        let convert = |cidr: Manifest<ServiceCIDRSpec, NotUsed>| {
            let (object, faults) = Object::service_cidr(&cidr.metadata, cidr.spec);
            for fault in faults {
                tracing::warn!("{fault}");
            }
            object
        };
        let mut failures = Failures::default();
        for version in CIDR_VERSIONS.into_iter().cycle() {
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.k8s.io", version, "ServiceCIDR"));
            let api = Api::all_with(self.cluster.client(self.kind), &kind);
            self.follow(&api, &watcher::Config::default(), &convert, &mut failures).await?;
        }
        bail!("there is no version of {}", self.kind)
    }

    /// Runs one watcher until it has to be replaced. The objects of a list are sent together when the list is complete.
    async fn follow<K>(
        self,
        api: &Api<K>,
        config: &watcher::Config,
        convert: impl Fn(K) -> Object,
        failures: &mut Failures,
    ) -> Result<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut stream = pin!(watcher(api.clone(), config.clone()));
        let mut listed = Vec::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    if let Some(event) = self.event(event, &convert, &mut listed, failures) {
                        self.send(event).await?;
                    }
                }
                Err(error) => match self.fail(&error, failures).await? {
                    Recovery::Retry | Recovery::Forbidden => {}
                    Recovery::Relist | Recovery::Unserved => return Ok(()),
                },
            }
        }
        bail!("the watch of {} ended", self.kind)
    }

    /// The event to send for an event of the watcher; `None` while a list is incomplete. `listed` collects the objects of
    /// such a list.
    fn event<K: Resource>(
        self,
        event: watcher::Event<K>,
        convert: impl Fn(K) -> Object,
        listed: &mut Vec<Object>,
        failures: &mut Failures,
    ) -> Option<Event> {
        match event {
            watcher::Event::Init => {
                listed.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                listed.push(convert(object));
                None
            }
            watcher::Event::InitDone => {
                failures.forget_error();
                Some(Event::Listed(self.kind, std::mem::take(listed)))
            }
            watcher::Event::Apply(object) => {
                failures.reset_backoff();
                Some(Event::Changed(convert(object)))
            }
            watcher::Event::Delete(object) => {
                failures.reset_backoff();
                Some(Event::Removed(self.kind, object_name(object.meta())))
            }
        }
    }

    /// Logs an error unless it equals the last one, and records the failure of the watch. Then waits and returns the recovery.
    /// An optional kind that is missing or forbidden does not fail: it counts as empty.
    async fn fail(self, error: &watcher::Error, failures: &mut Failures) -> Result<Recovery> {
        let recovery = recovery_from(error);
        let is_missing = self.kind.is_optional() && matches!(recovery, Recovery::Unserved | Recovery::Forbidden);
        let is_new = failures.report(self.cluster.server(), self.kind, error);
        if !is_missing {
            self.cluster.watches().failed(self.kind);
        } else if is_new {
            // The agent then works as if the optional kind had no objects.
            self.send(Event::Listed(self.kind, Vec::new())).await?;
        }
        failures.wait().await;
        Ok(recovery)
    }

    async fn send(self, event: Event) -> Result<()> {
        self.events.send(event).await.context("the agent's loop ended")
    }
}

/// The recovery depends on the failed request and its HTTP status. Only the list of a kind can be forbidden: a 403 for a
/// watch is repeated like other errors.
fn recovery_from(error: &watcher::Error) -> Recovery {
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

/// The last logged error of a watch, so that it is logged once, and the backoff between the watch's requests.
#[derive(Default)]
struct Failures {
    last: Option<String>,
    backoff: DefaultBackoff,
}

impl Failures {
    /// Logs an error unless it equals the last one. Returns whether it was logged.
    fn report(&mut self, server: &str, kind: ObjectKind, error: &watcher::Error) -> bool {
        let text = error_text::of_error(error);
        if self.last.as_ref() == Some(&text) {
            return false;
        }
        tracing::warn!("failed to watch {kind} at {server}, trying again; the tables stay as they are: {text}");
        self.last = Some(text);
        true
    }

    /// Waits for the time of the backoff.
    async fn wait(&mut self) {
        if let Some(wait) = self.backoff.next() {
            tokio::time::sleep(wait).await;
        }
    }

    /// After a complete list: the next error is logged in any case. The backoff stays, because an overloaded server may
    /// answer lists and fail at each watch.
    fn forget_error(&mut self) {
        self.last = None;
    }

    /// After an event of a watch: the backoff starts again at its minimum.
    fn reset_backoff(&mut self) {
        self.backoff.reset();
    }
}
