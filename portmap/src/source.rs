//! Where objects come from. A source sends events; `store` keeps what they say.

pub mod kube;
pub mod manifests;

use std::fmt;

use crate::{
    object::{Service, Slice},
    table::ObjectName,
};

/// The kinds of objects that decide the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    Slice,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
        })
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    Slice(Slice),
}

/// What a source has to say.
#[derive(Clone, Debug)]
pub enum Event {
    /// This object exists and looks like this.
    Changed(Object),
    /// This object is gone.
    Removed(Kind, ObjectName),
    /// These are all the objects of a kind: whatever else was known of it is gone.
    Listed(Kind, Vec<Object>),
}

/// The way events take to the agent's loop.
pub type Events = tokio::sync::mpsc::Sender<Event>;
