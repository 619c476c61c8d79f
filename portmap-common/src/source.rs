//! Source ranges of load balancers (`SOURCE_RANGES`), and the addresses of clients on this node (`NAMESPACES`, `SOURCES`).

use crate::{V4, V6, layout};

/// The data after the prefix length in a key of `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6`: a range that a service port admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct SourceRange<A> {
    /// The service port's `id`, in network order: the first 64 bits of the prefix.
    pub id: [u8; 8],
    /// The first address of the range.
    pub address: A,
}

layout!(SourceRange<V4>, 12);
layout!(SourceRange<V6>, 24);

/// A key of `SOURCES_V4` or `SOURCES_V6`: a network namespace, and a load balancer's address. The value is the source address
/// that the kernel chooses for calls of the namespace to that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Way<A> {
    /// The network namespace's cookie, in the machine's byte order.
    pub namespace: [u8; 8],
    /// The load balancer's address.
    pub destination: A,
}

layout!(Way<V4>, 12);
layout!(Way<V6>, 24);

/// Maximum number of addresses of each family in a [`Namespace`].
pub const ADDRESSES: usize = 32;

/// A value of `NAMESPACES` under a network namespace's cookie: its addresses, except loopback and link-local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Namespace {
    /// Number of IPv4 addresses in the namespace. Above [`ADDRESSES`], `v4` is incomplete.
    pub count_v4: u32,
    /// Number of IPv6 addresses in the namespace. Above [`ADDRESSES`], `v6` is incomplete.
    pub count_v6: u32,
    /// The IPv4 addresses; zeroes after the last.
    pub v4: [V4; ADDRESSES],
    /// The IPv6 addresses; zeroes after the last.
    pub v6: [V6; ADDRESSES],
}

layout!(Namespace, 648);
