//! The choice of the devices whose packets are translated, and of the node's address on each. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::selection::{DeviceOptions, DeviceSelection, NamePattern};
use crate::{
    datapath::devices::Target,
    kernel::devices::{DeviceKind, DeviceRoute, NetDevice, Network},
    maps::devices::{DeviceClients, DeviceEntry},
    model::{Family, PerFamily},
};

/// The chosen devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The devices, by interface index.
    pub devices: BTreeMap<u32, Chosen>,
    /// The names that the user gave and no device has.
    pub absent: Vec<String>,
    /// The names of devices that are left out, because the programs do not know the header of their packets.
    pub left_out: Vec<String>,
}

/// A chosen device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The device.
    pub target: Target,
    /// Its entry of DEVICES.
    pub entry: DeviceEntry,
}

/// Chooses the devices. `node` has the Node's address of each family.
pub fn choose(options: &DeviceOptions, network: &Network, node: &PerFamily<Option<IpAddr>>) -> Choice {
    if options.outside == DeviceSelection::None {
        return Choice::default();
    }
    let situation = Situation { network, node, ways_out: ways_out(network) };
    let mut choice = Choice { absent: absent(options, network), ..Choice::default() };
    for device in &network.devices {
        let Some(clients) = situation.clients(options, device) else { continue };
        let Some(link_layer) = device.link_layer else {
            choice.left_out.push(device.name.clone());
            continue;
        };
        let addresses = PerFamily::of(|family| situation.address(device.index, family));
        let target = Target { index: device.index, name: device.name.clone(), link_layer };
        choice.devices.insert(device.index, Chosen { target, entry: DeviceEntry { addresses, clients, link_layer } });
    }
    choice
}

/// The names in the options that no device has.
fn absent(options: &DeviceOptions, network: &Network) -> Vec<String> {
    let outside = match &options.outside {
        DeviceSelection::Named(patterns) => patterns.as_slice(),
        DeviceSelection::Automatic | DeviceSelection::None => &[],
    };
    let names = outside.iter().chain(&options.pods).filter_map(|pattern| match pattern {
        NamePattern::Name(name) => Some(name),
        NamePattern::Beginning(_) => None,
    });
    names.filter(|name| network.devices.iter().all(|device| device.name != **name)).cloned().collect()
}

/// Whether a pattern selects the device. A beginning of names does not select devices of the kind `except`.
fn is_selected(patterns: &[NamePattern], device: &NetDevice, except: DeviceKind) -> bool {
    patterns.iter().any(|pattern| match pattern {
        NamePattern::Name(_) => pattern.matches(&device.name),
        NamePattern::Beginning(_) => {
            pattern.matches(&device.name) && device.kind != except && device.kind != DeviceKind::Loopback
        }
    })
}

struct Situation<'a> {
    network: &'a Network,
    node: &'a PerFamily<Option<IpAddr>>,
    /// The interface indexes of [`ways_out`].
    ways_out: BTreeSet<u32>,
}

impl Situation<'_> {
    /// The clients that the device leads to; none if it should have no programs.
    fn clients(&self, options: &DeviceOptions, device: &NetDevice) -> Option<DeviceClients> {
        if is_selected(&options.pods, device, DeviceKind::Loopback) {
            Some(DeviceClients::Pods)
        } else {
            self.is_outside(&options.outside, device).then_some(DeviceClients::Outside)
        }
    }

    /// Whether the device leads to clients outside the node.
    fn is_outside(&self, selection: &DeviceSelection, device: &NetDevice) -> bool {
        match selection {
            // The packets of a port are seen at the bond or bridge.
            DeviceSelection::Named(patterns) => is_selected(patterns, device, DeviceKind::Port),
            DeviceSelection::Automatic => match device.kind {
                DeviceKind::Loopback | DeviceKind::Port => false,
                DeviceKind::Tunnel | DeviceKind::Other => {
                    self.has_node_address(device) || self.ways_out.contains(&device.index)
                }
            },
            DeviceSelection::None => false,
        }
    }

    fn has_node_address(&self, device: &NetDevice) -> bool {
        let named = [self.node.v4, self.node.v6];
        self.network.addresses.iter().any(|it| it.device == device.index && named.contains(&Some(it.network.addr())))
    }

    fn routes(&self, device: u32) -> impl Iterator<Item = &DeviceRoute> {
        self.network.routes.iter().filter(move |route| route.device == device)
    }

    /// The node's address on the device: the Node's address; else the address in the network of a gateway; else the first one.
    /// For a device without a primary address: the address that its routes prefer; else the Node's address; else the first
    /// address of a device with a default route; else the first address of the host.
    fn address(&self, device: u32, family: Family) -> Option<IpAddr> {
        let of_family = self.network.addresses.iter().filter(|it| it.is_primary && Family::of(it.network.addr()) == family);
        let own: Vec<&IpNet> = of_family.clone().filter(|it| it.device == device).map(|it| &it.network).collect();
        let named = *self.node.get(family);
        let gateways = || self.routes(device).filter_map(|route| route.gateway);
        let has_node = own.iter().find(|network| Some(network.addr()) == named);
        let near_gateway = || own.iter().find(|network| gateways().any(|gateway| network.contains(&gateway)));
        if let Some(network) = has_node.or_else(near_gateway).or_else(|| own.first()) {
            return Some(network.addr());
        }
        let preferred = self.routes(device).find_map(|route| route.source.filter(|source| Family::of(*source) == family));
        if preferred.or(named).is_some() {
            return preferred.or(named);
        }
        let has_default = |device| self.routes(device).any(|route| is_default(route, family));
        let others = || of_family.clone().filter(|it| !it.network.addr().is_loopback());
        let other = others().find(|it| has_default(it.device)).or_else(|| others().next());
        other.map(|it| it.network.addr())
    }
}

/// The interface indexes of the devices with a route that leads beyond their own networks: a default route, a route by a
/// gateway, or any route through a tunnel.
fn ways_out(network: &Network) -> BTreeSet<u32> {
    let tunnels = network.devices.iter().filter(|device| device.kind == DeviceKind::Tunnel);
    let tunnels: BTreeSet<u32> = tunnels.map(|device| device.index).collect();
    let is_way_out = |route: &&DeviceRoute| {
        let leads_out = route.destination.prefix_len() == 0 || route.gateway.is_some() || tunnels.contains(&route.device);
        leads_out && !is_of_each_device(&route.destination)
    };
    network.routes.iter().filter(is_way_out).map(|route| route.device).collect()
}

fn is_default(route: &DeviceRoute, family: Family) -> bool {
    route.destination.prefix_len() == 0 && Family::of(route.destination.addr()) == family
}

/// Whether each device has a route to these destinations: link-local or multicast addresses.
fn is_of_each_device(destination: &IpNet) -> bool {
    let address = destination.addr();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_link_local || address.is_multicast()
}

#[cfg(test)]
mod tests;
