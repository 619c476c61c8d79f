//! The Services and slices of a run, and their random changes from round to round.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::objects::{Labels, Service, Slice};
use crate::random::Random;
use crate::slices::EndpointProfile;

/// Two namespaces. Their Services have the same names.
pub const NAMESPACES: [&str; 2] = ["shop", "yard"];

/// The objects that the API server should have.
pub type Objects = BTreeMap<Key, Object>;

/// The kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: &'static str,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    Slice,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The manifest of an object, and its status, which is written separately.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub manifest: Value,
    pub status: Option<Value>,
}

/// The state of all objects, and the source of random changes.
pub struct Population {
    random: Random,
    groups: Vec<Group>,
    /// The zone of the Node.
    pub zone: Option<&'static str>,
}

/// A Service that may exist, and its slices. The slices may exist without the Service.
struct Group {
    number: usize,
    profile: EndpointProfile,
    service: Option<Service>,
    /// The slices by a number that makes their names and addresses unique.
    slices: BTreeMap<usize, Slice>,
    copies: Vec<Copy>,
}

/// A copy of an endpoint in another slice or in its own. A real endpoint has copies while it moves between slices, or when a
/// new pod gets its address. A copy differs from its endpoint only by terminating: for other differences, the result of
/// kube-proxy is undefined.
#[derive(Clone, Copy, Debug)]
struct Copy {
    from: usize,
    endpoint: usize,
    into: usize,
    is_terminating: bool,
}

/// The maximum number of slices of a Service.
const MOST_SLICES: usize = 6;

impl Population {
    /// Creates about this many Services.
    pub fn new(mut random: Random, size: usize) -> Self {
        let groups = (0..size).map(|number| Group::new(number, &mut random)).collect();
        let zone = random.zone();
        Self { random, groups, zone }
    }

    /// Changes about every third Service, and sometimes the Node's zone.
    pub fn change(&mut self) {
        for group in &mut self.groups {
            if self.random.chance(35) {
                group.change(&mut self.random);
            }
        }
        if self.random.chance(30) {
            self.zone = self.random.zone();
        }
    }

    /// The objects that the API server should have.
    pub fn objects(&self) -> Objects {
        self.groups.iter().flat_map(Group::objects).collect()
    }
}

impl Group {
    fn new(number: usize, random: &mut Random) -> Self {
        let mut group = Self { number, profile: random.profile(), service: None, slices: BTreeMap::new(), copies: Vec::new() };
        group.renew(random);
        group
    }

    fn renew(&mut self, random: &mut Random) {
        self.profile = random.profile();
        self.service = random.chance(92).then(|| random.service(self.number));
        self.slices.clear();
        for _ in 0..=random.below(MOST_SLICES) {
            self.add_slice(random);
        }
    }

    fn change(&mut self, random: &mut Random) {
        match random.below(12) {
            0..=3 => self.change_service(random),
            4..=7 => self.change_slice(random),
            8 if self.slices.len() < MOST_SLICES => self.add_slice(random),
            8 | 9 => drop(self.slices.pop_first()),
            10 => self.service = self.service.is_none().then(|| random.service(self.number)),
            _ => self.renew(random),
        }
    }

    /// Changes one field, so that a difference between the proxies shows its cause. Creates the Service if it is missing.
    fn change_service(&mut self, random: &mut Random) {
        let other = random.service(self.number);
        let Some(service) = &mut self.service else {
            self.service = Some(other);
            return;
        };
        match random.below(12) {
            0 => service.labels = other.labels,
            1 => service.kind = other.kind,
            2 => service.families = other.families,
            3 => service.ports = other.ports,
            4 => service.external_ips = other.external_ips,
            5 => service.ingress = other.ingress,
            6 => service.source_ranges = other.source_ranges,
            7 => service.internal_policy = other.internal_policy,
            8 => service.external_policy = other.external_policy,
            9 => service.allocates_node_ports = !service.allocates_node_ports,
            10 => service.has_selector = !service.has_selector,
            _ => service.affinity = other.affinity,
        }
    }

    fn change_slice(&mut self, random: &mut Random) {
        let numbers: Vec<_> = self.slices.keys().copied().collect();
        if numbers.is_empty() {
            return self.add_slice(random);
        }
        let number = random.pick(&numbers);
        let ports = self.service.as_ref().map(|service| service.ports.as_slice()).unwrap_or_default();
        let other = random.slice(ports, self.profile, self.number, number);
        let Some(slice) = self.slices.get_mut(&number) else { return };
        match random.below(4) {
            0 => slice.labels = other.labels,
            1 => slice.ports = random.slice_ports(ports),
            2 => drop(self.slices.insert(number, other)),
            _ => {
                for endpoint in &mut slice.endpoints {
                    if random.chance(50) {
                        *endpoint = random.endpoint(endpoint.address.clone(), self.profile);
                    }
                }
            }
        }
    }

    fn add_slice(&mut self, random: &mut Random) {
        let Some(number) = (0..MOST_SLICES).find(|number| !self.slices.contains_key(number)) else { return };
        let ports = self.service.as_ref().map(|service| service.ports.as_slice()).unwrap_or_default();
        self.slices.insert(number, random.slice(ports, self.profile, self.number, number));
        self.copies.retain(|copy| copy.into != number);
        if random.chance(40) {
            let [from, endpoint] = [MOST_SLICES, 3].map(|limit| random.below(limit));
            self.copies.push(Copy { from, endpoint, into: number, is_terminating: random.chance(50) });
        }
    }

    fn objects(&self) -> Vec<(Key, Object)> {
        let namespace = NAMESPACES[self.number % NAMESPACES.len()];
        let name = format!("s{}", self.number / NAMESPACES.len());
        let mut objects = Vec::new();
        if let Some(service) = &self.service {
            let object = Object { manifest: service.manifest(namespace, &name), status: service.status() };
            objects.push((Key { kind: Kind::Service, namespace, name: name.clone() }, object));
        }
        for (number, slice) in &self.slices {
            // The address type of an existing slice cannot be changed. kube-proxy keeps the endpoints of a slice that loses its
            // label. So such slices get another name.
            let owner = if slice.labels == Labels::None { "nobody" } else { &name };
            let slice_name = format!("{owner}-{}-{number}-{}", self.number, slice.address_type.to_lowercase());
            let manifest = self.with_copies(*number, slice).manifest(namespace, &slice_name, &name);
            objects.push((Key { kind: Kind::Slice, namespace, name: slice_name }, Object { manifest, status: None }));
        }
        objects
    }

    fn with_copies(&self, number: usize, slice: &Slice) -> Slice {
        let mut slice = slice.clone();
        for copy in self.copies.iter().filter(|copy| copy.into == number) {
            let original = self.slices.get(&copy.from).filter(|original| original.address_type == slice.address_type);
            if let Some(endpoint) = original.and_then(|original| original.endpoints.get(copy.endpoint)) {
                let mut endpoint = endpoint.clone();
                if copy.is_terminating {
                    endpoint.terminating = Some(true);
                }
                slice.endpoints.push(endpoint);
            }
        }
        slice
    }
}
