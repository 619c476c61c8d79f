//! The address ranges that Services have their ClusterIPs from: what lies in none of them is nobody's, and almost all is.

use crate::{Choice, V4, V6, layout};

/// Prefixes in each half of [`Prefixes`].
pub const PREFIXES: usize = 8;

/// A flag of [`Prefix`]: every address in it is a Service's or nobody's, as in a `ServiceCIDR`.
pub const ALLOCATED: u32 = 1;

/// An address range in which a destination without a frontend is worth a second look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct PrefixEntry<A> {
    /// The first address.
    pub address: A,
    /// The bits that all addresses share.
    pub mask: A,
    /// [`ALLOCATED`].
    pub flags: u32,
}

layout!(PrefixEntry<V4>, 12);
layout!(PrefixEntry<V6>, 36);

/// The one value of `PREFIXES_V4` or `PREFIXES_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Prefixes<A> {
    /// Which prefixes are in force: those of one half. The other half is written, then this word switches over.
    pub active: Choice,
    /// The prefixes.
    pub prefixes: [PrefixEntry<A>; 2 * PREFIXES],
}

layout!(Prefixes<V4>, 200);
layout!(Prefixes<V6>, 584);
