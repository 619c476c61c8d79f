//! The fields of a Service as they are written, of which some are not in the table: selector, targetPorts, a headless ClusterIP.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::util::intstr::IntOrString};

use crate::model::{ObjectName, object};

/// A Service as it is written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The name.
    pub name: ObjectName,
    /// Whether portmap serves it, by its proxy-name label.
    is_ours: bool,
    /// Its spec.
    spec: ServiceSpec,
}

impl Written {
    /// Keeps a Service. `is_ours`: whether portmap serves it.
    pub fn new(name: ObjectName, is_ours: bool, spec: ServiceSpec) -> Self {
        Self { name, is_ours, spec }
    }

    /// The reason why the Service has no frontend at all; `None` if it has a ClusterIP that portmap serves.
    pub fn unserved(&self) -> Option<(&'static str, String)> {
        let name = &self.name;
        if !self.is_ours {
            let label = object::PROXY_NAME_LABEL;
            return Some(("otherProxy", format!("another proxy serves the Service {name}, by its label {label}")));
        }
        if self.spec.type_.as_deref() == Some("ExternalName") {
            let alias = self.spec.external_name.as_deref().unwrap_or_default();
            return Some((
                "externalName",
                format!("the Service {name} is of type ExternalName: only a DNS name for {alias:?}"),
            ));
        }
        let addresses: Vec<&str> =
            self.spec.cluster_ip.iter().chain(self.spec.cluster_ips.iter().flatten()).map(String::as_str).collect();
        if addresses.contains(&"None") {
            return Some((
                "headless",
                format!(
                    "the Service {name} is headless (clusterIP: None): DNS leads to its pods, at their targetPorts, not at `port`"
                ),
            ));
        }
        let has_address = addresses.iter().any(|address| !address.is_empty());
        (!has_address)
            .then(|| ("withoutAddress", format!("the Service {name} has no clusterIP; an API server would give it one")))
    }

    /// The targetPort of a Service port as it is written: `8080`, `"http"`, or the port itself if there is none.
    pub fn target_port(&self, name: &str, protocol: &str) -> String {
        let is_meant = |port: &&k8s_openapi::api::core::v1::ServicePort| {
            port.name.as_deref().unwrap_or_default() == name && port.protocol.as_deref().unwrap_or("TCP") == protocol
        };
        let port = self.spec.ports.iter().flatten().find(is_meant);
        match port.and_then(|port| port.target_port.as_ref()) {
            Some(IntOrString::Int(number)) if *number != 0 => number.to_string(),
            Some(IntOrString::String(name)) if !name.is_empty() => format!("{name:?}"),
            Some(_) | None => "not given, so it is the port".to_owned(),
        }
    }

    /// The port that was meant by the number of a targetPort, as the end of a sentence; empty if the number is none.
    pub fn meant_by(&self, number: u16) -> String {
        let leads_there = |target: &IntOrString| matches!(target, IntOrString::Int(target) if *target == i32::from(number));
        let mut ports = self.spec.ports.iter().flatten();
        let meant = ports.find(|port| port.target_port.as_ref().is_some_and(leads_there));
        meant.map(|meant| format!("; {number} is the targetPort of port {0}: clients use {0}", meant.port)).unwrap_or_default()
    }

    /// The protocol of a port with this number and another protocol.
    pub fn other_protocol(&self, number: u16, protocol: &str) -> Option<&str> {
        let mut ports = self.spec.ports.iter().flatten().filter(|port| port.port == i32::from(number));
        ports.find_map(|port| Some(port.protocol.as_deref().unwrap_or("TCP")).filter(|other| *other != protocol))
    }

    /// The ports as texts: `80/TCP (http)`.
    pub fn ports(&self) -> String {
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
            let name = port.name.as_deref().filter(|name| !name.is_empty()).map(|name| format!(" ({name})"));
            format!("{}/{}{}", port.port, port.protocol.as_deref().unwrap_or("TCP"), name.unwrap_or_default())
        };
        let ports: Vec<String> = self.spec.ports.iter().flatten().map(port).collect();
        if ports.is_empty() { "none".to_owned() } else { ports.join(", ") }
    }

    /// The selector as text: `app=web,tier=front`; `None` without a selector.
    pub fn selector(&self) -> Option<String> {
        let selector: &BTreeMap<String, String> = self.spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
        Some(selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
    }
}
