//! Generates the Services and `EndpointSlices` of an artificial cluster, as a source delivers them to the agent.
//!
//! The benchmarks' network namespaces have no route to the generated addresses of Services and pods. Only the pod of
//! [`Reached`] exists.

mod address;

use std::net::IpAddr;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portmap::maps::Capacity;
use portmap::model::Family;
use portmap::model::event::{Event, Object, ObjectKind};
use portmap::model::object::{self, SERVICE_NAME_LABEL};
use portmap_harness::listen::Protocol;

use crate::Size;
use crate::stages::NODE;

pub use address::service_address;
use address::{pod_address, replacement};

/// The port of every Service.
pub const PORT: u16 = 80;

/// The targetPort of every Service.
pub const TARGET_PORT: u16 = 8080;

/// Largest number of endpoints in one slice; the default of Kubernetes.
const SLICE: usize = 100;

/// Largest number of endpoints in a cluster. From 4,194,305 on, addresses of pods would overlap with those of replacement pods.
const MOST_ENDPOINTS: u32 = 4_000_000;

/// The namespace of all generated objects.
pub const NAMESPACE: &str = "bench";

/// The size and the address families of a generated cluster. Objects are generated at each call.
#[derive(Clone, Debug)]
pub struct Cluster {
    size: Size,
    protocol: Protocol,
    families: &'static [Family],
    reached: Option<Reached>,
}

/// An existing pod, which serves some of the Services. The pod's addresses are the only endpoints of these Services.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The pod's addresses, of one family.
    pub pod: Vec<IpAddr>,
    /// Number of Services with this pod as backend, evenly distributed among all Services; all if there are fewer.
    pub services: u32,
}

impl Cluster {
    /// A cluster whose Services have an address of each of these families. Fails if it has too many endpoints.
    pub fn new(size: Size, protocol: Protocol, families: &'static [Family]) -> Result<Self> {
        let endpoints = size.services.saturating_mul(size.endpoints);
        ensure!(endpoints <= MOST_ENDPOINTS, "{endpoints} endpoints are too many: at most {MOST_ENDPOINTS} can be generated");
        Ok(Self { size, protocol, families, reached: None })
    }

    /// The same cluster, except that some Services have the existing pod as their backend.
    #[must_use]
    pub fn reaching(self, reached: Reached) -> Self {
        Self { reached: Some(reached), ..self }
    }

    /// The capacity of maps with room for twice this cluster. No capacity is below the agent's default.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let Size { services, endpoints } = self.size;
        let families = if self.families.len() > 1 { 2 } else { 1 };
        let least = Capacity::default();
        Capacity {
            services: least.services.max(2 * services * families),
            backends: least.backends.max(2 * services * endpoints),
            ..least
        }
    }

    /// The initial events of a source: all Services and all slices. Every call generates new objects.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let services = (0..self.size.services).map(|number| Object::service(self.service(number))).collect();
        let slices = (0..self.size.services).flat_map(|number| self.slices(number));
        let slices = slices.map(received).collect();
        vec![Event::Listed(ObjectKind::Service, services), Event::Listed(ObjectKind::Slice, slices)]
    }

    /// All Services without clusterIPs, so that the API server assigns them. The API server's own Service `kubernetes` also
    /// needs a clusterIP.
    pub fn all_services(&self) -> impl Iterator<Item = Service> {
        (0..self.size.services).map(|number| {
            let mut service = self.service(number);
            if let Some(spec) = &mut service.spec {
                (spec.cluster_ip, spec.cluster_ips) = (None, None);
            }
            service
        })
    }

    /// The `EndpointSlices` of all Services.
    pub fn all_slices(&self) -> impl Iterator<Item = EndpointSlice> {
        (0..self.size.services).flat_map(|number| self.slices(number))
    }

    /// The name of the first IPv4 slice of the Service with this number.
    #[must_use]
    pub fn slice_name(number: u32) -> String {
        slice_name(&service_name(number), Family::V4, 0)
    }

    /// The event of a source after a new pod, with another address, has replaced the first pod of Service `number`. `None` if
    /// the Service has no endpoints.
    #[must_use]
    pub fn change(&self, number: u32) -> Option<Event> {
        let mut slice = self.slices(number).into_iter().next()?;
        let family = self.families.first()?;
        slice.endpoints.as_mut()?.first_mut()?.addresses = vec![replacement(*family, number).to_string()];
        Some(Event::Changed(received(slice)))
    }

    /// The numbers of the Services whose backend is the existing pod ([`Reached`]).
    pub fn reached(&self) -> impl Iterator<Item = u32> {
        (0..self.size.services).filter(|number| self.is_reached(*number))
    }

    fn is_reached(&self, number: u32) -> bool {
        let wanted = self.reached.as_ref().map_or(0, |reached| reached.services.min(self.size.services));
        let before = |number: u32| u64::from(number) * u64::from(wanted) / u64::from(self.size.services);
        before(number + 1) > before(number)
    }

    fn service(&self, number: u32) -> Service {
        let addresses: Vec<String> = self.families.iter().map(|family| service_address(*family, number).to_string()).collect();
        let port = ServicePort {
            name: Some("main".to_owned()),
            protocol: Some(self.protocol.to_string()),
            port: PORT.into(),
            ..ServicePort::default()
        };
        let spec = ServiceSpec {
            cluster_ip: addresses.first().cloned(),
            cluster_ips: Some(addresses),
            ip_families: Some(self.families.iter().map(|family| family_name(*family).to_owned()).collect()),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        };
        Service { metadata: metadata(service_name(number)), spec: Some(spec), status: None }
    }

    fn slices(&self, number: u32) -> Vec<EndpointSlice> {
        self.families.iter().flat_map(|family| self.slices_of(number, *family)).collect()
    }

    fn slices_of(&self, number: u32, family: Family) -> Vec<EndpointSlice> {
        let count = self.size.endpoints;
        let addresses = match &self.reached {
            Some(reached) if self.is_reached(number) => reached.pod.clone(),
            Some(_) | None => (0..count).map(|index| pod_address(family, number * count + index)).collect(),
        };
        let parts = (0..).zip(addresses.chunks(SLICE));
        parts.map(|(part, addresses)| self.slice(number, part, family, addresses)).collect()
    }

    fn slice(&self, number: u32, part: u32, family: Family, addresses: &[IpAddr]) -> EndpointSlice {
        let service = service_name(number);
        let mut metadata = metadata(slice_name(&service, family, part));
        metadata.labels = Some([(SERVICE_NAME_LABEL.to_owned(), service)].into());
        let target = EndpointPort {
            name: Some("main".to_owned()),
            port: Some(TARGET_PORT.into()),
            protocol: Some(self.protocol.to_string()),
            ..EndpointPort::default()
        };
        EndpointSlice {
            metadata,
            address_type: family_name(family).to_owned(),
            ports: Some(vec![target]),
            endpoints: Some(addresses.iter().map(endpoint).collect()),
        }
    }
}

/// An `EndpointSlice` as a source delivers it.
fn received(slice: EndpointSlice) -> Object {
    let EndpointSlice { metadata, address_type, ports, endpoints } = slice;
    let endpoint = |endpoint: Endpoint| {
        let Endpoint { addresses, conditions, hints, node_name, .. } = endpoint;
        object::Endpoint { addresses, conditions: conditions.unwrap_or_default(), hints, node_name, target_ref: None }
    };
    let endpoints = endpoints.into_iter().flatten().map(endpoint).collect();
    Object::slice(object::EndpointSlice { metadata, address_type, ports: ports.unwrap_or_default(), endpoints }, NODE)
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn service_name(number: u32) -> String {
    format!("service-{number:05}")
}

fn slice_name(service: &str, family: Family, part: u32) -> String {
    format!("{service}-{}-{part}", family_name(family).to_lowercase())
}

fn metadata(name: String) -> ObjectMeta {
    ObjectMeta { name: Some(name), namespace: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() }
}

fn endpoint(address: &IpAddr) -> Endpoint {
    let conditions = EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(conditions),
        node_name: Some("another-node".to_owned()),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(services: u32, endpoints: u32) -> Result<Cluster> {
        Cluster::new(Size { services, endpoints }, Protocol::Tcp, &[Family::V4])
    }

    #[test]
    fn the_pod_is_reached_by_as_many_services_as_wanted() -> Result<()> {
        for (services, wanted, reached) in [(10_000, 1000, 1000), (7, 3, 3), (5, 9, 5), (5, 0, 0)] {
            let pod = Reached { pod: Vec::new(), services: wanted };
            assert_eq!(cluster(services, 1)?.reaching(pod).reached().count(), reached);
        }
        Ok(())
    }

    #[test]
    fn many_endpoints_take_several_slices() -> Result<()> {
        let slices = cluster(1, 250)?.slices(0);
        let counts: Vec<usize> = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect();
        assert_eq!(counts, [100, 100, 50]);
        assert!(cluster(100_000, 1000).is_err());
        Ok(())
    }
}
