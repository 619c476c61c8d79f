//! Admission of clients on this node to a load balancer's address, by `loadBalancerSourceRanges`. Called by `decision`.
//!
//! Addresses are compared as 32-bit words: compared as bytes, they would take more of the stack, which has only 512 bytes.

use core::hint::black_box;

use portmap_common::{ADDRESSES, Neutral, Way};

use crate::{
    maps::{self, Tables},
    socket::NO_ADDRESS,
};

/// Whether the service port with this `id` admits a call from a network namespace to the address `asked`.
///
/// `claimed` is the source address of the call, or [`NO_ADDRESS`]: an unbound socket has none yet when the hook runs. A claimed
/// address decides, if the kernel would choose it or if `has_address` is true; otherwise the call is not admitted. Without a
/// claimed address, the address that the kernel would choose decides. If that is unknown, `admits_all` decides: all addresses
/// of the namespace must be known and admitted.
///
/// Not inlined, so that it has its own stack: the caller's 512 bytes are not enough for both. Few calls need it.
#[inline(never)]
pub fn admit<A: Tables>(namespace: u64, claimed: &Neutral, asked: &A, id: u64) -> bool {
    let chosen = A::source_of(&Way { namespace: namespace.to_ne_bytes(), destination: *asked });
    let claimed = *claimed;
    if is_some(claimed) && !is_same(claimed, chosen) && !has_address::<A>(namespace, &claimed) {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    }
    let source = if is_some(claimed) { claimed } else { chosen };
    if !is_some(source) {
        return admits_all::<A>(namespace, id);
    }
    count(A::is_admitted(id, A::from_neutral(source)))
}

/// Whether the namespace has the claimed address, other than as a loopback or link-local address. Any process may bind to an
/// address that its namespace does not have (`IP_FREEBIND`), or name such an address in a control message. True if the
/// namespace's addresses are unknown, or more than [`ADDRESSES`].
#[inline(always)]
fn has_address<A: Tables>(namespace: u64, claimed: &Neutral) -> bool {
    let Some((present, addresses)) = A::addresses_of(namespace) else { return true };
    if present as usize > ADDRESSES {
        return true;
    }
    // Unused elements are zero. No socket claims the address zero.
    let mut is_found = false;
    for index in 0..ADDRESSES {
        // Without `black_box`, the compiler compares pointers, and the verifier cannot prove that the loop ends.
        if let Some(address) = addresses.get(black_box(index)) {
            is_found |= is_same(*claimed, address.neutral());
        }
    }
    is_found
}

/// Whether the service port admits every address of the namespace. False if the addresses are unknown, none, or more than
/// [`ADDRESSES`]. Counts the call in TOTALS if the result is false.
#[inline(always)]
fn admits_all<A: Tables>(namespace: u64, id: u64) -> bool {
    let Some((present, addresses)) = A::addresses_of(namespace).filter(|(present, _)| *present != 0) else {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    };
    // Without `black_box`, verifiers before 6.8 cannot prove that this loop ends.
    let mut all = addresses.iter().enumerate().take_while(|(index, _)| *index < black_box(present) as usize);
    count(present as usize <= ADDRESSES && all.all(|(_, address)| A::is_admitted(id, *address)))
}

/// Whether the value stands for an address: it is not [`NO_ADDRESS`].
#[inline(always)]
fn is_some(address: Neutral) -> bool {
    !is_same(address, NO_ADDRESS)
}

/// Whether both addresses are equal. Compares without a branch per word.
#[inline(always)]
fn is_same([a, b, c, d]: Neutral, [e, f, g, h]: Neutral) -> bool {
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

/// Counts the call in TOTALS if it is not admitted. Returns its argument.
#[inline(always)]
fn count(is_admitted: bool) -> bool {
    if !is_admitted {
        maps::count(|totals| totals.not_admitted += 1);
    }
    is_admitted
}
