//! The sources of objects: the API server ([`kube`]) or manifest files ([`manifests`]).
//!
//! A source is the first stage: it converts objects and sends events to the agent's loop. The next stage, `store`, keeps the
//! objects.

pub mod kube;
pub mod manifests;
mod watch_health;

use crate::model::event::Event;
pub use watch_health::{Outage, Watches, failing_watches};

/// The sender of events to the agent's loop.
pub type Events = tokio::sync::mpsc::Sender<Event>;
