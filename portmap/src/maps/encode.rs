//! The domain types as the kernel's maps hold them, and back. The only place that changes representation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use portmap_common::{
    ADDRESSES, ALLOCATED, Address, Backend, Destination, LOCAL, Name, Namespace, PrefixEntry, TCP, TEXT, UDP, V4, V6,
};

use crate::{
    maps::{self, Slot},
    model::{Endpoint, Frontend, ObjectName, Protocol, ServicePort, event::ObjectKind},
};

/// An address family's bytes as an [`IpAddr`].
pub trait IpBytes: Address {
    /// The bytes of an address; `None` if it is of the other family.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// The address of these bytes.
    fn to_ip(self) -> IpAddr;
}

impl IpBytes for V4 {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl IpBytes for V6 {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.octets()),
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

/// A frontend as a key of FRONTENDS; `None` if it is of the other family.
pub fn frontend<A: IpBytes>(frontend: &Frontend) -> Option<portmap_common::FrontendKey<A>> {
    let Frontend { address, port, protocol } = *frontend;
    Some(portmap_common::FrontendKey::new(A::from_ip(address)?, port, protocol_number(protocol)))
}

/// A key of FRONTENDS as a frontend; `None` if the agent would not write it.
pub fn frontend_of<A: IpBytes>(key: &portmap_common::FrontendKey<A>) -> Option<Frontend> {
    Some(Frontend { address: key.address.to_ip(), port: key.port, protocol: protocol_of(key.protocol)? })
}

/// A slot as a value of BACKENDS; `None` if it is of the other family.
pub fn backend<A: IpBytes>(slot: &Slot) -> Option<Backend<A>> {
    let Endpoint { address, port, local } = slot.endpoint;
    Some(Backend { address: A::from_ip(address)?, port, flags: if local { LOCAL } else { 0 }, endpoint: slot.number.into() })
}

/// A value of BACKENDS as a slot.
pub fn slot_of<A: IpBytes>(backend: &Backend<A>) -> Slot {
    let Backend { address, port, flags, endpoint } = *backend;
    Slot { endpoint: Endpoint { address: address.to_ip(), port, local: flags & LOCAL != 0 }, number: endpoint.get() }
}

/// A prefix as the maps hold it; `None` if it is of the other family.
pub fn prefix<A: IpBytes>(prefix: &maps::Prefix) -> Option<PrefixEntry<A>> {
    let maps::Prefix { range, allocated } = prefix;
    let flags = if *allocated { ALLOCATED } else { 0 };
    Some(PrefixEntry { address: A::from_ip(range.network())?, mask: A::from_ip(range.netmask())?, flags })
}

/// A prefix of the maps; `None` if the agent would not write it.
pub fn prefix_of<A: IpBytes>(prefix: &PrefixEntry<A>) -> Option<maps::Prefix> {
    let PrefixEntry { address, mask, flags } = *prefix;
    let range = IpNet::with_netmask(address.to_ip(), mask.to_ip()).ok()?;
    let is_sound = range == range.trunc() && flags & !ALLOCATED == 0;
    is_sound.then_some(maps::Prefix { range, allocated: flags & ALLOCATED != 0 })
}

/// A network namespace's addresses as a value of NAMESPACES. Of too many, none is kept, and the count says so.
pub fn namespace(addresses: &[IpAddr]) -> Namespace {
    let (count_v4, v4) = first_of(addresses);
    let (count_v6, v6) = first_of(addresses);
    Namespace { count_v4, count_v6, v4, v6 }
}

fn first_of<A: IpBytes + Default>(addresses: &[IpAddr]) -> (u32, [A; ADDRESSES]) {
    let mut kept = [A::default(); ADDRESSES];
    let of_family = || addresses.iter().filter_map(|address| A::from_ip(*address));
    for (place, address) in kept.iter_mut().zip(of_family()) {
        *place = address;
    }
    (u32::try_from(of_family().count()).unwrap_or(u32::MAX), kept)
}

/// A destination as sockets remember it.
pub fn destination_of(destination: &Destination) -> SocketAddr {
    let Destination { address, port } = *destination;
    let address = V6::from_neutral(address).to_ip().to_canonical();
    SocketAddr::new(address, u16::try_from(port).unwrap_or_default())
}

/// A service port as a value of NAMES. Kubernetes' own names always fit.
pub fn name(owner: &ServicePort) -> Result<Name> {
    let ServicePort { service, port, protocol } = owner;
    Ok(Name {
        namespace: text(service.namespace())?,
        service: text(service.name())?,
        port: text(port)?,
        protocol: protocol_number(*protocol),
        unused: [0; 7],
    })
}

/// A value of NAMES as a service port; `None` if the agent would not write it.
pub fn owner_of(name: &Name) -> Option<ServicePort> {
    let service = ObjectName::new(text_of(&name.namespace)?, text_of(&name.service)?);
    Some(ServicePort { service, port: text_of(&name.port)?.into(), protocol: protocol_of(name.protocol)? })
}

/// A text that ends with a 0 byte, as the maps hold it.
pub fn text(text: &str) -> Result<[u8; TEXT]> {
    ensure!(text.len() < TEXT, "the name {text:?} has more than {} bytes", TEXT - 1);
    ensure!(!text.contains('\0'), "the name {text:?} contains a 0 byte");
    let mut bytes = [0; TEXT];
    bytes.get_mut(..text.len()).context("the name does not fit")?.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// The text before the first 0 byte; `None` if there is none, or it is not UTF-8.
pub fn text_of(bytes: &[u8; TEXT]) -> Option<&str> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(bytes.get(..length)?).ok()
}

/// Kinds of objects, one bit each.
pub fn kinds(kinds: &[ObjectKind]) -> u32 {
    kinds.iter().fold(0, |bits, kind| bits | bit(*kind))
}

/// The kinds whose bits are set.
pub fn kinds_of(bits: u32) -> Vec<ObjectKind> {
    ObjectKind::ALL.into_iter().filter(|kind| bits & bit(*kind) != 0).collect()
}

fn bit(kind: ObjectKind) -> u32 {
    match kind {
        ObjectKind::Service => 1,
        ObjectKind::Slice => 2,
        ObjectKind::OtherService => 4,
        ObjectKind::Node => 8,
        ObjectKind::ServiceCidr => 16,
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let service = ObjectName::new("default", "web");
        let owner = ServicePort { service, port: "http".into(), protocol: Protocol::Udp };
        assert_eq!(name(&owner).ok().and_then(|name| owner_of(&name)), Some(owner));
        let key = Frontend { address: "fd00::1".parse().expect("an address"), port: 443, protocol: Protocol::Tcp };
        assert_eq!(frontend::<V6>(&key).and_then(|key| frontend_of(&key)), Some(key));
        assert_eq!(frontend::<V4>(&key), None);
    }

    #[test]
    fn foreign_bytes_are_no_name() {
        assert_eq!(text_of(&[b'x'; TEXT]), None);
        assert_eq!(text_of(&[0xff; TEXT]), None);
        assert!(text(&"x".repeat(TEXT)).is_err());
    }
}
