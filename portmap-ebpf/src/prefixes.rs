//! The address ranges of ClusterIPs. `decision` looks up a destination without a frontend a second time only if it is in
//! such a range.

use core::hint::black_box;

use portmap_common::{Choice, PREFIXES};

use crate::maps::Tables;

/// The flags of the first active prefix that contains the address; `None` if no prefix does, as for almost all destinations.
#[inline(always)]
pub fn flags_of<A: Tables>(address: A) -> Option<u32> {
    let (active, prefixes) = A::prefixes()?;
    let Choice { first, count } = active;
    for index in 0..PREFIXES {
        // Without `black_box`, the compiler counts down from the smaller of the two bounds. Verifiers before 6.8 cannot prove
        // that this loop ends.
        if index >= black_box(count) as usize {
            break;
        }
        // The agent never stores a range outside of the array, but the verifier does not know this.
        let prefix = prefixes.get((first as usize + index) % (2 * PREFIXES))?;
        if address.lies_in(prefix.address, prefix.mask) {
            return Some(prefix.flags);
        }
    }
    None
}
