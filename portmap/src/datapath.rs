//! The programs and maps in the kernel: where they are pinned, how they are loaded, attached and removed.

pub mod attach;
pub mod cgroup;
pub mod iterators;
pub mod load;
pub mod log;
#[cfg(feature = "testing")]
pub mod lookup;
pub mod removal;
