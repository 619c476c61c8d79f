//! The calls that are translated: by default all calls except those of the agent's own connections. The agent's options
//! `--only-host` and `--exclude-cgroup` exclude further calls.
//!
//! After `socket`, before `decision`. A call outside of the scope goes on unchanged, and is not counted.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use portmap_common::EXCLUDED_CGROUPS;

use crate::{
    socket::Socket,
    switches::{EXCLUDED, EXCLUDED_IDS, EXCLUDED_LEVELS, ONLY_HOST, OWN_PRIORITY},
};

/// Whether a call is translated. The socket's network namespace and priority decide, and the cgroup of the calling process.
#[inline(always)]
pub fn includes<S: Socket>(socket: &S) -> bool {
    (ONLY_HOST.load() == 0 || socket.is_on_host()) && (EXCLUDED.load() == 0 || !is_excluded()) && !is_own(socket)
}

/// Whether the socket is the agent's own connection to the API server. It must work even if the tables are wrong, so it is not
/// translated.
///
/// Only a process with `CAP_NET_ADMIN` can set such a priority, since 5.18 also one with `CAP_NET_RAW`. Container runtimes
/// grant `CAP_NET_RAW` by default, but a pod with its own network namespace is not on the host.
#[inline(always)]
fn is_own<S: Socket>(socket: &S) -> bool {
    let own = OWN_PRIORITY.load();
    own != 0 && socket.priority() == own && socket.is_on_host()
}

/// Whether the calling process is in an excluded cgroup, or below one.
#[inline(always)]
fn is_excluded() -> bool {
    let (ids, levels) = (EXCLUDED_IDS.load(), EXCLUDED_LEVELS.load());
    for index in 0..EXCLUDED_CGROUPS {
        if index >= EXCLUDED.load() as usize {
            break;
        }
        // SAFETY: the helper takes no pointer.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(levels[index].cast_signed()) };
        if ancestor == ids[index] {
            return true;
        }
    }
    false
}
