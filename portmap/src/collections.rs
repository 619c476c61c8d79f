//! Hash maps and sets with a fast hash function. The order of their entries differs from run to run.
//!
//! The entries of each map are in one block of memory. Large temporary collections use these types too, because the nodes of
//! a B-tree fragment the heap.

/// A hash map with the fast hash function.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A hash set with the fast hash function.
pub type HashSet<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;

/// The elements of a set in ascending order.
pub fn sorted<T: Ord>(set: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = set.into_iter().collect();
    all.sort_unstable();
    all
}
