//! Who may use a load balancer's address: source ranges, and the addresses that clients on this node have.

use crate::{V4, V6, layout};

/// The data of a key of `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6`, behind the prefix length: a range that a service port admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceRange<A> {
    /// The service port's `id`, in network order: the first bits of the prefix.
    pub id: [u8; 8],
    /// The first address.
    pub address: A,
}

layout!(SourceRange<V4>, 12);
layout!(SourceRange<V6>, 24);

/// A key of `SOURCES_V4` or `SOURCES_V6`: clients in a network namespace, and the load balancer's address that they call. The
/// value is the address that they call from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Way<A> {
    /// The network namespace's cookie, in the machine's byte order.
    pub namespace: [u8; 8],
    /// The load balancer's address.
    pub destination: A,
}

layout!(Way<V4>, 12);
layout!(Way<V6>, 24);

/// How many addresses of each family are kept of a network namespace.
pub const ADDRESSES: usize = 32;

/// A value of `NAMESPACES` under a network namespace's cookie: its global addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Namespace {
    /// How many IPv4 addresses; above [`ADDRESSES`] there are too many to tell.
    pub count_v4: u32,
    /// How many IPv6 addresses.
    pub count_v6: u32,
    /// The IPv4 addresses.
    pub v4: [V4; ADDRESSES],
    /// The IPv6 addresses.
    pub v6: [V6; ADDRESSES],
}

layout!(Namespace, 648);
