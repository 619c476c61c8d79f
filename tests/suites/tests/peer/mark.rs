//! A Service that is changed last in every round. A proxy that shows its new state has received all changes before it, and soon
//! applies them.
//!
//! A proxy watches Services, EndpointSlices and the Node separately. So each round changes the port number of the marker's
//! Service and slices, and the marker has one endpoint in each zone.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use portmap_harness::control_plane::objects::apply_yaml;
use serde_json::{Value, json};

use crate::model::{Answer, Family, Frontend, Model, Verdict};
use crate::node::ZONES;

const NAMESPACE: &str = "peer";
const NAME: &str = "mark";

/// Writes the marker of a round. Returns its expected frontends for a Node in this zone.
pub async fn write(client: &Client, round: u16, zone: Option<&str>) -> Result<Model> {
    let port = 1_000 + round;
    let mut documents = vec![service(port)];
    documents.extend(Family::ALL.map(|family| slice(family, port)));
    for document in documents {
        apply_yaml(client, &document.to_string()).await?;
    }
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = services.get(NAME).await?.spec.context("a Service has a spec")?;
    let mut expected = Model::new();
    for address in spec.cluster_ips.unwrap_or_default() {
        let address: IpAddr = address.parse()?;
        let family = if address.is_ipv4() { Family::IPv4 } else { Family::IPv6 };
        let here = endpoints(family).filter(|(in_zone, _)| zone.is_none_or(|zone| zone == *in_zone));
        let backends = here.map(|(_, address)| SocketAddr::new(address, port)).collect();
        let frontend = Frontend::Address(SocketAddr::new(address, port), "TCP".to_owned());
        expected.insert(frontend, Answer::all(Verdict::Forward(backends)));
    }
    Ok(expected)
}

fn service(port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": port}]},
    })
}

fn slice(family: Family, port: u16) -> Value {
    let endpoint = |(zone, address): (&str, IpAddr)| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("{NAME}-{}", family.to_string().to_lowercase()),
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": family.to_string(),
        "ports": [{"name": "", "port": port}],
        "endpoints": endpoints(family).map(endpoint).collect::<Vec<_>>(),
    })
}

/// One endpoint in each zone.
fn endpoints(family: Family) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let address = move |host: u8| match family {
        Family::IPv4 => IpAddr::from([10, 244, 9, host]),
        Family::IPv6 => IpAddr::from([0xfd00, 0x10, 0x244, 9, 0, 0, 0, u16::from(host)]),
    };
    ZONES.into_iter().zip((1..).map(address))
}
