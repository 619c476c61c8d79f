//! IP addresses as byte arrays in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use portmap_common::{Address, V4, V6};

/// Error text for an address that is written to a map of the other family.
pub(in crate::maps) const OTHER_FAMILY: &str = "the address is of the other family";

/// Converts the address type of a family to and from [`IpAddr`].
pub trait IpBytes: Address {
    /// Encodes an address; `None` if it is of the other family.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// Decodes an address.
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

/// Encodes an address. Fails if it is of the other family.
pub(in crate::maps) fn address<A: IpBytes>(address: IpAddr) -> Result<A> {
    A::from_ip(address).context(OTHER_FAMILY)
}
