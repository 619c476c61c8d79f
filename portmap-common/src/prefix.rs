//! The address ranges of ClusterIPs (`PREFIXES`). Almost all destinations lie outside of all ranges: for these, one look-up
//! in `FRONTENDS` is enough.

use crate::{Choice, V4, V6, layout};

/// Number of prefixes in each half of [`Prefixes`].
pub const PREFIXES: usize = 8;

/// A flag of [`PrefixEntry`]: the range is a `ServiceCIDR`, and every Service is in the tables. Calls to its addresses that
/// no Service has are dropped.
pub const ALLOCATED: u32 = 1;

/// An address range. A destination in it without a frontend is looked up a second time, as a whole address (port 0 and
/// protocol 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct PrefixEntry<A> {
    /// The first address of the range.
    pub address: A,
    /// The netmask: 1 for the bits that are equal in all addresses of the range.
    pub mask: A,
    /// Bits: [`ALLOCATED`].
    pub flags: u32,
}

layout!(PrefixEntry<V4>, 12);
layout!(PrefixEntry<V6>, 36);

/// The one value of `PREFIXES_V4` or `PREFIXES_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Prefixes<A> {
    /// The entries that programs use now, as a range within one half. To replace them, the agent writes the other half, then
    /// stores this word.
    pub active: Choice,
    /// Two halves of [`PREFIXES`] entries each. Only the entries of `active` are valid.
    pub prefixes: [PrefixEntry<A>; 2 * PREFIXES],
}

layout!(Prefixes<V4>, 200);
layout!(Prefixes<V6>, 584);
