//! Opens the source of objects that the options select.

use std::{pin::Pin, sync::Arc};

use anyhow::Result;
use tokio::sync::mpsc;

use super::{EventWriting, Options, Source};
use crate::source::{
    Events, Watches,
    kube::{self, events::ServiceWarning},
    manifests,
};

/// A future that sends the events of a source, and ends only with a failure.
pub type Sending = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Opens the source of objects, and with `--events` the writer of Kubernetes Events.
pub async fn open(
    options: &Options,
    sender: Events,
    watches: Arc<Watches>,
) -> Result<(Sending, Option<mpsc::Sender<ServiceWarning>>)> {
    Ok(match &options.source {
        Source::Kube(config) => {
            let cluster = kube::open(config.clone(), watches).await?;
            let is_writing = options.events == EventWriting::Yes;
            let warnings = is_writing.then(|| kube::events::start(cluster.clone(), options.wanted.node.clone()));
            (Box::pin(kube::run(cluster, options.wanted.clone(), sender)), warnings)
        }
        Source::Manifests(paths) => {
            (Box::pin(manifests::Watched::start(paths.clone(), options.wanted.clone(), watches)?.run(sender)), None)
        }
    })
}
