//! The devices of a network namespace, with their addresses and routes.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};
use aya::util::KernelVersion;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Connection;

/// The devices, addresses and routes of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The devices.
    pub devices: Vec<NetDevice>,
    /// The addresses of global scope, in the kernel's order: of each device, the primary ones first.
    pub addresses: Vec<DeviceAddress>,
    /// The routes that lead to other hosts, of all tables.
    pub routes: Vec<DeviceRoute>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// The interface index.
    pub index: u32,
    /// The name, as in `eth0`.
    pub name: String,
    /// The kind, as far as the choice of devices depends on it.
    pub kind: DeviceKind,
    /// The header before the IP header of its packets; none if it is of another kind.
    pub link_layer: Option<LinkLayer>,
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The loopback device.
    Loopback,
    /// A port of a bond, team or bridge, which receives and sends the packets of that device.
    Port,
    /// A tunnel.
    Tunnel,
    /// Another kind.
    Other,
}

/// The header before the IP header of a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// None, as for `WireGuard`, IP in IP, and `tun`.
    Bare,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// The device's interface index.
    pub device: u32,
    /// The address, with the length of its prefix.
    pub network: IpNet,
    /// Whether the kernel may choose it as a source address: it is no secondary, temporary, deprecated or tentative address.
    pub is_primary: bool,
}

/// A route, or one of the next hops of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRoute {
    /// The device's interface index.
    pub device: u32,
    /// The destinations.
    pub destination: IpNet,
    /// The gateway; none if the destinations are reached directly.
    pub gateway: Option<IpAddr>,
    /// The source address that the route prefers.
    pub source: Option<IpAddr>,
}

/// Reads the devices, addresses and routes of the thread's network namespace.
pub fn read() -> Result<Network> {
    (|| {
        let kernel = Connection::open(NETLINK_ROUTE)?;
        Ok::<_, io::Error>(Network {
            devices: devices(&kernel)?,
            addresses: kernel.list(Message::GetAddress(AddressMessage::default()))?.iter().filter_map(address).collect(),
            routes: kernel.list(Message::GetRoute(RouteMessage::default()))?.iter().flat_map(routes).collect(),
        })
    })()
    .context("failed to list the network devices, addresses and routes of this host")
}

/// The names of the devices in the thread's network namespace, by interface index.
pub fn names() -> Result<BTreeMap<u32, String>> {
    let found = Connection::open(NETLINK_ROUTE).and_then(|kernel| devices(&kernel));
    let found = found.context("failed to list the network devices of this host")?;
    Ok(found.into_iter().map(|device| (device.index, device.name)).collect())
}

fn devices(kernel: &Connection) -> io::Result<Vec<NetDevice>> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let tunnels = Tunnels::of_this_kernel();
    Ok(kernel.list(Message::GetLink(request))?.iter().filter_map(|message| device(message, tunnels)).collect())
}

/// The header with which programs see the packets that a tunnel has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnels {
    /// The inner IP header.
    Inner,
    /// Headers of the outer packet.
    Outer,
}

impl Tunnels {
    /// Before kernel 5.14, tunnels of IP in IP, SIT and GRE left the place of the link-layer header at the outer packet. A kernel
    /// of unknown version counts as an older one.
    fn of_this_kernel() -> Self {
        let is_new = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 14, 0));
        if is_new { Self::Inner } else { Self::Outer }
    }
}

fn device(message: &Message, tunnels: Tunnels) -> Option<NetDevice> {
    let Message::NewLink(LinkMessage { header, attributes, .. }) = message else { return None };
    let name = attributes.iter().find_map(|it| if let LinkAttribute::IfName(name) = it { Some(name.clone()) } else { None })?;
    let infos = attributes.iter().filter_map(|it| if let LinkAttribute::LinkInfo(infos) = it { Some(infos) } else { None });
    let infos = infos.flatten();
    let link_layer = link_layer(header.link_layer_type, attributes, tunnels);
    let kind = if header.flags.contains(LinkFlags::Loopback) {
        DeviceKind::Loopback
    } else if infos.clone().any(is_port) {
        DeviceKind::Port
    } else if link_layer != Some(LinkLayer::Ethernet) || infos.clone().any(is_tunnel) {
        DeviceKind::Tunnel
    } else {
        DeviceKind::Other
    };
    Some(NetDevice { index: header.index, name, kind, link_layer })
}

/// The header before the IP header; none if it is neither of Ethernet nor absent.
fn link_layer(of: LinkLayerType, attributes: &[LinkAttribute], tunnels: Tunnels) -> Option<LinkLayer> {
    use LinkLayerType as Type;
    // A GRE tunnel without a fixed remote host has the outer IP header there, with the remote host of each packet.
    let has_remote = |it: &LinkAttribute| matches!(it, LinkAttribute::Broadcast(remote) if remote.iter().any(|it| *it != 0));
    // The loopback device has an Ethernet header, too.
    if matches!(of, Type::Ether | Type::Loopback) {
        Some(LinkLayer::Ethernet)
    } else if matches!(of, Type::None | Type::Rawip | Type::Ppp)
        || tunnels == Tunnels::Inner
            && (matches!(of, Type::Tunnel | Type::Tunnel6 | Type::Sit)
                || matches!(of, Type::Ipgre | Type::Ip6gre) && attributes.iter().any(has_remote))
    {
        Some(LinkLayer::Bare)
    } else {
        None
    }
}

fn is_port(info: &LinkInfo) -> bool {
    let LinkInfo::PortKind(kind) = info else { return false };
    let is_other = |name: &str| matches!(kind, InfoPortKind::Other(kind) if kind == name);
    matches!(kind, InfoPortKind::Bond | InfoPortKind::Bridge | InfoPortKind::Team) || is_other("openvswitch")
}

/// Whether a device with an Ethernet header is a tunnel.
fn is_tunnel(info: &LinkInfo) -> bool {
    let LinkInfo::Kind(kind) = info else { return false };
    matches!(
        kind,
        InfoKind::Vxlan
            | InfoKind::Geneve
            | InfoKind::GreTap
            | InfoKind::GreTap6
            | InfoKind::ErSpan
            | InfoKind::Ip6ErSpan
            | InfoKind::BareUdp
            | InfoKind::BatAdv
    )
}

fn address(message: &Message) -> Option<DeviceAddress> {
    let Message::NewAddress(AddressMessage { header, attributes, .. }) = message else { return None };
    if !matches!(header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    // Of a pair, `Address` is the peer's.
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| attributes.iter().find_map(wanted);
    let local = find(|attribute| if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None });
    let other = || find(|attribute| if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None });
    let flags = attributes.iter().find_map(|it| if let AddressAttribute::Flags(flags) = it { Some(*flags) } else { None });
    let unusable = AddressFlags::Secondary | AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    let is_primary = !flags.unwrap_or(AddressFlags::empty()).intersects(unusable);
    let network = IpNet::new(local.or_else(other)?, header.prefix_len).ok()?;
    Some(DeviceAddress { device: header.index, network, is_primary })
}

/// The next hops of a route, if it leads to other hosts.
fn routes(message: &Message) -> Vec<DeviceRoute> {
    let Message::NewRoute(RouteMessage { header, attributes, .. }) = message else { return Vec::new() };
    let is_ip = matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
    if !is_ip || header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let is_v4 = header.address_family == AddressFamily::Inet;
    let unspecified = if is_v4 { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let address = find_address(attributes, |it| if let RouteAttribute::Destination(to) = it { Some(to) } else { None });
    let Ok(destination) = IpNet::new(address.unwrap_or(unspecified), header.destination_prefix_length) else {
        return Vec::new();
    };
    let source = find_address(attributes, |it| if let RouteAttribute::PrefSource(from) = it { Some(from) } else { None });
    let hop = |device, attributes| DeviceRoute { device, destination, gateway: gateway(attributes), source };
    let mut hops = Vec::new();
    for attribute in attributes {
        if let RouteAttribute::Oif(device) = attribute {
            hops.push(hop(*device, attributes));
        }
        if let RouteAttribute::MultiPath(several) = attribute {
            hops.extend(several.iter().map(|one| hop(one.interface_index, &one.attributes)));
        }
    }
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    let own = find_address(attributes, |it| if let RouteAttribute::Gateway(gateway) = it { Some(gateway) } else { None });
    own.or_else(|| {
        attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Via(RouteVia::Inet(gateway)) = attribute {
                return Some(IpAddr::from(*gateway));
            }
            if let RouteAttribute::Via(RouteVia::Inet6(gateway)) = attribute {
                return Some(IpAddr::from(*gateway));
            }
            None
        })
    })
}

fn find_address(attributes: &[RouteAttribute], wanted: fn(&RouteAttribute) -> Option<&RouteAddress>) -> Option<IpAddr> {
    let found = attributes.iter().find_map(wanted)?;
    if let RouteAddress::Inet(address) = found {
        return Some((*address).into());
    }
    if let RouteAddress::Inet6(address) = found { Some((*address).into()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_read() -> Result<()> {
        let network = read()?;
        let loopback = network.devices.iter().find(|device| device.kind == DeviceKind::Loopback).context("no loopback")?;
        assert_eq!((loopback.index, loopback.name.as_str()), (1, "lo"));
        assert_eq!(names()?.get(&1).map(String::as_str), Some("lo"));
        Ok(())
    }

    #[test]
    fn tunnels_are_bare_only_where_packets_begin_with_the_inner_header() {
        use LinkLayerType as Type;
        let remote = [LinkAttribute::Broadcast(vec![192, 0, 2, 1])];
        let of = |kind| [Tunnels::Inner, Tunnels::Outer].map(|tunnels| link_layer(kind, &remote, tunnels));
        for kind in [Type::Tunnel, Type::Tunnel6, Type::Sit, Type::Ipgre, Type::Ip6gre] {
            assert_eq!(of(kind), [Some(LinkLayer::Bare), None], "{kind:?}");
        }
        assert_eq!(of(Type::None), [Some(LinkLayer::Bare); 2]);
        assert_eq!(of(Type::Ether), [Some(LinkLayer::Ethernet); 2]);
        assert_eq!(link_layer(Type::Ipgre, &[], Tunnels::Inner), None, "no fixed remote host");
    }
}
