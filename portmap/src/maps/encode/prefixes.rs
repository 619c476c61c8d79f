//! The prefixes of a family, in the two halves of PREFIXES.

use anyhow::{Context, Result};
use ipnet::IpNet;
use portmap_common::{ALLOCATED, Choice, PREFIXES, PrefixEntry, Prefixes};

use super::{IpBytes, OTHER_FAMILY};
use crate::maps::Prefix;

/// Where the halves of the prefixes begin.
const HALVES: [usize; 2] = [0, PREFIXES];

/// The prefixes in force; `None` if they are not what the agent would write.
pub(in crate::maps) fn prefixes_of<A: IpBytes>(table: &Prefixes<A>) -> Option<Vec<Prefix>> {
    let Prefixes { active, prefixes } = table;
    let (first, count) = (active.first as usize, active.count as usize);
    if !HALVES.contains(&first) || count > PREFIXES {
        return None;
    }
    prefixes.iter().skip(first).take(count).map(prefix_of).collect()
}

/// Puts the prefixes into the half that is not in force. Returns the choice that switches over to them.
pub(in crate::maps) fn fill_inactive_half<A: IpBytes>(table: &mut Prefixes<A>, prefixes: &[Prefix]) -> Result<Choice> {
    let first = if table.active.first == 0 { PREFIXES } else { 0 };
    for (place, prefix) in table.prefixes.iter_mut().skip(first).zip(prefixes) {
        *place = prefix_entry(prefix).context(OTHER_FAMILY)?;
    }
    Ok(Choice { first: u32::try_from(first)?, count: u32::try_from(prefixes.len())? })
}

/// A prefix as the maps hold it; `None` if it is of the other family.
fn prefix_entry<A: IpBytes>(prefix: &Prefix) -> Option<PrefixEntry<A>> {
    let Prefix { range, allocated } = prefix;
    let flags = if *allocated { ALLOCATED } else { 0 };
    Some(PrefixEntry { address: A::from_ip(range.network())?, mask: A::from_ip(range.netmask())?, flags })
}

/// A prefix of the maps; `None` if the agent would not write it.
fn prefix_of<A: IpBytes>(prefix: &PrefixEntry<A>) -> Option<Prefix> {
    let PrefixEntry { address, mask, flags } = *prefix;
    let range = IpNet::with_netmask(address.to_ip(), mask.to_ip()).ok()?;
    let is_sound = range == range.trunc() && flags & !ALLOCATED == 0;
    is_sound.then_some(Prefix { range, allocated: flags & ALLOCATED != 0 })
}
