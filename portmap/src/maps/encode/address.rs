//! Addresses as the bytes that the maps hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use portmap_common::{Address, V4, V6};

/// The error of an address that is written to the maps of the other family.
pub(in crate::maps) const OTHER_FAMILY: &str = "the address is of the other family";

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

/// The bytes of an address. Fails if it is of the other family.
pub(in crate::maps) fn address<A: IpBytes>(address: IpAddr) -> Result<A> {
    A::from_ip(address).context(OTHER_FAMILY)
}
