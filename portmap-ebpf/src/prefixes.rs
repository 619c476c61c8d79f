//! Whether a destination without a frontend is worth a second look.

use core::hint::black_box;

use portmap_common::{Choice, PREFIXES};

use crate::maps::Tables;

/// The flags of the prefix that the address lies in, if it lies in one: almost no address does.
#[inline(always)]
pub fn flags_of<A: Tables>(address: A) -> Option<u32> {
    let (active, prefixes) = A::prefixes()?;
    let Choice { first, count } = active;
    for index in 0..PREFIXES {
        // Hidden from the compiler, which would count down from the lesser of both until it meets zero. That this ends, the
        // verifier sees from 6.8 on.
        if index >= black_box(count) as usize {
            break;
        }
        // The agent never names a prefix behind the last; the verifier cannot know.
        let prefix = prefixes.get((first as usize + index) % (2 * PREFIXES))?;
        if address.lies_in(prefix.address, prefix.mask) {
            return Some(prefix.flags);
        }
    }
    None
}
