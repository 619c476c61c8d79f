//! Hash maps whose order differs from run to run, and whose hashing is fast: names and addresses are hashed all the time.

/// A hash map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
