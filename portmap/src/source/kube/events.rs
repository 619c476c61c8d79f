//! Kubernetes Events about Services. `kubectl describe service` and `kubectl events` show them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Resource as _,
    api::ListParams,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use super::connection::Cluster;
use crate::{error_text, model::ObjectName};

/// The reason of the Events.
const REASON: &str = "TargetPortNotListening";

/// The action of the Events.
const ACTION: &str = "CheckListeningPrograms";

/// The name of portmap in Events.
const CONTROLLER: &str = "portmap";

/// The longest note that the API server admits, in bytes.
const MAX_NOTE: usize = 1024;

/// The number of Events that may wait for the API server.
const QUEUE: usize = 64;

/// An Event to write: no program listens on the targetPort of a port of this Service.
#[derive(Clone, Debug)]
pub struct ServiceWarning {
    /// The Service.
    pub service: ObjectName,
    /// The observation and the remedy.
    pub note: String,
}

/// Starts a task that writes Events in the name of this node. It ends when the sender is dropped.
pub fn start(cluster: Arc<Cluster>, node: Arc<str>) -> mpsc::Sender<ServiceWarning> {
    let (sender, warnings) = mpsc::channel(QUEUE);
    tokio::spawn(write_all(cluster, node, warnings));
    sender
}

/// Logs the first failure, and the next one only after a success.
async fn write_all(cluster: Arc<Cluster>, node: Arc<str>, mut warnings: mpsc::Receiver<ServiceWarning>) {
    let client = cluster.plain_client();
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node.to_string()) };
    let mut is_failing = false;
    while let Some(warning) = warnings.recv().await {
        let result = write(&client, &reporter, &warning).await;
        if let Err(error) = result.as_ref().map_err(|error| error_text::of_error(error.as_ref()))
            && !is_failing
        {
            let server = cluster.server();
            tracing::warn!("failed to write an Event about Service {} at {server}, going on without: {error}", warning.service);
        }
        is_failing = result.is_err();
    }
}

/// Writes nothing about a Service that is gone.
async fn write(client: &Client, reporter: &Reporter, warning: &ServiceWarning) -> Result<()> {
    let ServiceWarning { service, note } = warning;
    // A list instead of a get: the agent may list Services for its tables. kubectl finds Events by the UID.
    let services: Api<Service> = Api::namespaced(client.clone(), service.namespace());
    let selection = ListParams::default().fields(&format!("metadata.name={}", service.name()));
    let found = services.list_metadata(&selection).await.context("failed to read the Service")?;
    let Some(found) = found.items.into_iter().next() else { return Ok(()) };
    let mut regarding = Service { metadata: found.metadata, ..Service::default() }.object_ref(&());
    // The Event is about all versions of the Service.
    regarding.resource_version = None;
    let event = Event {
        type_: EventType::Warning,
        reason: REASON.to_owned(),
        note: Some(shortened(note)),
        action: ACTION.to_owned(),
        secondary: None,
    };
    // A new recorder remembers no earlier Event. One that does would count another port of the Service as a repetition.
    let recorder = Recorder::new(client.clone(), reporter.clone());
    recorder.publish(&event, &regarding).await.context("failed to create the Event")
}

/// The first [`MAX_NOTE`] bytes, or a few less.
fn shortened(note: &str) -> String {
    note[..note.floor_char_boundary(MAX_NOTE)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_end_between_characters() {
        assert_eq!(shortened("web → 80"), "web → 80");
        let long = "→".repeat(400);
        assert_eq!(shortened(&long).len(), 1023);
    }
}
