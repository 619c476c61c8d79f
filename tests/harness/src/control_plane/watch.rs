//! Waits through a watch until objects satisfy a test's condition. It does not poll.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Waits until the `EndpointSlices` of a Service satisfy the condition, and returns them sorted by name.
pub async fn await_slices(
    client: &Client,
    namespace: &str,
    service: &str,
    within: Duration,
    condition: impl Fn(&[EndpointSlice]) -> bool,
) -> Result<Vec<EndpointSlice>> {
    let slices = Api::namespaced(client.clone(), namespace);
    let of_service = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    await_objects(slices, of_service, within, condition)
        .await
        .with_context(|| format!("the EndpointSlices of {namespace}/{service} are not as expected"))
}

/// Waits until the selected objects together satisfy the condition, and returns them sorted by namespace and name. After the
/// time limit, the error shows the last state of the objects.
pub async fn await_objects<K>(
    api: Api<K>,
    selection: watcher::Config,
    within: Duration,
    condition: impl Fn(&[K]) -> bool,
) -> Result<Vec<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let mut seen = Seen::default();
    let follow = async {
        let mut events = pin!(watcher(api, selection).default_backoff());
        while let Some(event) = events.next().await {
            seen.note(event);
            let objects = seen.all();
            if seen.listed && condition(&objects) {
                return Ok(objects);
            }
        }
        Err(anyhow!("the watch ended"))
    };
    match timeout(within, follow).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("the condition was not met within {within:?}; {}", seen.describe())),
    }
}

/// The selected objects in their last reported state, by namespace and name. Deleted objects are removed.
struct Seen<K> {
    objects: BTreeMap<(Option<String>, String), K>,
    /// Whether the initial list is complete.
    listed: bool,
    last_error: Option<watcher::Error>,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: false, last_error: None }
    }
}

impl<K: ResourceExt + Clone + Serialize> Seen<K> {
    fn note(&mut self, event: Result<Event<K>, watcher::Error>) {
        match event {
            Ok(Event::Init) => {
                self.objects.clear();
                self.listed = false;
            }
            Ok(Event::InitDone) => self.listed = true,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                self.objects.insert((object.namespace(), object.name_any()), object);
            }
            Ok(Event::Delete(object)) => {
                self.objects.remove(&(object.namespace(), object.name_any()));
            }
            // The watcher retries; the error is shown only after the time limit.
            Err(error) => self.last_error = Some(error),
        }
    }

    fn all(&self) -> Vec<K> {
        self.objects.values().cloned().collect()
    }

    fn describe(&self) -> String {
        let heading = format!("{} objects exist", self.objects.len());
        let last_error = self.last_error.as_ref().map(|error| format!("the last error of the watch: {error}"));
        let lines: Vec<_> = [heading].into_iter().chain(self.objects.values().map(as_json)).chain(last_error).collect();
        lines.join("\n  ")
    }
}

fn as_json<K: ResourceExt + Clone + Serialize>(object: &K) -> String {
    let mut object = object.clone();
    object.managed_fields_mut().clear();
    serde_json::to_string(&object).unwrap_or_else(|error| error.to_string())
}
