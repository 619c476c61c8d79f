//! The generated addresses of the artificial cluster, by number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portmap::model::Family;

/// An IPv4 and an IPv6 network: the x of `10.x.0.0`, and the x of `fd00:10:x::`.
type Networks = (u8, u16);

const SERVICES: Networks = (96, 0x96);
const PODS: Networks = (128, 0x128);
const REPLACEMENTS: Networks = (192, 0x192);

/// The address of the Service `number`: 10.96.0.1 or `fd00:10:96::1` for 0, and so on.
#[must_use]
pub fn service_address(family: Family, number: u32) -> IpAddr {
    address(SERVICES, family, number + 1)
}

/// The address of the endpoint `number`: 10.128.0.0 or `fd00:10:128::` for 0, and so on.
pub(super) fn pod_address(family: Family, number: u32) -> IpAddr {
    address(PODS, family, number)
}

/// The address of a new pod that replaces the first pod of Service `number`: 10.192.0.0 or `fd00:10:192::` for 0, and so on.
pub(super) fn replacement(family: Family, number: u32) -> IpAddr {
    address(REPLACEMENTS, family, number)
}

fn address((v4, v6): Networks, family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(Ipv4Addr::new(10, v4, 0, 0).to_bits() + number).into(),
        Family::V6 => {
            let network = Ipv6Addr::new(0xfd00, 0x10, v6, 0, 0, 0, 0, 0);
            Ipv6Addr::from_bits(network.to_bits() + u128::from(number)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_one_another() {
        assert_eq!(service_address(Family::V4, 0), IpAddr::from([10, 96, 0, 1]));
        assert_eq!(service_address(Family::V4, 255), IpAddr::from([10, 96, 1, 0]));
        assert_eq!(service_address(Family::V6, 15).to_string(), "fd00:10:96::10");
        assert_eq!(pod_address(Family::V4, 4_000_000 - 1), IpAddr::from([10, 189, 8, 255]));
    }
}
