//! Whose calls are looked at: all, unless the agent was told otherwise.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;

use crate::{
    socket::Socket,
    switches::{EXCLUDED, EXCLUDED_IDS, EXCLUDED_LEVELS, EXCLUDED_MAX, ONLY_HOST},
};

/// Whether the calls of the socket's process are translated.
#[inline(always)]
pub fn includes<S: Socket>(socket: &S) -> bool {
    (ONLY_HOST.load() == 0 || socket.is_on_host()) && (EXCLUDED.load() == 0 || !is_excluded())
}

/// Whether the process is in an excluded cgroup, or below one.
#[inline(always)]
fn is_excluded() -> bool {
    let (ids, levels) = (EXCLUDED_IDS.load(), EXCLUDED_LEVELS.load());
    for index in 0..EXCLUDED_MAX {
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
