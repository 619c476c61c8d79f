//! The domain types: what the tables should say, in Kubernetes' own terms and independent of how the kernel stores it.

mod entry;
pub mod event;
mod frontend;
mod names;
pub mod object;

pub use entry::{AddressOwner, Endpoint, Entry, Precedence, Target};
pub use frontend::{Family, Frontend, FrontendSpec, PerFamily, Protocol};
pub use names::{ObjectName, ServicePort};
pub use portmap_common::{AddressKind, Verdict};
