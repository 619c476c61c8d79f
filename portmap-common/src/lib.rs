//! The tables that the portmap agent writes and its BPF programs read: frontends → services → backends.
//!
//! One file per table or concept. Every key and value of a map is plain data with a fixed layout, which is asserted at compile
//! time. The layouts are the ABI of the pinned maps: one version of the agent writes them and the next one reads them.
//! `bpftool map dump` shows the same fields, so ports are host-order integers and addresses are byte arrays. `docs/maps.md`
//! describes the maps themselves.
//!
//! This crate reads and writes no map. `portmap::maps` does it for the agent, and `portmap_ebpf::maps` for the programs.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

mod address;
mod affinity;
mod backend;
pub mod capacity;
mod counters;
mod device;
mod endpoint;
mod flow;
mod frontend;
mod name;
pub mod packet;
mod prefix;
mod probe;
mod service;
mod socket;
mod source;
mod state;
mod totals;
pub mod trace;

pub use address::{Address, MAPPED, Neutral, V4, V6};
pub use affinity::{Affinity, Client, Member, Share};
pub use backend::{Backend, Halves, LOCAL};
pub use counters::Counters;
pub use device::{BARE, Device, PODS};
pub use endpoint::EndpointEntry;
pub use flow::{
    ASSURED, CLIENT_DONE, CLIENT_FIN, EGRESS, FLOWS_VERSION, FlowEntry, FlowKey, FragmentKey, FragmentPorts, Gate, HIDDEN,
    INGRESS, OutsideClient, REMOTE, REPLIED, RESET, SERVER_DONE, SERVER_FIN, TOWARDS_CLIENT, clock,
};
pub use frontend::{FrontendKey, FrontendPorts, OTHER_PROXY, ServiceRef, TCP, UDP, UNDEFINED_PORT};
pub use name::{Name, TEXT};
pub use prefix::{ALLOCATED, PREFIXES, PrefixEntry, Prefixes};
pub use probe::{PROBES, Probe};
pub use service::{AddressKind, Choice, Description, HOST_ONLY, SOURCE_RANGES, Service, Verdict};
pub use socket::{
    ANSWERED, BEING_WRITTEN, CALL, Chosen, Connected, DESTINATIONS, Datagrams, Destination, EndedSocketRecord, Flow, Numbers,
    SOCKETS_VERSION,
};
pub use source::{ADDRESSES, Namespace, SourceRange, Way};
pub use state::{DESTROYS_SOCKETS, LACKS_NODE, MEASURED, SETS_ERRORS, State};
pub use totals::Totals;

/// The version of all layouts in this crate, except those in `socket.rs` ([`SOCKETS_VERSION`]), `flow.rs`
/// ([`FLOWS_VERSION`]) and `trace.rs` ([`trace::TRACE_VERSION`]). It is part of the pin directory's path, so an agent never
/// adopts maps of another version.
pub const ABI_VERSION: u32 = 6;

/// Number of cgroups that one agent can exclude from translation: the length of two arrays among the programs' constants.
pub const EXCLUDED_CGROUPS: usize = 8;

/// Asserts a type's size in bytes, and lets user space copy the type in and out of maps.
macro_rules! layout {
    ($type:ty, $size:literal) => {
        const _: () = assert!(size_of::<$type>() == $size);

        // SAFETY: the type is `repr(C)` and has only integers, arrays, and other such types, without padding. Any bytes are a
        // valid value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use layout;

/// Implements the conversion of a `repr(C, align(8))` type with two `u32` fields from and to the 64-bit word with the same
/// bytes.
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
