//! The reasons of the desired table for one frontend, for `portmap explain`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Desired;
use crate::{
    model::{AddressOwner, Frontend, FrontendSpec, ObjectName, Verdict},
    resolve::{Explained, NodeContext, ServiceEntries, claims::Owners},
};

/// A frontend that a Service has.
#[derive(Clone, Debug)]
pub struct Served {
    /// The frontend, or the node port that serves it.
    pub spec: FrontendSpec,
    /// The Service that has the frontend.
    pub service: ObjectName,
    /// The other Services that claim the frontend.
    pub others: Vec<ObjectName>,
    /// The entry and its reasons.
    pub explained: Explained,
}

/// The nearest reason for which no Service has a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The address is the ClusterIP of this Service, which does not define the port.
    UndefinedPort(ObjectName),
    /// The address is the ClusterIP of this Service, which another proxy serves.
    OtherProxy(ObjectName),
    /// The address is an external IP or load balancer address of these Services, and none defines the port.
    UndefinedExternalPort(Vec<ObjectName>),
    /// The port is the node port of this Service, but the address is not one that serves node ports.
    NodePortElsewhere(ObjectName),
    /// The port is the node port of this Service in the other family only.
    NodePortOfOtherFamily(ObjectName),
    /// The address serves node ports, and no Service has this one.
    UndefinedNodePort,
    /// The address is in this range of ClusterIPs, and no Service has it.
    Unallocated(IpNet),
    /// No Service has anything to do with the address.
    UnknownAddress,
}

impl Unserved {
    /// The verdict of the programs, if all frontends are in the maps.
    pub fn verdict(&self, owners: Owners) -> Verdict {
        match self {
            Self::UndefinedPort(_) => Verdict::Refuse,
            Self::Unallocated(_) if owners == Owners::Known => Verdict::Drop,
            Self::OtherProxy(_)
            | Self::UndefinedExternalPort(_)
            | Self::NodePortElsewhere(_)
            | Self::NodePortOfOtherFamily(_)
            | Self::UndefinedNodePort
            | Self::Unallocated(_)
            | Self::UnknownAddress => Verdict::Leave,
        }
    }
}

impl Desired {
    /// The Service that has a frontend and the reasons of its entry, or the reason why no Service has the frontend.
    pub fn explain(&self, frontend: &Frontend) -> Result<Served, Unserved> {
        self.served(frontend).ok_or_else(|| self.unserved(frontend))
    }

    /// The properties of the node on which the table depends.
    pub fn node(&self) -> &NodeContext {
        &self.node
    }

    fn served(&self, frontend: &Frontend) -> Option<Served> {
        let (spec, service) = self.table.winner(frontend)?;
        let objects = self.store.service_objects(service)?;
        let explained = ServiceEntries::new(objects, &self.node).explain(&spec)?;
        let mut others: Vec<ObjectName> = self.table.conflicts(&spec).map(|(other, _)| other.clone()).collect();
        others.retain(|other| other != service);
        Some(Served { spec, service: service.clone(), others, explained })
    }

    fn unserved(&self, frontend: &Frontend) -> Unserved {
        let Frontend { address, port, protocol } = *frontend;
        if let Some((owner, service)) = self.table.service_of_address(&address) {
            return match owner {
                AddressOwner::Served => Unserved::UndefinedPort(service.clone()),
                AddressOwner::OtherProxy | AddressOwner::Foreign => Unserved::OtherProxy(service.clone()),
            };
        }
        let node_port = FrontendSpec::node_port(frontend.family(), port, protocol);
        if let Some(service) = self.table.holder(&node_port) {
            return Unserved::NodePortElsewhere(service.clone());
        }
        let mut services: Vec<ObjectName> = self.table.claims_at(address).map(|(_, service)| service.clone()).collect();
        services.sort();
        services.dedup();
        if !services.is_empty() {
            return Unserved::UndefinedExternalPort(services);
        }
        if self.table.node_addresses().any(|other| other == address) {
            let other = FrontendSpec::node_port(frontend.family().other(), port, protocol);
            let service = self.table.holder(&other).cloned();
            return service.map_or(Unserved::UndefinedNodePort, Unserved::NodePortOfOtherFamily);
        }
        self.range_of(address).map_or(Unserved::UnknownAddress, Unserved::Unallocated)
    }

    fn range_of(&self, address: IpAddr) -> Option<IpNet> {
        self.cidrs().into_iter().find(|range| range.contains(&address))
    }
}
