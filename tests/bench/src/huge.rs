//! Generates Services with very many addresses, ports, source ranges or endpoints. Their objects still fit into the API server
//! (at most 1.5 MiB each). While the agent handles such a Service, other Services wait. So `sync` measures that time.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use portmap::model::event::{Event, Object, ObjectKind};
use portmap::model::object::{EndpointSlice, SERVICE_NAME_LABEL};
use serde_json::{Value, json};

use crate::cluster::NAMESPACE;
use crate::stages::NODE;

const NAME: &str = "huge";

/// The numbers of ports, addresses, source ranges and endpoints of a huge Service with one `EndpointSlice`.
#[derive(Clone, Copy, Debug)]
pub struct Huge {
    /// The section's name in JSON.
    pub name: &'static str,
    /// The section's title in tables: the numbers of this Service's fields.
    pub title: &'static str,
    external_ips: u32,
    ports: u16,
    source_ranges: u32,
    endpoints: u16,
}

impl Huge {
    /// All huge Services. Each has a large number of one or two fields.
    pub const ALL: [Self; 5] = [
        Self::of("external-ips", "4,000 external IPs, 2 ports, 100 endpoints", [4_000, 0], 2, 100),
        Self::of("frontends", "4,000 external IPs, 100 ports, 10 endpoints", [4_000, 0], 100, 10),
        Self::of("source-ranges", "60,000 source ranges, 1 port, 10 endpoints", [0, 60_000], 1, 10),
        Self::of("ports", "10,000 ports, 1 endpoint", [0, 0], 10_000, 1),
        Self::of("endpoints", "100 ports, 1,000 endpoints", [0, 0], 100, 1_000),
    ];

    const fn of(
        name: &'static str,
        title: &'static str,
        [external_ips, source_ranges]: [u32; 2],
        ports: u16,
        endpoints: u16,
    ) -> Self {
        Self { name, title, external_ips, ports, source_ranges, endpoints }
    }

    /// The Service, as a source gets it from the API server.
    pub fn service(&self) -> Result<Service> {
        let ranges: Vec<String> = addresses(20, self.source_ranges).map(|address| format!("{address}/32")).collect();
        let service = json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.200.0.1",
                "externalIPs": addresses(198, self.external_ips).collect::<Vec<_>>(),
                "loadBalancerSourceRanges": ranges,
                "ports": self.all_ports("port"),
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
        });
        serde_json::from_value(service).context("failed to generate the huge Service")
    }

    /// The Service's `EndpointSlice`, without its last `less` endpoints.
    pub fn slice(&self, less: u16) -> Result<EndpointSlice> {
        let endpoint = |address: String| json!({"addresses": [address], "conditions": {"ready": true}});
        let slice = json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {SERVICE_NAME_LABEL: NAME}},
            "addressType": "IPv4",
            "ports": self.all_ports("port"),
            "endpoints": addresses(100, u32::from(self.endpoints.saturating_sub(less))).map(endpoint).collect::<Vec<_>>(),
        });
        serde_json::from_value(slice).context("failed to generate the EndpointSlice of the huge Service")
    }

    /// The source's event for a new Service.
    #[must_use]
    pub fn arrival(service: Service) -> Vec<Event> {
        vec![Event::Changed(Object::service(service))]
    }

    /// The source's event for a new or changed slice.
    #[must_use]
    pub fn change(slice: EndpointSlice) -> Vec<Event> {
        vec![Event::Changed(Object::slice(slice, NODE))]
    }

    /// The source's event for a removed Service.
    #[must_use]
    pub fn removal(service: Service) -> Vec<Event> {
        vec![Event::Removed(ObjectKind::Service, Object::service(service).name().clone())]
    }

    fn all_ports(&self, field: &str) -> Vec<Value> {
        (1..=self.ports).map(|port| json!({"name": format!("p{port}"), "protocol": "TCP", field: port})).collect()
    }
}

/// Addresses in `network.0.0.0/8`. No two are adjacent, because the agent merges adjacent source ranges.
fn addresses(network: u8, count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |number| {
        let [_, b, c, d] = (2 * number).to_be_bytes();
        format!("{network}.{b}.{c}.{d}")
    })
}
