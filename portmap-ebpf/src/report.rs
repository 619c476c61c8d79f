//! What is kept of a decision: the counters of the service.

use crate::{
    forward::{Decision, Outcome},
    maps,
};

/// Counts a call.
#[inline(always)]
pub fn count<A>(decision: &Decision<A>) {
    let Some(counters) = decision.service.and_then(maps::counters) else {
        return;
    };
    match decision.outcome {
        Outcome::Leave => {}
        Outcome::Forward(_) => counters.forwarded += 1,
        Outcome::Refuse => counters.refused += 1,
        Outcome::Drop => counters.dropped += 1,
    }
}
