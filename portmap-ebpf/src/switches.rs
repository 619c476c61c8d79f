//! The options of the programs. The agent's loader sets them before the kernel verifies the programs.
//!
//! To the verifier they are constants: it removes the code of options that are off, so they cost nothing.

use aya_ebpf::Global;
use portmap_common::EXCLUDED_CGROUPS;

/// Whether the kernel has `bpf_set_retval` for these hooks (5.18 and newer), so that a program can set the error of a call.
#[unsafe(no_mangle)]
pub static SETS_ERRORS: Global<u8> = Global::new(1);

/// Whether `getpeername()` of a TCP socket returns the Service's address. This needs a note on each TCP socket.
#[unsafe(no_mangle)]
pub static NOTES_TCP: Global<u8> = Global::new(1);

/// Whether only calls of sockets in the host's network namespace are translated.
#[unsafe(no_mangle)]
pub static ONLY_HOST: Global<u8> = Global::new(0);

/// The cookie of the host's network namespace; 0 stands for the kernel's initial namespace.
#[unsafe(no_mangle)]
pub static HOST_NAMESPACE: Global<u64> = Global::new(0);

/// Maximum number of clients that the processes of one cgroup add to AFFINITY within a [`portmap_common::Share::PERIOD`].
#[unsafe(no_mangle)]
pub static AFFINITY_SHARE: Global<u64> = Global::new(u64::MAX);

/// Number of excluded cgroups, at most [`EXCLUDED_CGROUPS`].
#[unsafe(no_mangle)]
pub static EXCLUDED: Global<u32> = Global::new(0);

/// The ids of the excluded cgroups. Only the first [`EXCLUDED`] elements are valid.
#[unsafe(no_mangle)]
pub static EXCLUDED_IDS: Global<[u64; EXCLUDED_CGROUPS]> = Global::new([0; EXCLUDED_CGROUPS]);

/// The level of each excluded cgroup in the hierarchy, in the order of [`EXCLUDED_IDS`]. The root has level 0.
#[unsafe(no_mangle)]
pub static EXCLUDED_LEVELS: Global<[u32; EXCLUDED_CGROUPS]> = Global::new([0; EXCLUDED_CGROUPS]);

/// The `SO_PRIORITY` of the agent's own connections, which are not translated. If it is 0, there are no such connections.
#[unsafe(no_mangle)]
pub static OWN_PRIORITY: Global<u32> = Global::new(0);

/// Whether packets that only pass through this node are redirected to the next device, past the node's own routing.
#[unsafe(no_mangle)]
pub static SHORTCUT: Global<u8> = Global::new(0);

/// The first port of the range from which clients outside the node get their port towards backends.
#[unsafe(no_mangle)]
pub static CLIENT_PORTS_FIRST: Global<u32> = Global::new(1_024);

/// The number of ports in that range; not 0.
#[unsafe(no_mangle)]
pub static CLIENT_PORTS: Global<u32> = Global::new(28_976);

/// Maximum number of half-open flows that FLOWS takes in per second. Others are opened in OPENING.
#[unsafe(no_mangle)]
pub static HALF_OPEN_FLOWS: Global<u32> = Global::new(u32::MAX);

/// Whether the kernel has `bpf_ktime_get_coarse_ns` (5.11 and newer), which is faster than `bpf_ktime_get_ns`.
#[unsafe(no_mangle)]
pub static COARSE_CLOCK: Global<u8> = Global::new(0);

/// The flag `BPF_F_IPV6` for changes of checksums, if the kernel knows it (6.16 and newer); else 0.
#[unsafe(no_mangle)]
pub static IPV6_CHECKSUM: Global<u64> = Global::new(0);
