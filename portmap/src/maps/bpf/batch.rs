//! Reads, insertions and deletions of many entries with one system call.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::Result;
use aya::{Pod, maps::MapData};

use crate::kernel::bpf::{self, Entries};

/// A second descriptor of a map. aya's map types do not lend theirs, and have no call for batches.
#[derive(Debug)]
pub struct Batch(OwnedFd);

impl Batch {
    /// Duplicates the descriptor of a map.
    pub fn of(map: &MapData) -> Result<Self> {
        Ok(Self(map.fd().as_fd().try_clone_to_owned()?))
    }

    /// Inserts or replaces entries: `keys` and `values` must have the map's sizes. On older kernels `insert` inserts each
    /// entry.
    pub fn insert<K: Pod, V: Pod>(&self, keys: &[K], values: &[V], mut insert: impl FnMut(&K, &V) -> Result<()>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        match bpf::update_entries(self.0.as_fd(), keys, values) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                keys.iter().zip(values).try_for_each(|(key, value)| insert(key, value))
            }
            other => Ok(other?),
        }
    }

    /// A reader of all entries of a hash map: `K` and `V` must have the map's sizes.
    pub fn entries<K: Pod, V: Pod>(&self) -> Entries<'_, K, V> {
        Entries::of(self.0.as_fd())
    }

    /// Calls `take` with each entry of a hash map: `K` and `V` must have the map's sizes.
    pub fn for_each<K: Pod, V: Pod>(&self, mut take: impl FnMut(&K, &V) -> Result<()>) -> Result<()> {
        let mut entries = self.entries();
        while let Some((keys, values)) = entries.next_batch()? {
            keys.iter().zip(values).try_for_each(|(key, value)| take(key, value))?;
        }
        Ok(())
    }

    /// Counts the entries of a hash map: `K` and `V` must have the map's sizes.
    pub fn count<K: Pod, V: Pod>(&self) -> Result<u32> {
        Ok(bpf::count_entries::<K, V>(self.0.as_fd())?)
    }

    /// Deletes keys from a hash map: they must have the map's size. Skips absent keys, and returns the number of deleted ones.
    pub fn delete<K: Pod>(&self, keys: &[K]) -> Result<usize> {
        Ok(bpf::delete_entries(self.0.as_fd(), keys)?)
    }
}
