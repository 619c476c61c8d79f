//! What a Service does at each of its places.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    NodeContext,
    endpoints::{self, Index, Slices},
    policies::Policies,
    service_claims::{addresses, cluster_ips},
    source_ranges,
};
use crate::{
    collections::HashMap,
    model::{
        AddressKind, Endpoint, Entry, Family, FrontendSpec, ObjectName, PerFamily, Protocol, ServicePort, Target, Verdict,
        object::{Policy, Port},
    },
    store::ServiceObjects,
};

/// The entries of one Service on one node, place by spec. An answer takes the time of a look-up if the place before was of the same
/// port: the addresses of a port share all but the kind.
pub struct ServiceEntries {
    objects: ServiceObjects,
    node: NodeContext,
    /// Addresses other than ClusterIPs.
    kinds: HashMap<IpAddr, AddressKind>,
    /// Families that have such an address.
    has_others: PerFamily<bool>,
    /// Indices of ports, by what clients ask for.
    ports: HashMap<AskedPort, usize>,
    /// Of the slices.
    index: Index,
    source_ranges: PerFamily<Option<Arc<[IpNet]>>>,
    /// The answer of the port that was asked_port for last.
    last: RefCell<Option<PortEntries>>,
}

/// A port as clients name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum AskedPort {
    Port(u16, Protocol),
    NodePort(u16, Protocol),
}

/// What holds for all places of a port in one family.
struct PortEntries {
    index: usize,
    family: Family,
    owner: ServicePort,
    policies: Policies,
    cluster: Target,
    local: Target,
    serving: Option<Arc<[Endpoint]>>,
}

impl ServiceEntries {
    /// Of this Service.
    pub fn new(objects: ServiceObjects, node: &NodeContext) -> Self {
        let service = &objects.service;
        let (mut kinds, mut has_others) = (HashMap::default(), PerFamily::default());
        for (family, cluster_ip) in cluster_ips(service) {
            kinds.extend(addresses(service, node, cluster_ip).skip(1));
            *has_others.get_mut(family) = kinds.keys().any(|address| Family::of(*address) == family);
        }
        let mut ports = HashMap::default();
        for (index, port) in service.ports.iter().enumerate() {
            ports.entry(AskedPort::Port(port.port, port.protocol)).or_insert(index);
            if let Some(number) = port.node_port {
                ports.entry(AskedPort::NodePort(number, port.protocol)).or_insert(index);
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

    /// What the Service does at a place that it claims.
    pub fn entry(&self, spec: &FrontendSpec) -> Option<Entry> {
        let service = &self.objects.service;
        let cluster_ip = (*service.cluster_ips.get(spec.family))?;
        let (kind, asked_port) = match spec.address {
            None => (AddressKind::NodePort, AskedPort::NodePort(spec.port, spec.protocol)),
            Some(address) => {
                let kind = if address == cluster_ip { AddressKind::ClusterIp } else { *self.kinds.get(&address)? };
                (kind, AskedPort::Port(spec.port, spec.protocol))
            }
        };
        let index = *self.ports.get(&asked_port)?;
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|last| (last.index, last.family) != (index, spec.family)) {
            *last = Some(self.port_entries(index, spec.family)?);
        }
        let PortEntries { owner, policies, cluster, local, serving, .. } = last.as_ref()?;
        let (inside, outside) = match kind {
            AddressKind::ClusterIp if policies.internal == Policy::Local => (local, local),
            // Clients on this node are not made to depend on where the endpoints run.
            AddressKind::NodePort | AddressKind::ExternalIp | AddressKind::LoadBalancer
                if policies.external == Policy::Local =>
            {
                (cluster, local)
            }
            AddressKind::ClusterIp | AddressKind::NodePort | AddressKind::ExternalIp | AddressKind::LoadBalancer => {
                (cluster, cluster)
            }
        };
        Some(Entry {
            owner: owner.clone(),
            kind,
            inside: inside.clone(),
            outside: outside.clone(),
            affinity_timeout: service.affinity_timeout,
            serving: serving.clone(),
            source_ranges: self.source_ranges.get(spec.family).clone(),
        })
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

/// Without an endpoint anywhere clients are refused; with some elsewhere only, a policy keeps them away, and they are dropped.
fn target(has_any: bool, set: Vec<Endpoint>) -> Target {
    if !has_any {
        Target::Verdict(Verdict::Refuse)
    } else if set.is_empty() {
        Target::Verdict(Verdict::Drop)
    } else {
        Target::Backends(set.into())
    }
}
