//! The BPF programs in the kernel: loads them onto the pinned maps, attaches them to a cgroup, reads their output, and removes
//! them.
//!
//! Does not read or write entries of the tables: `maps` does. The agent loads the programs before it applies its first plan. It
//! also attaches them before, unless it replaces another set of maps: then it attaches them after the new maps are filled.

pub mod attach;
pub mod cgroup;
pub mod devices;
pub mod iterators;
pub mod load;
pub mod log;
#[cfg(feature = "testing")]
pub mod lookup;
mod pinned_links;
pub mod removal;
