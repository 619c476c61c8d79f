//! Reads of SERVICES, and access to COUNTERS. Each word of a service entry is read with one load, because the agent may write it at
//! the same time.

use portmap_common::{Choice, Counters, Description};

use super::{COUNTERS, SERVICES};

/// The fields of a service entry other than its choices; `None` if the number is outside of SERVICES.
#[inline(always)]
pub fn description(service: u32) -> Option<Description> {
    let entry = SERVICES.get_ptr(service)?.cast::<u64>();
    // SAFETY: the map returned the entry, which has four words.
    let first = unsafe { entry.add(2) };
    // SAFETY: as above.
    let second = unsafe { entry.add(3) };
    // SAFETY: both words are aligned words of the entry.
    let (first, second) = (unsafe { first.read_volatile() }, unsafe { second.read_volatile() });
    Some(Description::from_words(first, second))
}

/// The choice of a service entry for sockets on this node, read with one load; `None` if the number is outside of SERVICES.
#[inline(always)]
pub fn inside_choice(service: u32) -> Option<Choice> {
    let entry = SERVICES.get_ptr(service)?.cast::<u64>();
    // SAFETY: the map returned the entry, and `inside` is its first word.
    Some(Choice::from_word(unsafe { entry.read_volatile() }))
}

/// The choice of a service entry for clients outside the node, read with one load; `None` if the number is outside of SERVICES.
#[inline(always)]
pub fn outside_choice(service: u32) -> Option<Choice> {
    let entry = SERVICES.get_ptr(service)?.cast::<u64>();
    // SAFETY: the map returned the entry, which has four words, and `outside` is the second one.
    let outside = unsafe { entry.add(1) };
    // SAFETY: as above.
    Some(Choice::from_word(unsafe { outside.read_volatile() }))
}

/// The counters of a service entry on this CPU; `None` if the number is outside of COUNTERS.
#[inline(always)]
pub fn counters(service: u32) -> Option<&'static mut Counters> {
    let counters = COUNTERS.get_ptr_mut(service)?;
    // SAFETY: the value belongs to this CPU. A program that is preempted by another may lose a count.
    Some(unsafe { &mut *counters })
}
