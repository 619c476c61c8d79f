//! The choice of a backend: a random slot of a service's range. Used by `decision` and `affinity`.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use portmap_common::{Backend, Choice, Verdict};

use crate::{maps::Tables, outcome::Action};

/// One of the backends, each with nearly the same probability: see [`Choice::slot`]. `choice.count` must not be 0. `None` if
/// the slot is outside of the map.
#[inline(always)]
pub fn any<A: Tables>(choice: Choice) -> Option<Backend<A>> {
    A::backend(random_slot(choice)).copied()
}

/// One of the slots, each with nearly the same probability. `choice.count` must not be 0.
#[inline(always)]
pub fn random_slot(choice: Choice) -> u32 {
    choice.slot(random())
}

/// The action of a choice without backends. An unknown verdict leaves the call unchanged.
#[inline(always)]
pub fn verdict(choice: Choice) -> Action {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    match choice.first {
        REFUSE => Action::Refuse,
        DROP => Action::Drop,
        _ => Action::Leave,
    }
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_prandom_u32() }
}
