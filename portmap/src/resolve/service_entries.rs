//! The entries of one Service: endpoints, policies and source ranges of each of its frontends.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    NodeContext,
    endpoints::{self, Considered, Hinted, Index, Slices},
    policies::Policies,
    service_claims::{addresses, cluster_ips},
    source_ranges,
};
use crate::{
    collections::HashMap,
    model::{
        AddressKind, Endpoint, Entry, Family, FrontendSpec, ObjectName, PerFamily, Protocol, ServicePort, Target, Verdict,
        object::{Policy, Port, SlicePort},
    },
    store::ServiceObjects,
};

/// Derives the entries of one Service on one node, one frontend at a time.
///
/// All frontends of a port in one family share their endpoints and policies. Those of the last port are kept, so that a further
/// frontend of the same port costs only a look-up.
pub struct ServiceEntries {
    objects: ServiceObjects,
    node: NodeContext,
    /// External IPs and load balancer addresses, with their kinds.
    kinds: HashMap<IpAddr, AddressKind>,
    /// Whether the family has an external IP or a load balancer address.
    has_others: PerFamily<bool>,
    /// The index of a port in the valid ports of the Service.
    ports: HashMap<DestinationPort, usize>,
    /// The index of the slices by port.
    index: Index,
    source_ranges: PerFamily<Option<Arc<[IpNet]>>>,
    /// The endpoints and policies of the port for which [`Self::entry`] was called last.
    last: RefCell<Option<PortEntries>>,
}

/// A port that clients connect to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum DestinationPort {
    /// `port`, on the addresses of the Service.
    Port(u16, Protocol),
    /// `nodePort`, on the addresses of the node.
    NodePort(u16, Protocol),
}

/// The endpoints and policies that all frontends of a port in one family share.
struct PortEntries {
    index: usize,
    family: Family,
    owner: ServicePort,
    policies: Policies,
    cluster: Target,
    local: Target,
    serving: Option<Arc<[Endpoint]>>,
}

/// The entry of a frontend, and the reasons of its endpoints.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The entry, as for the maps.
    pub entry: Entry,
    /// The Service port.
    pub port: Port,
    /// The policy for clients on this node: it selects the cluster set or the local set.
    pub inside: Policy,
    /// The policy for clients outside the node.
    pub outside: Policy,
    /// The hints that select endpoints of the cluster set.
    pub hinted: Hinted,
    /// The endpoints of the Service port in this family.
    pub endpoints: Vec<Considered>,
    /// The EndpointSlices of the Service.
    pub slices: SlicesSeen,
}

/// The EndpointSlices of a Service, in numbers. They tell why a Service port has no endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicesSeen {
    /// The number of EndpointSlices.
    pub count: usize,
    /// The number of their endpoints in each family, of all ports.
    pub endpoints: PerFamily<usize>,
    /// The ports of the EndpointSlices of the frontend's family, each once.
    pub ports: Vec<SlicePort>,
}

impl ServiceEntries {
    /// Prepares the look-ups for a Service's entries. Derives no entry yet.
    pub fn new(objects: ServiceObjects, node: &NodeContext) -> Self {
        let service = &objects.service;
        let (mut kinds, mut has_others) = (HashMap::default(), PerFamily::default());
        for (family, cluster_ip) in cluster_ips(service) {
            kinds.extend(addresses(service, node, cluster_ip).skip(1));
            *has_others.get_mut(family) = kinds.keys().any(|address| Family::of(*address) == family);
        }
        let mut ports = HashMap::default();
        for (index, port) in service.ports.iter().enumerate() {
            ports.entry(DestinationPort::Port(port.port, port.protocol)).or_insert(index);
            if let Some(number) = port.node_port {
                ports.entry(DestinationPort::NodePort(number, port.protocol)).or_insert(index);
            }
        }
        let source_ranges = PerFamily::of(|family| source_ranges::ranges(service, family, node).map(Into::into));
        let index = Index::of(&objects.slices, service.ports.len());
        Self { kinds, has_others, ports, index, source_ranges, last: RefCell::default(), node: node.clone(), objects }
    }

    /// The Service's name.
    pub fn service(&self) -> &ObjectName {
        &self.objects.name
    }

    /// The entry of a frontend; `None` if the Service does not have the frontend.
    pub fn entry(&self, spec: &FrontendSpec) -> Option<Entry> {
        let (kind, index) = self.port_of(spec)?;
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|last| (last.index, last.family) != (index, spec.family)) {
            *last = Some(self.port_entries(index, spec.family)?);
        }
        let PortEntries { owner, policies, cluster, local, serving, .. } = last.as_ref()?;
        let target = |policy| match policy {
            Policy::Cluster => cluster.clone(),
            Policy::Local => local.clone(),
        };
        Some(Entry {
            owner: owner.clone(),
            kind,
            inside: target(policies.inside(kind)),
            outside: target(policies.outside(kind)),
            affinity_timeout: self.objects.service.affinity_timeout,
            serving: serving.clone(),
            source_ranges: self.source_ranges.get(spec.family).clone(),
        })
    }

    /// The entry of a frontend, with the endpoints that were considered, each with its reason. `None` as for [`Self::entry`].
    pub fn explain(&self, spec: &FrontendSpec) -> Option<Explained> {
        let entry = self.entry(spec)?;
        let (kind, index) = self.port_of(spec)?;
        let ServiceObjects { name: _, service, slices } = &self.objects;
        let port = service.ports.get(index)?;
        let policies = Policies::of(service, port, *self.has_others.get(spec.family));
        let (hinted, endpoints) =
            endpoints::considered(&Slices::new(slices, &self.index), &entry.owner, spec.family, &self.node);
        Some(Explained {
            port: port.clone(),
            inside: policies.inside(kind),
            outside: policies.outside(kind),
            hinted,
            endpoints,
            slices: self.slices(spec.family),
            entry,
        })
    }

    /// The kind of a frontend's address, and the index of its port among the valid ports of the Service.
    fn port_of(&self, spec: &FrontendSpec) -> Option<(AddressKind, usize)> {
        let cluster_ip = (*self.objects.service.cluster_ips.get(spec.family))?;
        let (kind, destination) = match spec.address {
            None => (AddressKind::NodePort, DestinationPort::NodePort(spec.port, spec.protocol)),
            Some(address) => {
                let kind = if address == cluster_ip { AddressKind::ClusterIp } else { *self.kinds.get(&address)? };
                (kind, DestinationPort::Port(spec.port, spec.protocol))
            }
        };
        Some((kind, *self.ports.get(&destination)?))
    }

    fn slices(&self, family: Family) -> SlicesSeen {
        let slices = &self.objects.slices;
        let endpoints = |family| slices.iter().filter(|it| it.family == Some(family)).map(|it| it.endpoints.len()).sum();
        let of_family = slices.iter().filter(|slice| slice.family == Some(family));
        let ports: BTreeSet<SlicePort> = of_family.flat_map(|slice| slice.ports.iter().cloned()).collect();
        SlicesSeen { count: slices.len(), endpoints: PerFamily::of(endpoints), ports: ports.into_iter().collect() }
    }

    fn port_entries(&self, index: usize, family: Family) -> Option<PortEntries> {
        let ServiceObjects { name, service, slices } = &self.objects;
        let port: &Port = service.ports.get(index)?;
        let policies = Policies::of(service, port, *self.has_others.get(family));
        let owner = ServicePort { service: name.clone(), port: port.name.clone(), protocol: port.protocol };
        let sets = endpoints::of_port(&Slices::new(slices, &self.index), &owner, family, &self.node, policies.uses());
        let (cluster, local) = (target(sets.has_any, sets.cluster), target(sets.has_any, sets.local));
        let serving = policies.is_remembered.then(|| sets.serving.into());
        Some(PortEntries { index, family, owner, policies, cluster, local, serving })
    }
}

/// The target for a set of endpoints. Connections are refused if no node has a usable endpoint (`has_any` is false). They
/// are dropped if a policy excludes all usable endpoints.
fn target(has_any: bool, set: Vec<Endpoint>) -> Target {
    if !has_any {
        Target::Verdict(Verdict::Refuse)
    } else if set.is_empty() {
        Target::Verdict(Verdict::Drop)
    } else {
        Target::Backends(set.into())
    }
}
