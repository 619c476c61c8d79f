//! Kubernetes objects, reduced to the fields that the desired table depends on, and converted to checked types.
//!
//! Invalid fields are dropped or replaced by a default. Nearly all those of Services and EndpointSlices are recorded in
//! [`Faults`], which `resolve` reports. Those of ServiceCIDRs are returned as texts. Those of Nodes and of other proxies'
//! Services are not reported.

mod cidr;
mod endpoint_slice;
mod faults;
mod node;
mod packed;
mod service;
mod slice;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::ObjectName;
pub use cidr::{checked_cidr, cidrs};
pub use endpoint_slice::{Endpoint, EndpointSlice};
pub use faults::Faults;
pub use node::Node;
pub use packed::Packed;
pub use service::{OtherService, Policy, Port, Service, ServiceType};
pub use slice::{Hints, Slice, SliceEndpoint, SliceHead, SlicePort, is_local, pods_of};

/// The label of an EndpointSlice with the name of its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The label of a Service with the name of the proxy that serves it.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The label of a headless Service, its Endpoints and its EndpointSlices.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The label of an EndpointSlice with the name of its controller.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Whether an object has a label, with any value.
pub fn is_labelled(metadata: &ObjectMeta, label: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// Maximum length in bytes of the name of a Service, a namespace or a port (a DNS label).
const LONGEST_LABEL: usize = 63;

/// Whether a name has at most 63 bytes and no control character. The API server has stricter rules, which manifest files may
/// break.
pub fn is_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && !name.contains(char::is_control)
}

/// The name of an object. The namespace is `default` if not given, as with kubectl.
pub fn object_name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.as_deref().unwrap_or("default"), metadata.name.as_deref().unwrap_or_default())
}
