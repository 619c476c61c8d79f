//! Who may use a load balancer's address: `loadBalancerSourceRanges` for clients on this node.

use core::hint::black_box;

use portmap_common::{ADDRESSES, Destination, Way};

use crate::{
    maps::{self, Tables},
    socket::{Call, Socket},
};

/// Whether the service port admits a call to the address: by the address that the socket is bound to, if its namespace has that
/// address; else by the one that the kernel would choose; else by all that it might choose.
///
/// When a hook runs, a socket that is not bound has no address yet. A client whose addresses are not known is not admitted.
#[inline(always)]
pub fn admit<S: Socket<Address: Tables>>(socket: &S, call: Call, asked: S::Address, id: u64) -> bool {
    let namespace = socket.namespace();
    // Zeroes stand for no address. Not an `Option`: the compiler moves its value about where there is none, which the verifier refuses.
    let chosen = S::Address::source_of(&Way { namespace: namespace.to_ne_bytes(), destination: asked });
    let claimed = socket.source(call).unwrap_or_default();
    if is_some(claimed) {
        if !may_claim(namespace, claimed, chosen) {
            maps::count(|totals| totals.unknown_namespace += 1);
            return false;
        }
        return count(S::Address::is_admitted(id, claimed));
    }
    if is_some(chosen) {
        return count(S::Address::is_admitted(id, chosen));
    }
    let Some((present, addresses)) = S::Address::addresses_of(namespace) else {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    };
    if present == 0 {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    }
    // Hidden from the compiler for the same reason as the number of prefixes.
    let mut all = addresses.iter().enumerate().take_while(|(index, _)| *index < black_box(present) as usize);
    count(present as usize <= ADDRESSES && all.all(|(_, address)| S::Address::is_admitted(id, *address)))
}

/// Whether a socket in the namespace may have the address as its source. Anybody may bind to one that is not the namespace's
/// (`IP_FREEBIND`), or name it in a control message. Where the addresses are not known, or too many, the socket is believed.
#[inline(always)]
fn may_claim<A: Tables>(namespace: u64, claimed: A, chosen: A) -> bool {
    if is_same(claimed, chosen) {
        return true;
    }
    let Some((present, addresses)) = A::addresses_of(namespace) else { return true };
    if present as usize > ADDRESSES {
        return true;
    }
    // Those that there are not are zeroes, which nobody claims.
    let mut is_found = false;
    for index in 0..ADDRESSES {
        // Hidden from the compiler: it would count in pointers, which the verifier does not follow to the end.
        if let Some(address) = addresses.get(black_box(index)) {
            is_found |= is_same(claimed, *address);
        }
    }
    is_found
}

#[inline(always)]
fn is_some<A: Tables>(address: A) -> bool {
    !is_same(address, A::default())
}

#[inline(always)]
fn is_same<A: Tables>(one: A, other: A) -> bool {
    destination(one).is(&destination(other))
}

#[inline(always)]
fn destination<A: Tables>(address: A) -> Destination {
    Destination { address: address.neutral(), port: 0 }
}

#[inline(always)]
fn count(is_admitted: bool) -> bool {
    if !is_admitted {
        maps::count(|totals| totals.not_admitted += 1);
    }
    is_admitted
}
