//! The varied fields of Services and EndpointSlices, and their manifests. [`crate::services`] and [`crate::slices`] create
//! random ones.

use serde_json::{Value, json};

/// The fields of a Service that the test varies.
#[derive(Clone, Debug)]
pub struct Service {
    pub labels: Value,
    pub kind: &'static str,
    pub families: &'static [&'static str],
    pub ports: Vec<ServicePort>,
    pub external_ips: Vec<String>,
    pub ingress: Vec<Value>,
    pub source_ranges: Vec<&'static str>,
    /// `internalTrafficPolicy`: `Cluster` or `Local`.
    pub internal_policy: &'static str,
    /// `externalTrafficPolicy`: `Cluster` or `Local`. Only external Services have the field.
    pub external_policy: &'static str,
    pub allocates_node_ports: bool,
    pub has_selector: bool,
    /// `timeoutSeconds` of `ClientIP` affinity. `None` means no affinity, and 0 means the default timeout.
    pub affinity: Option<u32>,
    /// Whether the clusterIP is `None`. Only for the type `ClusterIP`.
    pub is_headless: bool,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct ServicePort {
    pub name: &'static str,
    pub number: u16,
    pub protocol: &'static str,
    /// The requested node port. `None` leaves the choice to the API server.
    pub node_port: Option<u16>,
}

/// The fields of an EndpointSlice that the test varies.
#[derive(Clone, Debug)]
pub struct Slice {
    pub address_type: &'static str,
    pub labels: Labels,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug)]
pub struct SlicePort {
    pub name: &'static str,
    /// The port number. `None` means all ports; such a slice port is the target of no Service port.
    pub number: Option<u16>,
    pub protocol: &'static str,
}

/// The labels of a slice: the name of its Service, the name and the headless label, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    OfService,
    Headless,
    None,
}

/// An endpoint of a slice.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: String,
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
    pub node: Option<&'static str>,
    pub zones: Vec<&'static str>,
    pub nodes: Vec<&'static str>,
}

impl Service {
    /// Whether the API server admits `externalTrafficPolicy`.
    fn is_external(&self) -> bool {
        matches!(self.kind, "NodePort" | "LoadBalancer") || !self.external_ips.is_empty()
    }

    /// The manifest. Fields that do not fit the type of the Service are left out, because the API server refuses them.
    pub fn manifest(&self, namespace: &str, name: &str) -> Value {
        let spec = if self.kind == "ExternalName" {
            json!({"type": self.kind, "externalName": "elsewhere.example", "ports": self.port_manifests()})
        } else {
            self.spec()
        };
        let metadata = json!({"namespace": namespace, "name": name, "labels": self.labels});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "type": self.kind,
            "ipFamilies": self.families,
            "ipFamilyPolicy": if self.families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ports": self.port_manifests(),
            "externalIPs": self.external_ips,
            "internalTrafficPolicy": self.internal_policy,
        });
        if self.is_external() {
            spec["externalTrafficPolicy"] = self.external_policy.into();
        }
        if self.kind == "LoadBalancer" {
            spec["loadBalancerSourceRanges"] = json!(self.source_ranges);
            spec["allocateLoadBalancerNodePorts"] = json!(self.allocates_node_ports);
        }
        if self.has_selector {
            spec["selector"] = json!({"app": "none"});
        }
        if self.is_headless && self.kind == "ClusterIP" {
            spec["clusterIP"] = "None".into();
        }
        if let Some(seconds) = self.affinity {
            spec["sessionAffinity"] = "ClientIP".into();
            if seconds > 0 {
                spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
            }
        }
        spec
    }

    /// The status; `None` unless the type is `LoadBalancer`.
    pub fn status(&self) -> Option<Value> {
        (self.kind == "LoadBalancer").then(|| json!({"status": {"loadBalancer": {"ingress": self.ingress}}}))
    }

    fn has_node_ports(&self) -> bool {
        self.kind == "NodePort" || self.kind == "LoadBalancer" && self.allocates_node_ports
    }

    fn port_manifests(&self) -> Vec<Value> {
        let manifest = |port: &ServicePort| {
            let mut manifest = json!({"name": port.name, "port": port.number, "protocol": port.protocol});
            if let Some(number) = port.node_port.filter(|_| self.has_node_ports()) {
                manifest["nodePort"] = number.into();
            }
            manifest
        };
        self.ports.iter().map(manifest).collect()
    }
}

impl Slice {
    /// The manifest. `service` is the name of the Service that the labels contain.
    pub fn manifest(&self, namespace: &str, name: &str, service: &str) -> Value {
        let labels = match self.labels {
            Labels::OfService => json!({"kubernetes.io/service-name": service}),
            Labels::Headless => json!({"kubernetes.io/service-name": service, "service.kubernetes.io/headless": ""}),
            Labels::None => json!({}),
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "addressType": self.address_type,
            "ports": self.ports.iter().map(SlicePort::manifest).collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(Endpoint::manifest).collect::<Vec<_>>(),
        })
    }
}

impl SlicePort {
    fn manifest(&self) -> Value {
        let mut manifest = json!({"name": self.name, "protocol": self.protocol});
        if let Some(number) = self.number {
            manifest["port"] = number.into();
        }
        manifest
    }
}

impl Endpoint {
    fn manifest(&self) -> Value {
        let mut conditions = json!({});
        for (name, value) in [("ready", self.ready), ("serving", self.serving), ("terminating", self.terminating)] {
            if let Some(value) = value {
                conditions[name] = value.into();
            }
        }
        let mut manifest = json!({"addresses": [self.address], "conditions": conditions});
        if let Some(node) = self.node {
            manifest["nodeName"] = node.into();
        }
        for (field, names) in [("forZones", &self.zones), ("forNodes", &self.nodes)] {
            if !names.is_empty() {
                manifest["hints"][field] = names.iter().map(|name| json!({"name": name})).collect();
            }
        }
        manifest
    }
}
