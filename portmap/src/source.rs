//! Where objects come from. A source sends events; `store` keeps what they say.

pub mod kube;
pub mod manifests;
mod watches;

use crate::model::event::Event;
pub use watches::{Outage, Watches, nothing_heard_of};

/// The way events take to the agent's loop.
pub type Events = tokio::sync::mpsc::Sender<Event>;
