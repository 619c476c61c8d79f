//! Pods, and the pod templates of workloads.

use k8s_openapi::api::core::v1 as core;

use super::{PortRef, Protocol};
use crate::lint::{
    head::{Head, Ignored, Labels, labels},
    tree::{Invalid, Line, Node},
};

/// A Pod, or the pod template of a workload.
#[derive(Debug)]
pub struct Workload {
    /// Name and place of the Pod or the workload. Its codes to ignore include those of the pod template.
    pub head: Head,
    /// The labels of the pods.
    pub labels: Labels,
    /// Whether a controller that is also linted made the object.
    pub is_made: bool,
    /// The containers that run while the pod serves.
    pub containers: Vec<Container>,
}

/// A container: an ordinary one, or a restartable init container.
#[derive(Debug)]
pub struct Container {
    /// The name.
    pub name: String,
    /// The declared ports.
    pub ports: Vec<ContainerPort>,
    /// The probes and the HTTP hooks.
    pub probes: Vec<Probe>,
}

/// A declared port of a container.
#[derive(Debug)]
pub struct ContainerPort {
    /// The name; empty without a name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub number: i32,
}

/// A probe or hook that connects to its pod.
#[derive(Debug)]
pub struct Probe {
    /// The field, for example `readinessProbe`.
    pub field: &'static str,
    /// The line of the port.
    pub line: Line,
    /// The port.
    pub port: PortRef,
}

/// The probes of a container.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// The hooks of a container, below `lifecycle`.
const HOOKS: [&str; 2] = ["postStart", "preStop"];
/// Controllers whose objects are linted, too.
const MAKERS: [&str; 7] = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController"];

impl Workload {
    /// Reads the pods of an object. `template`: the node with the metadata and the spec of its pods, which is the object itself
    /// for a Pod.
    ///
    /// # Errors
    ///
    /// A field has a wrong type, or a required field is missing.
    pub fn read(mut head: Head, object: &Node, template: &Node) -> Result<Self, Invalid> {
        let metadata = template.get("metadata");
        if !std::ptr::eq(object, template) {
            head.ignored.extend(Ignored::read(metadata));
        }
        let empty = Node::empty(template.line);
        let spec = template.get("spec").unwrap_or(&empty);
        let sidecars = list(spec, "initContainers")?.iter().filter(|node| node.text("restartPolicy") == Some("Always"));
        let containers = list(spec, "containers")?.iter().chain(sidecars);
        Ok(Self {
            head,
            labels: labels(metadata)?,
            is_made: is_made(object),
            containers: containers.map(Container::read).collect::<Result<_, _>>()?,
        })
    }

    /// All declared ports.
    pub fn ports(&self) -> impl Iterator<Item = &ContainerPort> {
        self.containers.iter().flat_map(|container| &container.ports)
    }

    /// The number of the first port with this name and protocol.
    pub fn number_of(&self, name: &str, protocol: Protocol) -> Option<i32> {
        self.ports().find(|port| port.name == name && port.protocol == protocol).map(|port| port.number)
    }

    /// The number that a targetPort means in this pod; `None` if the pod lacks the name.
    pub fn resolve(&self, port: &PortRef, protocol: Protocol) -> Option<i32> {
        match port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => self.number_of(name, protocol),
            PortRef::Quoted(text) => text.parse().ok(),
        }
    }

    /// Whether a container declares this number.
    pub fn declares(&self, number: i32, protocol: Protocol) -> bool {
        self.ports().any(|port| port.number == number && port.protocol == protocol)
    }

    /// Whether the pods of the object are meant to end.
    pub fn is_job(&self) -> bool {
        matches!(self.head.kind.as_str(), "Job" | "CronJob")
    }

    /// The declared ports as text: `8080/TCP (http), 9090/TCP`; or `no port`.
    pub fn shown_ports(&self) -> String {
        let shown: Vec<String> = self
            .ports()
            .map(|port| match port.name.as_str() {
                "" => format!("{}/{}", port.number, port.protocol),
                name => format!("{}/{} ({name})", port.number, port.protocol),
            })
            .collect();
        if shown.is_empty() { "no port".to_owned() } else { shown.join(", ") }
    }
}

impl Container {
    fn read(node: &Node) -> Result<Self, Invalid> {
        let mut ports = Vec::new();
        for (port_node, port) in node.decode_list::<core::ContainerPort>("ports")? {
            let protocol = Protocol::read(port.protocol.as_deref()).map_err(|error| error.at(port_node.line_of("protocol")))?;
            ports.push(ContainerPort { name: port.name.unwrap_or_default(), protocol, number: port.container_port });
        }
        let mut probes = Vec::new();
        for field in PROBES {
            read_probe(field, node.get(field), &mut probes)?;
        }
        for field in HOOKS {
            read_probe(field, node.at(&["lifecycle", field]), &mut probes)?;
        }
        Ok(Self { name: node.text("name").unwrap_or_default().to_owned(), ports, probes })
    }
}

/// Reads the port of a probe, unless the probe has no port, or is sent to another host.
fn read_probe(field: &'static str, node: Option<&Node>, probes: &mut Vec<Probe>) -> Result<(), Invalid> {
    let Some(node) = node else { return Ok(()) };
    for action in ["httpGet", "tcpSocket", "grpc"].into_iter().filter_map(|action| node.get(action)) {
        let is_elsewhere = action.text("host").is_some_and(|host| !host.is_empty());
        if let Some(port_node) = action.get("port").filter(|_| !is_elsewhere)
            && let Some(port) = PortRef::read(&port_node.decode()?)
        {
            probes.push(Probe { field, line: port_node.line, port });
        }
    }
    Ok(())
}

fn list<'a>(spec: &'a Node, key: &str) -> Result<&'a [Node], Invalid> {
    spec.get(key).map_or(Ok(&[]), |list| list.expect_list(key))
}

/// Whether the owner that controls the object is one of [`MAKERS`].
fn is_made(object: &Node) -> bool {
    let owners = object.at(&["metadata", "ownerReferences"]).map(Node::items).unwrap_or_default();
    owners.iter().any(|owner| owner.text("kind").is_some_and(|kind| MAKERS.contains(&kind)))
}
