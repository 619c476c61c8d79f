//! Ingresses and routes of the Gateway API, reduced to their references to Services.

use super::PortRef;
use crate::lint::{
    head::Head,
    tree::{Invalid, Line, Node},
};

/// An Ingress or a route.
#[derive(Debug)]
pub struct Route {
    /// Name and place.
    pub head: Head,
    /// The Services to which it leads.
    pub backends: Vec<Backend>,
}

/// A reference to a port of a Service.
#[derive(Debug)]
pub struct Backend {
    /// The line of the port.
    pub line: Line,
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
    /// The port.
    pub port: PortRef,
}

/// The port name of an Ingress that stands for an action in an annotation, instead of a Service.
const ACTION: &str = "use-annotation";

impl Route {
    /// Reads an Ingress, in its version `v1` or an older one.
    ///
    /// # Errors
    ///
    /// A number of a port has another type.
    pub fn read_ingress(head: Head, object: &Node) -> Result<Self, Invalid> {
        let mut backends = Vec::new();
        if let Some(spec) = object.get("spec") {
            let default = spec.get("defaultBackend").or_else(|| spec.get("backend"));
            let rules = spec.list("rules").iter();
            let paths = rules.flat_map(|rule| rule.at(&["http", "paths"]).map(Node::items).unwrap_or_default());
            for backend in default.into_iter().chain(paths.filter_map(|path| path.get("backend"))) {
                backends.extend(ingress_backend(backend, &head.namespace)?);
            }
        }
        Ok(Self { head, backends })
    }

    /// Reads a route of the Gateway API.
    ///
    /// # Errors
    ///
    /// A number of a port has another type.
    pub fn read_gateway(head: Head, object: &Node) -> Result<Self, Invalid> {
        let mut references = Vec::new();
        if let Some(spec) = object.get("spec") {
            // A parent is a Gateway, unless its kind says Service.
            references.extend(spec.list("parentRefs").iter().filter(|parent| parent.text("kind") == Some("Service")));
            for rule in spec.list("rules") {
                let backends = rule.list("backendRefs");
                references.extend(backends);
                let filters = backends.iter().chain([rule]).flat_map(|node| node.list("filters"));
                references.extend(filters.filter_map(|filter| filter.at(&["requestMirror", "backendRef"])));
            }
        }
        let backends = references.into_iter().map(|reference| gateway_backend(reference, &head.namespace));
        let backends: Vec<Option<Backend>> = backends.collect::<Result<_, _>>()?;
        Ok(Self { head, backends: backends.into_iter().flatten().collect() })
    }
}

fn ingress_backend(node: &Node, namespace: &str) -> Result<Option<Backend>, Invalid> {
    let (service, port, line) = match node.get("service") {
        Some(service) => {
            let Some(port) = service.get("port") else { return Ok(None) };
            let number = port.get("number").map(Node::decode).transpose()?.map(PortRef::Number);
            let name = port.text("name").map(|name| PortRef::Name(name.to_owned()));
            let line = port.get("number").or_else(|| port.get("name")).unwrap_or(port).line;
            (service.text("name"), number.or(name), line)
        }
        None => {
            let Some(port) = node.get("servicePort") else { return Ok(None) };
            (node.text("serviceName"), PortRef::read(&port.decode()?), port.line)
        }
    };
    let (Some(service), Some(port)) = (service, port) else { return Ok(None) };
    let is_action = port == PortRef::Name(ACTION.to_owned());
    Ok((!is_action).then(|| Backend { line, namespace: namespace.to_owned(), service: service.to_owned(), port }))
}

/// The reference to a Service; `None` for other kinds, and without a port.
fn gateway_backend(node: &Node, namespace: &str) -> Result<Option<Backend>, Invalid> {
    let group = node.text("group").unwrap_or_default();
    let is_service = matches!(group, "" | "core") && node.text("kind").is_none_or(|kind| kind == "Service");
    let (Some(name), Some(port), true) = (node.text("name"), node.get("port"), is_service) else { return Ok(None) };
    Ok(Some(Backend {
        line: port.line,
        namespace: node.text("namespace").unwrap_or(namespace).to_owned(),
        service: name.to_owned(),
        port: PortRef::Number(port.decode()?),
    }))
}
