//! The value of PREFIXES: one half of the entries is active, the other half takes the next prefixes.

use anyhow::{Context, Result};
use ipnet::IpNet;
use portmap_common::{ALLOCATED, Choice, PREFIXES, PrefixEntry, Prefixes};

use super::{IpBytes, OTHER_FAMILY};
use crate::maps::Prefix;

/// Index of the first entry of each half.
const HALVES: [usize; 2] = [0, PREFIXES];

/// Decodes the active prefixes; `None` if they are not prefixes that an agent writes.
pub(in crate::maps) fn prefixes_of<A: IpBytes>(table: &Prefixes<A>) -> Option<Vec<Prefix>> {
    let Prefixes { active, prefixes } = table;
    let (first, count) = (active.first as usize, active.count as usize);
    if !HALVES.contains(&first) || count > PREFIXES {
        return None;
    }
    prefixes.iter().skip(first).take(count).map(prefix_of).collect()
}

/// Encodes prefixes into the inactive half. Returns the value of `active` that makes them the active ones.
///
/// There must be at most [`PREFIXES`] prefixes. Fails if a prefix is of the other family.
pub(in crate::maps) fn fill_inactive_half<A: IpBytes>(table: &mut Prefixes<A>, prefixes: &[Prefix]) -> Result<Choice> {
    let first = if table.active.first == 0 { PREFIXES } else { 0 };
    for (entry, prefix) in table.prefixes.iter_mut().skip(first).zip(prefixes) {
        *entry = prefix_entry(prefix).context(OTHER_FAMILY)?;
    }
    Ok(Choice { first: u32::try_from(first)?, count: u32::try_from(prefixes.len())? })
}

/// Encodes a prefix; `None` if it is of the other family.
fn prefix_entry<A: IpBytes>(prefix: &Prefix) -> Option<PrefixEntry<A>> {
    let Prefix { range, allocated } = prefix;
    let flags = if *allocated { ALLOCATED } else { 0 };
    Some(PrefixEntry { address: A::from_ip(range.network())?, mask: A::from_ip(range.netmask())?, flags })
}

/// Decodes a prefix; `None` if the mask has gaps, the address has bits outside of the mask, or a flag is unknown.
fn prefix_of<A: IpBytes>(prefix: &PrefixEntry<A>) -> Option<Prefix> {
    let PrefixEntry { address, mask, flags } = *prefix;
    let range = IpNet::with_netmask(address.to_ip(), mask.to_ip()).ok()?;
    let is_valid = range == range.trunc() && flags & !ALLOCATED == 0;
    is_valid.then_some(Prefix { range, allocated: flags & ALLOCATED != 0 })
}
