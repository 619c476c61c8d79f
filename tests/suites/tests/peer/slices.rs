//! Random EndpointSlices, mostly with the ports of their Service.

use crate::node::{NODE, ZONES};
use crate::objects::{Endpoint, Labels, ServicePort, Slice, SlicePort};
use crate::random::Random;
use crate::services::PROTOCOLS;

/// The name of another node. Its endpoints are not local.
const OTHER_NODE: &str = "other-node";

/// The conditions and hints that most endpoints of a Service have. They differ between Services.
#[derive(Clone, Copy, Debug)]
pub struct EndpointProfile {
    health: Health,
    hints: HintsOf,
}

#[derive(Clone, Copy, Debug)]
enum Health {
    Mixed,
    Ready,
    NotReady,
    Terminating,
}

#[derive(Clone, Copy, Debug)]
enum HintsOf {
    None,
    Zones,
    Nodes,
    Mixed,
}

impl Random {
    /// Random typical conditions and hints of a Service.
    pub fn profile(&mut self) -> EndpointProfile {
        let healths = [(4, Health::Mixed), (3, Health::Ready), (1, Health::NotReady), (1, Health::Terminating)];
        let hints = [(2, HintsOf::None), (2, HintsOf::Zones), (1, HintsOf::Nodes), (1, HintsOf::Mixed)];
        EndpointProfile { health: self.weigh(&healths), hints: self.weigh(&hints) }
    }

    /// A random slice, mostly for the ports of the Service. `slice_number` makes the addresses of a Service's slices unique.
    pub fn slice(&mut self, ports: &[ServicePort], profile: EndpointProfile, number: usize, slice_number: usize) -> Slice {
        let address_type = if self.chance(5) { "FQDN" } else { ["IPv4", "IPv6"][slice_number % 2] };
        let labels = if self.chance(10) { self.pick(&[Labels::Headless, Labels::None]) } else { Labels::OfService };
        let endpoints = (0..self.below(7))
            .map(|index| {
                let host = slice_number * 16 + index + 1;
                let address = match address_type {
                    "IPv4" => format!("10.244.{}.{host}", number + 16),
                    "IPv6" => format!("fd00:10:244:{:x}::{host:x}", number + 16),
                    _ => format!("host-{host}.example"),
                };
                self.endpoint(address, profile)
            })
            .collect();
        Slice { address_type, labels, ports: self.slice_ports(ports), endpoints }
    }

    /// Most ports of the Service, each with a random number or none, and sometimes a port that the Service does not have.
    pub fn slice_ports(&mut self, ports: &[ServicePort]) -> Vec<SlicePort> {
        let mut chosen: Vec<_> = ports.iter().map(|port| (port.name, port.protocol)).filter(|_| self.chance(90)).collect();
        let other = (self.pick(&["", "http", "dns", "web", "other"]), self.weigh(&PROTOCOLS));
        if self.chance(20) && chosen.iter().all(|(name, _)| *name != other.0) {
            chosen.push(other);
        }
        let port = |(name, protocol)| {
            let number = self.weigh(&[(2, 8_080), (1, 8_443), (1, 9_000)]);
            SlicePort { name, protocol, number: (!self.chance(4)).then_some(number) }
        };
        chosen.into_iter().map(port).collect()
    }

    /// A random endpoint with this address.
    pub fn endpoint(&mut self, address: String, profile: EndpointProfile) -> Endpoint {
        let perhaps = [None, Some(true), Some(false)];
        let (ready, serving, terminating) = match profile.health {
            Health::Mixed => (self.pick(&perhaps), self.pick(&perhaps), self.pick(&perhaps)),
            Health::Ready => (self.pick(&[None, Some(true)]), self.pick(&[None, Some(true)]), None),
            Health::NotReady => (Some(false), self.pick(&perhaps), self.pick(&[None, Some(false)])),
            Health::Terminating => (Some(false), self.pick(&perhaps), Some(true)),
        };
        let node = self.weigh(&[(1, None), (1, Some(NODE)), (2, Some(OTHER_NODE))]);
        let (has_zones, has_nodes) = match profile.hints {
            HintsOf::None => (false, false),
            HintsOf::Zones => (self.chance(96), false),
            HintsOf::Nodes => (self.chance(96), self.chance(96)),
            HintsOf::Mixed => (self.chance(50), self.chance(50)),
        };
        let zones = if has_zones { self.hints(&ZONES) } else { Vec::new() };
        let nodes = if has_nodes { self.hints(&[NODE, OTHER_NODE]) } else { Vec::new() };
        Endpoint { address, ready, serving, terminating, node, zones, nodes }
    }

    /// One or more of these names.
    fn hints(&mut self, names: &[&'static str]) -> Vec<&'static str> {
        let some = self.some(30, names);
        if some.is_empty() { vec![self.pick(names)] } else { some }
    }
}
