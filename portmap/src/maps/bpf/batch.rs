//! Insertions of many entries with one system call (`BPF_MAP_UPDATE_BATCH`: hash maps from kernel 5.6, tries from 5.13).

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::Result;
use aya::{Pod, maps::MapData};

use crate::kernel::bpf;

/// A second descriptor of a map. aya's map types do not lend theirs, and have no call for batches.
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
}
