//! What the loader decides before the programs are verified: constants, so that what is switched off costs nothing.

use aya_ebpf::Global;
use portmap_common::EXCLUDED_CGROUPS;

/// Whether the kernel has `bpf_set_retval` for these hooks (5.18).
#[unsafe(no_mangle)]
pub static SETS_ERRORS: Global<u8> = Global::new(1);

/// Whether TCP sockets are shown the Service as their peer, which takes a note on each of them.
#[unsafe(no_mangle)]
pub static NOTES_TCP: Global<u8> = Global::new(1);

/// Whether only processes in the host's network namespace are served.
#[unsafe(no_mangle)]
pub static ONLY_HOST: Global<u8> = Global::new(0);

/// The cookie of the host's network namespace; 0 for the initial one of the kernel.
#[unsafe(no_mangle)]
pub static HOST_NAMESPACE: Global<u64> = Global::new(0);

/// How many clients session affinity remembers for the processes of one cgroup within a [`portmap_common::Share::PERIOD`].
#[unsafe(no_mangle)]
pub static AFFINITY_SHARE: Global<u64> = Global::new(u64::MAX);

/// How many cgroups are excluded.
#[unsafe(no_mangle)]
pub static EXCLUDED: Global<u32> = Global::new(0);

/// The ids of the excluded cgroups.
#[unsafe(no_mangle)]
pub static EXCLUDED_IDS: Global<[u64; EXCLUDED_CGROUPS]> = Global::new([0; EXCLUDED_CGROUPS]);

/// How far below the root of the hierarchy each of them is.
#[unsafe(no_mangle)]
pub static EXCLUDED_LEVELS: Global<[u32; EXCLUDED_CGROUPS]> = Global::new([0; EXCLUDED_CGROUPS]);

/// The `SO_PRIORITY` of the agent's own connections that are left alone; 0 leaves none alone.
#[unsafe(no_mangle)]
pub static OWN_PRIORITY: Global<u32> = Global::new(0);
