//! Services.

use k8s_openapi::api::core::v1 as core;

use super::{PortRef, Protocol};
use crate::lint::{
    head::{Head, Labels},
    tree::{Invalid, Line, Node, Value},
};

/// A Service.
#[derive(Debug)]
pub struct Service {
    /// Name and place.
    pub head: Head,
    /// `spec.type`, or `ClusterIP`.
    pub kind: String,
    /// The selector; `None` if the Service has none, or an empty one.
    pub selector: Option<Labels>,
    /// The line of the selector.
    pub selector_line: Line,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// `spec.healthCheckNodePort` and its line.
    pub health_check_node_port: Option<(i32, Line)>,
    /// Whether source ranges are given, or annotations make the load balancer internal.
    pub is_restricted: bool,
    /// The line of `spec.type`.
    pub kind_line: Line,
}

/// A port of a Service.
#[derive(Debug)]
pub struct ServicePort {
    /// The line on which the port begins.
    pub line: Line,
    /// The name; empty without a name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub number: i32,
    /// The targetPort, or the number of the port without one.
    pub target: PortRef,
    /// The line of the targetPort, or of the port without one.
    pub target_line: Line,
    /// The node port and its line; `None` without one.
    pub node_port: Option<(i32, Line)>,
}

/// The annotation with source ranges, an older form of the field.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

impl Service {
    /// Reads a Service.
    ///
    /// # Errors
    ///
    /// A field has a wrong type, or a required field is missing.
    pub fn read(head: Head, object: &Node) -> Result<Self, Invalid> {
        let empty = Node::empty(object.line);
        let node = object.get("spec").unwrap_or(&empty);
        let spec: core::ServiceSpec = node.decode()?;
        let ports = node.list("ports").iter().zip(spec.ports.unwrap_or_default());
        let ranges = spec.load_balancer_source_ranges.unwrap_or_default();
        Ok(Self {
            head,
            kind: spec.type_.unwrap_or_else(|| "ClusterIP".to_owned()),
            selector: spec.selector.filter(|selector| !selector.is_empty()),
            selector_line: node.line_of("selector"),
            ports: ports.map(|(node, port)| ServicePort::read(node, port)).collect::<Result<_, _>>()?,
            health_check_node_port: given(node, "healthCheckNodePort", spec.health_check_node_port),
            is_restricted: !ranges.is_empty() || is_restricted(object.at(&["metadata", "annotations"])),
            kind_line: node.line_of("type"),
        })
    }

    /// Whether pods matter for the Service: it has a selector, and is no `ExternalName`.
    pub fn selector(&self) -> Option<&Labels> {
        self.selector.as_ref().filter(|_| !self.is_external_name())
    }

    /// Whether the Service is only another name.
    pub fn is_external_name(&self) -> bool {
        self.kind == "ExternalName"
    }

    /// The ports as text: `80 (http), 443 (https)`.
    pub fn shown_ports(&self) -> String {
        let shown = self.ports.iter().map(|port| match port.name.as_str() {
            "" => port.number.to_string(),
            name => format!("{} ({name})", port.number),
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl ServicePort {
    fn read(node: &Node, port: core::ServicePort) -> Result<Self, Invalid> {
        let target = port.target_port.as_ref().and_then(PortRef::read);
        Ok(Self {
            line: node.line,
            name: port.name.unwrap_or_default(),
            protocol: Protocol::read(port.protocol.as_deref()).map_err(|error| error.at(node.line_of("protocol")))?,
            number: port.port,
            target: target.unwrap_or(PortRef::Number(port.port)),
            target_line: node.line_of("targetPort"),
            node_port: given(node, "nodePort", port.node_port),
        })
    }

    /// Number and protocol, and the name if there is one: `80/TCP (http)`.
    pub fn shown(&self) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(" ({})", self.name) };
        format!("{}/{}{name}", self.number, self.protocol)
    }
}

/// A node port with its line; `None` for a missing one, and for zero, which the API reads as missing.
fn given(node: &Node, key: &str, number: Option<i32>) -> Option<(i32, Line)> {
    number.filter(|number| *number != 0).map(|number| (number, node.line_of(key)))
}

/// Whether annotations have source ranges, or make the load balancer internal as clouds spell it.
fn is_restricted(annotations: Option<&Node>) -> bool {
    let fields = annotations.map(Node::fields).unwrap_or_default();
    fields.iter().any(|(key, value)| {
        let is = |word: &str| matches!(&value.value, Value::Text(text) if text.eq_ignore_ascii_case(word));
        key == SOURCE_RANGES || (key.contains("internal") && !is("false")) || is("internal")
    })
}
