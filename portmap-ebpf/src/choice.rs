//! The choice of a backend: one slot of a service's range, each with the same probability. Used by `decision` and `affinity`.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use portmap_common::{Address, Backend, Choice, Verdict};

use crate::{
    maps::Tables,
    outcome::{Action, Outcome},
};

/// Forwards to one of the choice's backends, or does what a choice without backends says.
#[inline(always)]
pub fn pick<A: Tables>(choice: Choice) -> Outcome<A> {
    if choice.count == 0 { verdict(choice) } else { forward(any(choice)) }
}

/// One of the choice's backends, each with the same probability. The choice must not be empty.
#[inline(always)]
pub fn any<A: Tables>(choice: Choice) -> Option<Backend<A>> {
    A::backend(choice.slot(random())).copied()
}

/// Forwards to a backend. The agent never stores a range that leaves the map, but the verifier cannot know: `None` refuses.
#[inline(always)]
pub fn forward<A: Address>(backend: Option<Backend<A>>) -> Outcome<A> {
    match backend {
        Some(backend) => Outcome::forward(backend),
        None => Outcome::of(Action::Refuse),
    }
}

/// The action of a choice without backends.
#[inline(always)]
fn verdict<A: Address>(choice: Choice) -> Outcome<A> {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    Outcome::of(match choice.first {
        REFUSE => Action::Refuse,
        DROP => Action::Drop,
        _ => Action::Leave,
    })
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_prandom_u32() }
}
