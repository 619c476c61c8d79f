//! The Kubernetes objects as the agent keeps them: only the fields that decide something, in types that hold what they mean.
//!
//! What an object says and cannot be meant is left out, and remembered as a fault: `resolve` passes it on.

mod cidr;
mod faults;
mod node;
mod packed;
mod service;
mod shared;
mod slice;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::ObjectName;
pub use cidr::{checked_cidr, cidrs};
pub use faults::Faults;
pub use node::Node;
pub use packed::Packed;
pub use service::{OtherService, Policy, Port, Service, ServiceType};
pub use slice::{Hints, Slice, SliceEndpoint, SliceHead, SlicePort, is_local};

/// The label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The label of a Service that another proxy serves.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The label of what belongs to a headless Service.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The label of an EndpointSlice that names its author.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Whether an object carries a label.
pub fn is_labelled(metadata: &ObjectMeta, label: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// The most bytes of a label.
const LONGEST_LABEL: usize = 63;

/// Whether a name is short enough for a label, and can be shown. The API server asks for more; files need not.
pub fn is_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && !name.contains(char::is_control)
}

/// An object's name; without a namespace, as kubectl has it, in `default`.
pub fn object_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.as_deref().unwrap_or("default"), metadata.name.as_deref().unwrap_or_default())
}
