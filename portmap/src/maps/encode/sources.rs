//! Keys of SOURCE_RANGES and SOURCES, and values of NAMESPACES.

use std::net::IpAddr;

use anyhow::Result;
use aya::{Pod, maps::lpm_trie::Key};
use ipnet::IpNet;
use portmap_common::{ADDRESSES, Namespace, SourceRange, Way};

use super::{IpBytes, address};
use crate::{
    maps::{ForeignKey, Item},
    model::Family,
};

/// Encodes a source range of the service port with this id as a key of SOURCE_RANGES. Fails if it is of the other family.
pub(in crate::maps) fn range_key<A: IpBytes>(id: u64, range: &IpNet) -> Result<Key<SourceRange<A>>>
where
    SourceRange<A>: Pod,
{
    let data = SourceRange { id: id.to_be_bytes(), address: address(range.addr())? };
    Ok(Key::new(u64::BITS + u32::from(range.prefix_len()), data))
}

/// Encodes a [`ForeignKey::SourceRange`], given by its prefix length in bits and its id.
pub(in crate::maps) fn partial_range_key<A: IpBytes>(bits: u32, id: u64) -> Key<SourceRange<A>>
where
    SourceRange<A>: Pod,
{
    Key::new(bits, SourceRange { id: id.to_be_bytes(), address: A::default() })
}

/// Decodes a key of SOURCE_RANGES: an item, or a foreign key if the prefix ends within the id. Fails if the prefix is longer
/// than an address.
pub(in crate::maps) fn range_of<A: IpBytes>(key: &Key<SourceRange<A>>) -> Result<Result<Item, ForeignKey>>
where
    SourceRange<A>: Pod,
{
    let SourceRange { id, address } = key.data();
    let (id, address) = (u64::from_be_bytes(id), address.to_ip());
    let Some(bits) = key.prefix_len().checked_sub(u64::BITS) else {
        return Ok(Err(ForeignKey::SourceRange(Family::of(address), key.prefix_len(), id)));
    };
    Ok(Ok(Item::Range(id, IpNet::new(address, u8::try_from(bits)?)?.trunc())))
}

/// Encodes the addresses of a network namespace as a value of NAMESPACES. Of each family it has the first [`ADDRESSES`]
/// addresses, and the number of all addresses.
pub fn namespace(addresses: &[IpAddr]) -> Namespace {
    let (count_v4, v4) = first_of(addresses);
    let (count_v6, v6) = first_of(addresses);
    Namespace { count_v4, count_v6, v4, v6 }
}

fn first_of<A: IpBytes + Default>(addresses: &[IpAddr]) -> (u32, [A; ADDRESSES]) {
    let mut kept = [A::default(); ADDRESSES];
    let of_family = || addresses.iter().filter_map(|address| A::from_ip(*address));
    for (entry, address) in kept.iter_mut().zip(of_family()) {
        *entry = address;
    }
    (u32::try_from(of_family().count()).unwrap_or(u32::MAX), kept)
}

/// Encodes the cookie of a network namespace and a destination as a key of SOURCES. Fails if the destination is of the other
/// family.
pub(in crate::maps) fn way<A: IpBytes>(namespace: u64, destination: IpAddr) -> Result<Way<A>> {
    Ok(Way { namespace: namespace.to_ne_bytes(), destination: address(destination)? })
}

/// Decodes a key of SOURCES as the cookie of a network namespace and a destination.
pub(in crate::maps) fn way_of<A: IpBytes>(way: Way<A>) -> (u64, IpAddr) {
    (u64::from_ne_bytes(way.namespace), way.destination.to_ip())
}
