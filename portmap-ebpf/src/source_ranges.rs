//! Admission to a load balancer's address: `loadBalancerSourceRanges` for clients on this node. Asked by `decision`.
//!
//! Addresses are compared as words: bytes would take the programs' stack eight times over.

use core::hint::black_box;

use portmap_common::{ADDRESSES, Neutral, Way};

use crate::{
    maps::{self, Tables},
    socket::NO_ADDRESS,
};

/// Whether the service port admits a call to the address. Decided by the address that the socket is bound to, if its namespace has
/// that address; else by the address that the kernel would choose; else by all addresses that the kernel might choose.
///
/// When a hook runs, an unbound socket has no address yet. A client whose addresses are not known is not admitted.
///
/// A function of its own, with a stack of its own: few calls come here, and the caller's 512 bytes would not hold both.
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

/// Whether the namespace has an address. Any process may bind to an address that its namespace has not (`IP_FREEBIND`), or name it
/// in a control message. Where the addresses are not known, or too many, the claim is believed.
#[inline(always)]
fn has_address<A: Tables>(namespace: u64, claimed: &Neutral) -> bool {
    let Some((present, addresses)) = A::addresses_of(namespace) else { return true };
    if present as usize > ADDRESSES {
        return true;
    }
    // Unused entries are zeroes, which no socket claims.
    let mut is_found = false;
    for index in 0..ADDRESSES {
        // Hidden from the compiler: it would count in pointers, which the verifier does not follow to the end.
        if let Some(address) = addresses.get(black_box(index)) {
            is_found |= is_same(*claimed, address.neutral());
        }
    }
    is_found
}

/// Whether the service port admits every address of the namespace.
#[inline(always)]
fn admits_all<A: Tables>(namespace: u64, id: u64) -> bool {
    let Some((present, addresses)) = A::addresses_of(namespace).filter(|(present, _)| *present != 0) else {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    };
    // Hidden from the compiler for the same reason as the number of prefixes.
    let mut all = addresses.iter().enumerate().take_while(|(index, _)| *index < black_box(present) as usize);
    count(present as usize <= ADDRESSES && all.all(|(_, address)| A::is_admitted(id, *address)))
}

#[inline(always)]
fn is_some(address: Neutral) -> bool {
    !is_same(address, NO_ADDRESS)
}

/// Without a branch for each word.
#[inline(always)]
fn is_same([a, b, c, d]: Neutral, [e, f, g, h]: Neutral) -> bool {
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

#[inline(always)]
fn count(is_admitted: bool) -> bool {
    if !is_admitted {
        maps::count(|totals| totals.not_admitted += 1);
    }
    is_admitted
}
