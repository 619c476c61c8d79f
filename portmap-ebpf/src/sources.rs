//! Who may use a load balancer's address: `loadBalancerSourceRanges` for clients on this node.

use core::hint::black_box;

use portmap_common::ADDRESSES;

use crate::{
    maps::{self, Tables},
    socket::{Call, Socket},
};

/// Whether the service port admits the client: by the address that it is bound to, else by all that it might be given.
///
/// When a hook runs, a socket that is not bound has no address yet. A client whose addresses are not known is not admitted.
#[inline(always)]
pub fn admit<S: Socket<Address: Tables>>(socket: &S, call: Call, id: u64) -> bool {
    if let Some(address) = socket.source(call) {
        return S::Address::is_admitted(id, address);
    }
    let Some((count, addresses)) = S::Address::addresses_of(socket.namespace()) else {
        maps::count(|totals| totals.unknown_namespace += 1);
        return false;
    };
    // Hidden from the compiler for the same reason as the number of prefixes.
    let mut present = addresses.iter().enumerate().take_while(|(index, _)| *index < black_box(count) as usize);
    let is_admitted =
        count != 0 && count as usize <= ADDRESSES && present.all(|(_, address)| S::Address::is_admitted(id, *address));
    if !is_admitted {
        maps::count(|totals| totals.not_admitted += 1);
    }
    is_admitted
}
