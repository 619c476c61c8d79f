//! EndpointSlices and Endpoints, reduced to their ports.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

use super::Protocol;
use crate::lint::{
    head::{Head, labels},
    tree::{Invalid, Line, Node},
};

/// An EndpointSlice, or Endpoints.
#[derive(Debug)]
pub struct Slice {
    /// Name and place.
    pub head: Head,
    /// The Service; empty if a slice names none.
    pub service: String,
    /// The ports.
    pub ports: Vec<SlicePort>,
    /// Whether Kubernetes made the object from pods or from Endpoints.
    pub is_made: bool,
}

/// A port of a slice.
#[derive(Debug)]
pub struct SlicePort {
    /// The line on which the port begins.
    pub line: Line,
    /// The name; empty without a name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
}

/// The label with the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label with the controller of a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

impl Slice {
    /// Reads an EndpointSlice.
    ///
    /// # Errors
    ///
    /// A field has a wrong type.
    pub fn read(head: Head, object: &Node) -> Result<Self, Invalid> {
        let labels = labels(object.get("metadata"))?;
        let mut ports = Vec::new();
        for (node, port) in object.decode_list::<discovery::EndpointPort>("ports")? {
            ports.push(SlicePort::read(node, port.name, port.protocol.as_deref())?);
        }
        let is_made = labels.get(MANAGED_BY).is_some_and(|manager| manager.ends_with(".k8s.io"));
        Ok(Self { head, service: labels.get(SERVICE_NAME).cloned().unwrap_or_default(), ports, is_made })
    }

    /// Reads Endpoints. `Kubernetes` writes those of a Service with a selector.
    ///
    /// # Errors
    ///
    /// A field has a wrong type.
    pub fn read_endpoints(head: Head, object: &Node) -> Result<Self, Invalid> {
        let mut ports = Vec::new();
        for subset in object.list("subsets") {
            for (node, port) in subset.decode_list::<core::EndpointPort>("ports")? {
                ports.push(SlicePort::read(node, port.name, port.protocol.as_deref())?);
            }
        }
        Ok(Self { service: head.name.clone(), head, ports, is_made: false })
    }
}

impl SlicePort {
    fn read(node: &Node, name: Option<String>, protocol: Option<&str>) -> Result<Self, Invalid> {
        let protocol = Protocol::read(protocol).map_err(|error| error.at(node.line_of("protocol")))?;
        Ok(Self { line: node.line, name: name.unwrap_or_default(), protocol })
    }
}
