//! Deletes flows that have expired, so that new flows do not evict live ones: the kernel evicts the entries that were not used
//! for the longest time, which may belong to idle connections.

use anyhow::Result;
use aya::Pod;
use portmap_common::{EndpointEntry, FlowEntry, FlowKey, HIDDEN, REPLIED, TCP};

use super::{FamilyFlows, FlowMaps, entries::Located};
use crate::maps::{Fullness, encode::IpBytes};

/// The time that an entry stays after it has expired, in steps of [`portmap_common::clock`]. A program that met the entry just
/// before may still write to it, and the kernel uses the memory of a deleted entry for another one at once.
const MARGIN: u32 = 1;

/// What follows from [`Swept::unanswered`], after the number.
pub const UNANSWERED: &str = "refused connections of clients outside the node got no answer, so these clients wait for their \
     timeout: the node's packet filter must accept TCP and UDP to port 0 in its INPUT chain";

/// The result of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Number of deleted entries.
    pub deleted: u64,
    /// Number of refused TCP connections that have got no answer.
    pub unanswered: u32,
    /// The entries of each map after the sweep.
    pub fullness: Vec<Fullness>,
}

impl FlowMaps {
    /// Deletes the flows that have expired at `now`, a [`portmap_common::clock`]. Costs one system call for each map, one more
    /// for each 4,096 entries, and some for each expired entry.
    pub fn sweep(&self, now: u32) -> Result<Swept> {
        let mut swept = Swept::default();
        self.v4.sweep(now, &mut swept)?;
        self.v6.sweep(now, &mut swept)?;
        Ok(swept)
    }
}

impl<A: IpBytes> FamilyFlows<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    fn sweep(&self, now: u32, swept: &mut Swept) -> Result<()> {
        let (mut read, mut deleted) = ([0_u32; 2], 0);
        self.for_each(|found| {
            if let Some(count) = read.get_mut(found.table) {
                *count += 1;
            }
            if is_unanswered(&found, now) {
                swept.unanswered += 1;
            }
            if has_expired(&found, now) {
                deleted += self.delete_if_dead(&found, now)?;
            }
            Ok(())
        })?;
        for (table, read) in self.tables.iter().zip(read) {
            // Entries were deleted before and after the batch with them was read.
            let used = if deleted == 0 { read } else { table.count()? };
            swept.fullness.push(Fullness { name: table.name, used, capacity: table.capacity });
        }
        swept.deleted += deleted as u64;
        Ok(())
    }

    /// Reads an expired entry again, and deletes what [`dead`] returns, or only this entry if it is superseded. Returns the
    /// number of deleted entries.
    ///
    /// Some microseconds pass between the second read and the deletion. Meanwhile a SYN may open a flow with the same keys: it
    /// does so however long the entries have expired. Then all its entries are deleted, or the first one stays alone, which is
    /// deleted as well. The answer does not reach the client, and its repeated SYN opens the flow again. If the first entry
    /// were deleted last, it could be missing beside the others: the connection would open, and its next packet would find no
    /// flow.
    fn delete_if_dead(&self, found: &Located<A>, now: u32) -> Result<usize> {
        let Some(found) = self.get_in(found.table, &found.key)?.filter(|found| has_expired(found, now)) else { return Ok(0) };
        if self.is_superseded(&found, now)? {
            return self.delete(&[found]);
        }
        let flow = dead(&found, now, |key| self.get(key))?;
        let mut deleted = self.delete(&flow)?;
        if let Some(first) = flow.first().filter(|entry| entry.is_first()) {
            deleted += self.delete_if_incomplete(&first.key)?;
        }
        Ok(deleted)
    }

    /// Deletes the first entry of a flow if others are missing.
    fn delete_if_incomplete(&self, key: &FlowKey<A>) -> Result<usize> {
        match self.get(key)? {
            Some(first) if !is_complete(&first, |key| self.get(key))? => self.delete(&[first]),
            Some(_) | None => Ok(0),
        }
    }
}

/// Whether a flow has its other entries. The last one, the twin of the entry with the hiding address, is written later: when
/// the device is known that sends the packet.
fn is_complete<A: IpBytes>(first: &Located<A>, get: impl Fn(&FlowKey<A>) -> Result<Option<Located<A>>>) -> Result<bool> {
    let is_hidden = first.entry.state & HIDDEN != 0;
    Ok(first.twin(&get)?.is_some() && (!is_hidden || first.hiding(get)?.is_some()))
}

/// The entries to delete because this one has expired: those of its flow, first entry first, if all of them have expired.
/// Without a first entry, this one and its twin, if both have expired. `get` finds an entry by its key.
///
/// A flow is deleted as a whole, because it does not work without one of its entries.
fn dead<A: IpBytes>(
    found: &Located<A>,
    now: u32,
    get: impl Fn(&FlowKey<A>) -> Result<Option<Located<A>>>,
) -> Result<Vec<Located<A>>> {
    let flow = match found.first(&get)? {
        Some(first) => [first].into_iter().chain(first.others(&get)?).collect(),
        None => [*found].into_iter().chain(found.twin(&get)?).collect::<Vec<_>>(),
    };
    Ok(if flow.iter().all(|entry| has_expired(entry, now)) { flow } else { Vec::new() })
}

/// Whether a refused TCP connection has got no answer, although the kernel answers at once. Then the node's packet filter has
/// dropped the packet to port 0.
fn is_unanswered<A: IpBytes>(found: &Located<A>, now: u32) -> bool {
    let FlowEntry { port, opened, state, .. } = found.entry;
    let is_silent = found.key.protocol == TCP && state & REPLIED == 0 && now.saturating_sub(opened) > MARGIN;
    port == 0 && is_silent && found.is_first() && !has_expired(found, now)
}

fn has_expired<A: IpBytes>(found: &Located<A>, now: u32) -> bool {
    !found.entry.is_alive(found.key.protocol, now.saturating_sub(MARGIN))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use portmap_common::{ASSURED, EGRESS, INGRESS, RESET, TOWARDS_CLIENT, V4};

    use super::*;

    const NOW: u32 = 1_000_000;

    type Table = HashMap<FlowKey<V4>, FlowEntry<V4>>;

    /// A closed flow of a hidden client, whose four entries were last met `age` steps ago: the first one, its twin, the entry
    /// with the hiding address, and the twin of that.
    fn flow(age: u32) -> [Located<V4>; 4] {
        let key = FlowKey {
            source: [192, 0, 2, 7],
            destination: [10, 96, 0, 1],
            source_port: 40_000,
            destination_port: 80,
            protocol: TCP,
            hook: INGRESS,
            unused: 0,
        };
        let entry = FlowEntry {
            address: [10, 244, 0, 2],
            port: 8080,
            other_port: 1024,
            state: RESET | HIDDEN,
            seen: NOW - age,
            ..FlowEntry::default()
        };
        let hiding_key = FlowKey {
            destination: entry.address,
            source_port: entry.other_port,
            destination_port: entry.port,
            hook: EGRESS,
            ..key
        };
        let hiding = FlowEntry { address: [10, 0, 0, 1], port: 1024, other_port: entry.port, ..entry };
        let located = |key, entry| Located { table: 0, key, entry };
        let pair = |key: FlowKey<V4>, entry: FlowEntry<V4>| [located(key, entry), located(key.twin(&entry), entry.twin(&key))];
        let ([first, answer], [hiding, hidden]) = (pair(key, entry), pair(hiding_key, hiding));
        [first, answer, hiding, hidden]
    }

    fn table(entries: &[Located<V4>]) -> Table {
        entries.iter().map(|found| (found.key, found.entry)).collect()
    }

    fn dead_in(table: &Table, found: &Located<V4>) -> Vec<Located<V4>> {
        let get = |key: &FlowKey<V4>| Ok(table.get(key).map(|entry| Located { table: 0, key: *key, entry: *entry }));
        dead(found, NOW, get).expect("the table can be read")
    }

    #[test]
    fn a_flow_is_deleted_one_step_after_its_lifetime_whichever_entry_is_found() {
        for (age, is_dead) in [(0, false), (5, false), (6, false), (7, true), (500, true)] {
            let flow = flow(age);
            let expected = if is_dead { flow.to_vec() } else { Vec::new() };
            for found in &flow {
                assert_eq!(dead_in(&table(&flow), found), expected, "{age}: {found:?}");
            }
        }
    }

    #[test]
    fn a_flow_stays_while_one_of_its_entries_lives() {
        for living in 0..4 {
            let mut flow = flow(100);
            flow[living].entry.seen = NOW;
            for found in &flow {
                assert_eq!(dead_in(&table(&flow), found), [], "{living}: {found:?}");
            }
        }
    }

    #[test]
    fn entries_without_a_first_one_are_deleted_with_their_twins() {
        let [_, answer, hiding, hidden] = flow(100);
        let rest = table(&[answer, hiding, hidden]);
        assert_eq!(dead_in(&rest, &answer), [answer]);
        assert_eq!(dead_in(&rest, &hidden), [hidden, hiding]);
        let live = Located { entry: FlowEntry { seen: NOW, ..hiding.entry }, ..hiding };
        assert_eq!(dead_in(&table(&[answer, live, hidden]), &hidden), []);
    }

    #[test]
    fn a_flow_is_complete_with_its_answers_and_its_hiding_address() {
        let [first, answer, hiding, hidden] = flow(0);
        let is_complete_in = |entries: &[Located<V4>]| {
            let table = table(entries);
            let get = |key: &FlowKey<V4>| Ok(table.get(key).map(|entry| Located { table: 0, key: *key, entry: *entry }));
            is_complete(&first, get).expect("the table can be read")
        };
        assert!(is_complete_in(&[first, answer, hiding, hidden]));
        assert!(is_complete_in(&[first, answer, hiding]));
        assert!(!is_complete_in(&[first, hiding, hidden]));
        assert!(!is_complete_in(&[first, answer]));
        assert!(!is_complete_in(&[first]));
    }

    #[test]
    fn an_entry_of_another_flow_is_not_deleted() {
        let [first, answer, ..] = flow(100);
        let first = Located { entry: FlowEntry { state: RESET, ..first.entry }, ..first };
        let state = REPLIED | ASSURED | TOWARDS_CLIENT;
        let other = Located { entry: FlowEntry { seen: NOW, other_port: 40_001, state, ..answer.entry }, ..answer };
        assert_eq!(dead_in(&table(&[first, other]), &first), [first]);
    }
}
