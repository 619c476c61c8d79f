//! Session affinity of clients outside the node, by their address.

use portmap_common::{AddressKind, Affinity, Choice, Description, Member, OutsideClient};

use super::{
    Family,
    tables::{OUTSIDE_AFFINITY, Walk},
};
use crate::{affinity, choice};

/// The group of MEMBERS that has the endpoints of a choice: see [`Member::external`].
#[inline(always)]
pub fn group(kind: u8, inside: Choice, backends: Choice) -> u32 {
    if kind == AddressKind::ClusterIp as u8 || inside == backends { Member::external(kind) } else { Member::OUTSIDE }
}

/// The backend of the client's session for the service port, or a random one: see [`affinity::choose`].
///
/// Not inlined, so that it has its own stack. `choice` is a [`Choice`] as a word. False without a backend.
#[inline(never)]
pub fn choose<A: Family>(walk: &mut Walk<A>, service: &Description, group: u32, choice: u64) -> bool {
    let client = OutsideClient { address: walk.key.source.neutral(), id: service.id };
    let (last, now) = (OUTSIDE_AFFINITY.get_ptr_mut(client), affinity::now());
    let is_kept = affinity::last_endpoint(last, service, group, now).is_some_and(|endpoint| walk.take_endpoint(endpoint));
    if !is_kept && !walk.take(A::backend(choice::random_slot(Choice::from_word(choice)))) {
        return false;
    }
    affinity::keep(last, &Affinity { endpoint: walk.entry.endpoint.get(), last_used: now }, |entry| {
        // Without room for the session, the next connection may get another backend.
        let _is_kept = OUTSIDE_AFFINITY.insert(client, entry, 0).is_ok();
    });
    true
}
