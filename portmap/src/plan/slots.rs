//! Allocation of numbered slots in an array map. Retired slots are allocated again only after a grace period, because a
//! program may still read them.

use std::collections::{BTreeMap, BTreeSet};

/// A range of consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first slot.
    pub first: u32,
    /// The number of slots.
    pub count: u32,
}

/// The slots of one array. A slot is free, in use, retired (unused, perhaps still read), or waiting for the grace period
/// that began after it was retired.
#[derive(Debug)]
pub struct Slots {
    /// Free ranges: first slot → count. No range is empty; no two ranges are adjacent.
    free: BTreeMap<u32, u32>,
    /// The same ranges by (count, first): the smallest sufficient range is allocated.
    by_count: BTreeSet<(u32, u32)>,
    retired: Vec<Range>,
    waiting: Vec<Range>,
    capacity: u32,
    available: u32,
}

impl Slots {
    /// An array with `capacity` slots, all of them free.
    pub fn new(capacity: u32) -> Self {
        let mut slots = Self {
            free: BTreeMap::new(),
            by_count: BTreeSet::new(),
            retired: Vec::new(),
            waiting: Vec::new(),
            capacity,
            available: 0,
        };
        slots.give_back(Range { first: 0, count: capacity });
        slots
    }

    /// Allocates `count` consecutive slots; `None` if no free range is that long.
    pub fn allocate(&mut self, count: u32) -> Option<Range> {
        let &(length, first) = self.by_count.range((count, 0)..).next()?;
        self.take(first, length);
        self.give_back(Range { first: first + count, count: length - count });
        Some(Range { first, count })
    }

    /// Allocates exactly these slots, which are in use in the kernel. Returns false, and allocates nothing, if a slot is not
    /// free.
    pub fn reserve(&mut self, range: Range) -> bool {
        let Some(end) = range.first.checked_add(range.count) else { return false };
        let Some((&first, &count)) = self.free.range(..=range.first).next_back() else { return false };
        if end > first + count {
            return false;
        }
        self.take(first, count);
        self.give_back(Range { first, count: range.first - first });
        self.give_back(Range { first: end, count: first + count - end });
        true
    }

    /// Retires a range. The range is free after [`Self::seal`], a grace period, and [`Self::release`].
    pub fn retire(&mut self, range: Range) {
        if range.count > 0 {
            self.retired.push(range);
        }
    }

    /// Frees a range at once: nothing was written to it, so no program can read it.
    pub fn cancel(&mut self, range: Range) {
        self.give_back(range);
    }

    /// Whether `count` consecutive slots are free.
    pub fn has_room(&self, count: u32) -> bool {
        self.by_count.range((count, 0)..).next().is_some()
    }

    /// Marks all retired ranges as waiting for a grace period that begins after this call. Returns false if no range waits.
    pub fn seal(&mut self) -> bool {
        self.waiting.append(&mut self.retired);
        !self.waiting.is_empty()
    }

    /// Frees the waiting ranges, after the grace period.
    pub fn release(&mut self) {
        for range in std::mem::take(&mut self.waiting) {
            self.give_back(range);
        }
    }

    /// The number of slots in use.
    pub fn used(&self) -> u32 {
        let pending: u32 = self.retired.iter().chain(&self.waiting).map(|range| range.count).sum();
        self.capacity - self.available - pending
    }

    /// Whether ranges are retired, or wait for a grace period.
    pub fn is_pending(&self) -> bool {
        !self.retired.is_empty() || !self.waiting.is_empty()
    }

    /// The number of all slots.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    fn take(&mut self, first: u32, count: u32) {
        self.free.remove(&first);
        self.by_count.remove(&(count, first));
        self.available -= count;
    }

    /// Adds a free range, and merges it with adjacent free ranges.
    fn give_back(&mut self, range: Range) {
        let Range { mut first, mut count } = range;
        if count == 0 {
            return;
        }
        if let Some((&before, &length)) =
            self.free.range(..first).next_back().filter(|(before, length)| *before + *length == first)
        {
            self.take(before, length);
            (first, count) = (before, length + count);
        }
        if let Some(&length) = self.free.get(&(first + count)) {
            self.take(first + count, length);
            count += length;
        }
        self.free.insert(first, count);
        self.by_count.insert((count, first));
        self.available += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Action {
        Allocate(u32),
        Retire(prop::sample::Index),
        Seal,
        Release,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (1..20_u32).prop_map(Action::Allocate),
            3 => any::<prop::sample::Index>().prop_map(Action::Retire),
            1 => Just(Action::Seal),
            1 => Just(Action::Release),
        ]
    }

    proptest! {
        #[test]
        fn slots_are_given_once_and_never_lost(actions in prop::collection::vec(action(), 1..200)) {
            let mut slots = Slots::new(128);
            let (mut used, mut retired, mut waiting) = (Vec::<Range>::new(), Vec::<Range>::new(), Vec::<Range>::new());
            for action in actions {
                match action {
                    Action::Allocate(count) => {
                        if let Some(range) = slots.allocate(count) {
                            prop_assert_eq!(range.count, count);
                            prop_assert!(range.first + count <= 128);
                            for other in used.iter().chain(&retired).chain(&waiting) {
                                let apart = range.first + count <= other.first || other.first + other.count <= range.first;
                                prop_assert!(apart, "{:?} overlaps {:?}", range, other);
                            }
                            used.push(range);
                        }
                    }
                    Action::Retire(index) if !used.is_empty() => {
                        let range = used.swap_remove(index.index(used.len()));
                        slots.retire(range);
                        retired.push(range);
                    }
                    Action::Retire(_) => {}
                    Action::Seal => {
                        slots.seal();
                        waiting.append(&mut retired);
                    }
                    Action::Release => {
                        slots.release();
                        waiting.clear();
                    }
                }
                prop_assert_eq!(slots.used(), used.iter().map(|range| range.count).sum::<u32>());
            }
            for range in used {
                slots.retire(range);
            }
            slots.seal();
            slots.release();
            prop_assert_eq!(slots.allocate(128), Some(Range { first: 0, count: 128 }), "nothing leaked, all joined");
        }
    }

    #[test]
    fn a_reserved_range_is_not_given() {
        let mut slots = Slots::new(10);
        assert!(slots.reserve(Range { first: 3, count: 4 }));
        assert!(!slots.reserve(Range { first: 6, count: 1 }));
        assert!(!slots.reserve(Range { first: 9, count: 2 }));
        assert!(!slots.reserve(Range { first: u32::MAX, count: 2 }));
        assert_eq!(slots.allocate(4), None);
        assert_eq!(slots.allocate(3), Some(Range { first: 0, count: 3 }));
        assert_eq!(slots.used(), 7);
    }
}
