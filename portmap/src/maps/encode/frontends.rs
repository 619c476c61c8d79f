//! Keys and values of FRONTENDS, for frontends and for ClusterIPs as a whole, and the kind in values of SERVICES.

use std::net::IpAddr;

use anyhow::Result;
use portmap_common::{AddressKind, FrontendKey, OTHER_PROXY, ServiceRef, UNDEFINED_PORT};

use super::{IpBytes, address, protocol_number, protocol_of};
use crate::model::{AddressOwner, Frontend};

/// Encodes a frontend as a key of FRONTENDS; `None` if it is of the other family.
pub fn frontend<A: IpBytes>(frontend: &Frontend) -> Option<FrontendKey<A>> {
    let Frontend { address, port, protocol } = *frontend;
    Some(FrontendKey::new(A::from_ip(address)?, port, protocol_number(protocol)))
}

/// Decodes a key of FRONTENDS; `None` if its protocol is neither TCP nor UDP.
pub fn frontend_of<A: IpBytes>(key: &FrontendKey<A>) -> Option<Frontend> {
    Some(Frontend { address: key.address.to_ip(), port: key.port, protocol: protocol_of(key.protocol)? })
}

/// Encodes a ClusterIP as the key of FRONTENDS that stands for all ports without a frontend.
pub(in crate::maps) fn address_key<A: IpBytes>(cluster_ip: IpAddr) -> Result<FrontendKey<A>> {
    Ok(FrontendKey::new(address(cluster_ip)?, 0, 0))
}

/// Encodes the owner of a ClusterIP as a service number; `None` for an owner that no agent writes.
pub(in crate::maps) fn owner_number(owner: AddressOwner) -> Option<u32> {
    match owner {
        AddressOwner::Served => Some(UNDEFINED_PORT),
        AddressOwner::OtherProxy => Some(OTHER_PROXY),
        AddressOwner::Foreign => None,
    }
}

/// Decodes the owner of a ClusterIP: [`AddressOwner::Foreign`] for a value that no agent writes.
pub(in crate::maps) fn address_owner_of(value: ServiceRef) -> AddressOwner {
    match value.service {
        UNDEFINED_PORT => AddressOwner::Served,
        OTHER_PROXY => AddressOwner::OtherProxy,
        _ => AddressOwner::Foreign,
    }
}

/// Decodes the kind of a service entry. An unknown kind becomes a ClusterIP here; [`portmap_common::Member::external`] takes it
/// for another kind.
pub fn kind_of(kind: u8) -> AddressKind {
    let kinds = [AddressKind::NodePort, AddressKind::ExternalIp, AddressKind::LoadBalancer];
    kinds.into_iter().find(|known| *known as u8 == kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use portmap_common::{V4, V6};

    use super::*;
    use crate::model::Protocol;

    #[test]
    fn a_frontend_reads_back() {
        let key = Frontend { address: "fd00::1".parse().expect("an address"), port: 443, protocol: Protocol::Tcp };
        assert_eq!(frontend::<V6>(&key).and_then(|key| frontend_of(&key)), Some(key));
        assert_eq!(frontend::<V4>(&key), None);
    }
}
