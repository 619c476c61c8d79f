//! Frontends and whole ClusterIPs, in FRONTENDS.

use std::net::IpAddr;

use anyhow::Result;
use portmap_common::{FrontendKey, OTHER_PROXY, ServiceRef, UNDEFINED_PORT};

use super::{IpBytes, address, protocol_number, protocol_of};
use crate::model::{AddressOwner, Frontend};

/// A frontend as a key of FRONTENDS; `None` if it is of the other family.
pub fn frontend<A: IpBytes>(frontend: &Frontend) -> Option<FrontendKey<A>> {
    let Frontend { address, port, protocol } = *frontend;
    Some(FrontendKey::new(A::from_ip(address)?, port, protocol_number(protocol)))
}

/// A key of FRONTENDS as a frontend; `None` if the agent would not write it.
pub fn frontend_of<A: IpBytes>(key: &FrontendKey<A>) -> Option<Frontend> {
    Some(Frontend { address: key.address.to_ip(), port: key.port, protocol: protocol_of(key.protocol)? })
}

/// The key of FRONTENDS for a whole ClusterIP.
pub(in crate::maps) fn address_key<A: IpBytes>(cluster_ip: IpAddr) -> Result<FrontendKey<A>> {
    Ok(FrontendKey::new(address(cluster_ip)?, 0, 0))
}

/// The service number that stands for the owner of a ClusterIP.
pub(in crate::maps) fn owner_number(owner: AddressOwner) -> Option<u32> {
    match owner {
        AddressOwner::Served => Some(UNDEFINED_PORT),
        AddressOwner::OtherProxy => Some(OTHER_PROXY),
        AddressOwner::Foreign => None,
    }
}

/// The owner that a value stands for.
pub(in crate::maps) fn address_owner_of(value: ServiceRef) -> AddressOwner {
    match value.service {
        UNDEFINED_PORT => AddressOwner::Served,
        OTHER_PROXY => AddressOwner::OtherProxy,
        _ => AddressOwner::Foreign,
    }
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
