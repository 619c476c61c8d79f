//! The tables that the portmap agent writes and its BPF programs read: frontends → services → backends.
//!
//! One file per concept. Every type is plain data with a fixed layout, asserted at compile time: it is the ABI that pinned
//! maps carry from one version of the agent to the next, and what `bpftool map dump` shows. Ports are host-order integers
//! and addresses are byte arrays, so that a person can read them there. `docs/maps.md` describes the maps themselves.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

mod address;
mod affinity;
mod backend;
pub mod capacity;
mod counters;
mod endpoint;
mod frontend;
mod name;
mod prefix;
mod probe;
mod service;
mod socket;
mod source;
mod state;
mod totals;

pub use address::{Address, MAPPED, Neutral, V4, V6};
pub use affinity::{Affinity, Client, Member, Share};
pub use backend::{Backend, EndpointNumber, LOCAL};
pub use counters::Counters;
pub use endpoint::EndpointEntry;
pub use frontend::{FrontendKey, OTHER_PROXY, ServiceRef, TCP, UDP, UNDEFINED_PORT};
pub use name::{Name, TEXT};
pub use prefix::{ALLOCATED, PREFIXES, PrefixEntry, Prefixes};
pub use probe::{PROBES, Probe};
pub use service::{AddressKind, Choice, Description, HOST_ONLY, SOURCE_RANGES, Service, Verdict};
pub use socket::{
    ANSWERED, CALL, Chosen, Connected, DESTINATIONS, Datagrams, Destination, EndedSocketRecord, Flow, Numbers, SOCKETS_VERSION,
    UNSETTLED,
};
pub use source::{ADDRESSES, Namespace, SourceRange, Way};
pub use state::{DESTROYS_SOCKETS, LACKS_NODE, MEASURED, SETS_ERRORS, SYNCED, State};
pub use totals::Totals;

/// The version of everything in this crate. Maps of another version are never adopted: they are pinned in another directory.
pub const ABI_VERSION: u32 = 4;

/// Number of cgroups that one agent can exclude from translation: the length of two arrays among the programs' constants.
pub const EXCLUDED_CGROUPS: usize = 8;

/// Asserts a type's size, and marks it as plain data that user space may copy in and out of maps.
macro_rules! layout {
    ($type:ty, $size:literal) => {
        const _: () = assert!(size_of::<$type>() == $size);

        // SAFETY: the type is `repr(C)` integers and arrays of them, without padding: any bytes are a value of it.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use layout;

/// Implements the conversion of a `repr(C, align(8))` type with two `u32` fields from and to the 64-bit word with the same bytes.
macro_rules! word {
    ($type:ident { $first:ident, $second:ident }) => {
        impl $type {
            /// The value with the bytes of a word that was read from a map.
            #[inline]
            pub fn from_word(word: u64) -> Self {
                let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
                Self { $first: u32::from_ne_bytes([a, b, c, d]), $second: u32::from_ne_bytes([e, f, g, h]) }
            }

            /// The word with the bytes of this value.
            #[inline]
            pub fn to_word(self) -> u64 {
                let [a, b, c, d] = self.$first.to_ne_bytes();
                let [e, f, g, h] = self.$second.to_ne_bytes();
                u64::from_ne_bytes([a, b, c, d, e, f, g, h])
            }
        }
    };
}
pub(crate) use word;
