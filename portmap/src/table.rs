//! The domain types: what the tables should say, in Kubernetes' own terms and independent of how the kernel stores it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

pub use portmap_common::{Kind, Verdict};

/// A namespaced object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The protocols that a socket hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name in Kubernetes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The address families, each with its own maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A destination that clients connect to. Ordered as the command line lists them: family, address as a number, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The Service port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Frontend {
    /// The family of its address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// One port of a Service: what kube-proxy calls a service port name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, empty if it has none.
    pub port: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
}

/// A pod's address and the port that it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's own targetPort.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Where clients of a frontend go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To one of these, each equally likely. Never empty, sorted, each address and port once.
    Backends(Arc<[Endpoint]>),
    /// Nowhere.
    Verdict(Verdict),
}

/// What a frontend should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service port it belongs to.
    pub owner: ServicePort,
    /// How the address came to the Service.
    pub kind: Kind,
    /// What sockets on this node get.
    pub inside: Target,
    /// What clients outside the node get.
    pub outside: Target,
    /// Session affinity in seconds, 0 for none.
    pub affinity_timeout: u32,
}

/// Who wins an address that several Services claim: the oldest, then the first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// `metadata.creationTimestamp` in seconds since 1970; a Service without one (a file) counts as the oldest.
    pub created: i64,
    /// The Service.
    pub service: ObjectName,
}

/// A Service's claim on a frontend.
#[derive(Clone, Debug)]
struct Claim {
    precedence: Precedence,
    entry: Entry,
}

/// The desired table: for each frontend the entry of the Service that wins it.
#[derive(Debug, Default)]
pub struct Table {
    claims: BTreeMap<Frontend, Vec<Claim>>,
    by_service: BTreeMap<ObjectName, Vec<Frontend>>,
}

impl Table {
    /// Replaces everything that a Service claims, and returns the frontends whose entries may have changed.
    pub fn replace(&mut self, precedence: &Precedence, entries: Vec<(Frontend, Entry)>) -> BTreeSet<Frontend> {
        let mut touched = self.remove(&precedence.service);
        let mut claimed = Vec::with_capacity(entries.len());
        for (frontend, entry) in entries {
            let claims = self.claims.entry(frontend).or_default();
            let place = claims.partition_point(|claim| claim.precedence < *precedence);
            claims.insert(place, Claim { precedence: precedence.clone(), entry });
            claimed.push(frontend);
            touched.insert(frontend);
        }
        if !claimed.is_empty() {
            self.by_service.insert(precedence.service.clone(), claimed);
        }
        touched
    }

    /// Takes away everything that a Service claims, and returns the frontends whose entries may have changed.
    pub fn remove(&mut self, service: &ObjectName) -> BTreeSet<Frontend> {
        let claimed = self.by_service.remove(service).unwrap_or_default();
        for frontend in &claimed {
            self.withdraw(*frontend, service);
        }
        claimed.into_iter().collect()
    }

    fn withdraw(&mut self, frontend: Frontend, service: &ObjectName) {
        if let Some(claims) = self.claims.get_mut(&frontend) {
            claims.retain(|claim| claim.precedence.service != *service);
            if claims.is_empty() {
                self.claims.remove(&frontend);
            }
        }
    }

    /// The entry that a frontend should have.
    pub fn get(&self, frontend: &Frontend) -> Option<&Entry> {
        self.claims.get(frontend).and_then(|claims| claims.first()).map(|claim| &claim.entry)
    }

    /// All frontends and their entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Frontend, &Entry)> {
        self.claims.iter().filter_map(|(frontend, claims)| Some((frontend, &claims.first()?.entry)))
    }

    /// The Services that claim a frontend in vain, with the one that has it.
    pub fn losers(&self, frontend: &Frontend) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(frontend).map(Vec::as_slice).unwrap_or_default();
        let winner = claims.first().map(|claim| &claim.precedence.service);
        claims.iter().skip(1).filter_map(move |claim| Some((&claim.precedence.service, winner?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precedence(created: i64, name: &str) -> Precedence {
        Precedence { created, service: ObjectName { namespace: "default".into(), name: name.into() } }
    }

    fn claim(precedence: &Precedence) -> Vec<(Frontend, Entry)> {
        let owner = ServicePort { service: precedence.service.clone(), port: "".into(), protocol: Protocol::Tcp };
        let refuse = Target::Verdict(Verdict::Refuse);
        let entry = Entry { owner, kind: Kind::ClusterIp, inside: refuse.clone(), outside: refuse, affinity_timeout: 0 };
        vec![(frontend(), entry)]
    }

    fn frontend() -> Frontend {
        Frontend { address: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn owner(table: &Table) -> Option<&str> {
        table.get(&frontend()).map(|entry| &*entry.owner.service.name)
    }

    #[test]
    fn the_oldest_claim_wins_and_the_next_takes_over() {
        let (old, new) = (precedence(1, "z"), precedence(2, "a"));
        let mut table = Table::default();
        table.replace(&new, claim(&new));
        assert_eq!(owner(&table), Some("a"));
        table.replace(&old, claim(&old));
        assert_eq!(owner(&table), Some("z"));
        assert_eq!(table.losers(&frontend()).count(), 1);
        assert_eq!(table.replace(&old, Vec::new()).len(), 1);
        assert_eq!(owner(&table), Some("a"));
        table.replace(&new, Vec::new());
        assert_eq!(owner(&table), None);
    }

    #[test]
    fn of_one_age_the_first_name_wins() {
        let (a, b) = (precedence(1, "a"), precedence(1, "b"));
        let mut table = Table::default();
        table.replace(&b, claim(&b));
        table.replace(&a, claim(&a));
        assert_eq!(owner(&table), Some("a"));
    }
}
