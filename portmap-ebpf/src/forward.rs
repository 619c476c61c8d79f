//! From a destination to a decision: frontend → service → backend.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use portmap_common::{Address, Backend, Choice, Frontend, Verdict};

use crate::maps::{self, Tables};

/// What happens to a client's call.
pub enum Outcome<A> {
    /// Not ours, or left to another: the call goes on as it is.
    Leave,
    /// The call goes on to this backend.
    Forward(Backend<A>),
    /// The call fails as if nobody listened.
    Refuse,
    /// The call fails as if nobody answered.
    Drop,
}

/// A decision, and the service that made it.
pub struct Decision<A> {
    /// The service's number, unless no frontend matched.
    pub service: Option<u32>,
    /// What to do.
    pub outcome: Outcome<A>,
}

/// Decides what a socket on this node meets at a destination.
#[inline(always)]
pub fn decide<A: Tables>(frontend: &Frontend<A>) -> Decision<A> {
    match maps::service_of(frontend) {
        None => Decision { service: None, outcome: Outcome::Leave },
        Some(service) => Decision { service: Some(service), outcome: choose(service) },
    }
}

/// Picks a backend of the service, each equally likely, anew for every call.
#[inline(always)]
fn choose<A: Tables>(service: u32) -> Outcome<A> {
    let Some(choice) = maps::inside_choice(service) else {
        return Outcome::Leave;
    };
    if choice.count == 0 {
        return verdict(choice);
    }
    match A::backend(choice.slot(random())) {
        Some(backend) => Outcome::Forward(*backend),
        // The agent never stores a range that leaves the map; the verifier cannot know.
        None => Outcome::Refuse,
    }
}

/// What a choice of no backend says instead.
#[inline(always)]
fn verdict<A: Address>(choice: Choice) -> Outcome<A> {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    match choice.first {
        REFUSE => Outcome::Refuse,
        DROP => Outcome::Drop,
        _ => Outcome::Leave,
    }
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_prandom_u32() }
}
