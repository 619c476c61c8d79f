//! Hash maps whose order differs from run to run, and whose hashing is fast: names and addresses are hashed all the time.
//!
//! Each lies in one piece of memory. What is only for a moment, but large, is kept in them for that too: the nodes of a tree would leave
//! a heap full of holes.

/// A hash map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A hash set.
pub type HashSet<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;

/// All of a set, in order.
pub fn sorted<T: Ord>(set: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = set.into_iter().collect();
    all.sort_unstable();
    all
}
