//! The domain types, in the terms of Kubernetes and independent of the layout of the maps.
//!
//! `source` creates the events and objects, `resolve` the entries, and `plan` turns entries into changes of the maps.

mod entry;
pub mod event;
mod frontend;
mod names;
pub mod object;

pub use entry::{AddressOwner, Endpoint, Entry, Precedence, Target};
pub use frontend::{Family, Frontend, FrontendSpec, PerFamily, Protocol};
pub use names::{ObjectName, ServicePort};
pub use portmap_common::{AddressKind, Verdict};
