//! Commands for many entries of a map with one system call. Hash maps have them from kernel 5.6 on, tries from 5.13 on.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{bpf, zeroed};

/// The kernel's error for a command that a type of map lacks. The headers of user space do not define it.
const ENOTSUPP: i32 = 524;

/// The most entries that one call reads. It must exceed the number of entries in any bucket of a hash map.
const BATCH: usize = 4_096;

/// Reads the entries of a hash map in batches of at most 4,096. An entry that stays in the map meanwhile is read once. An entry
/// that is inserted or removed meanwhile may be missing.
#[derive(Debug)]
pub struct Entries<'map, K, V> {
    map: BorrowedFd<'map>,
    keys: Vec<K>,
    values: Vec<V>,
    next: Next,
}

/// The bucket at which the next batch begins.
#[derive(Clone, Copy, Debug)]
enum Next {
    First,
    At(u32),
    /// The last batch was read.
    Ended,
}

impl<'map, K: Pod, V: Pod> Entries<'map, K, V> {
    /// A reader at the begin of the map. `K` and `V` must have the sizes of its keys and values.
    pub fn of(map: BorrowedFd<'map>) -> Self {
        // SAFETY: any bytes are a valid value of a `Pod`.
        let (key, value) = unsafe { mem::zeroed() };
        Self { map, keys: vec![key; BATCH], values: vec![value; BATCH], next: Next::First }
    }

    /// Reads the next batch, which may be empty. Returns none after the last one.
    pub fn next_batch(&mut self) -> io::Result<Option<(&[K], &[V])>> {
        let (position, mut next) = match self.next {
            Next::First => (None, 0_u32),
            Next::At(bucket) => (Some(bucket), 0),
            Next::Ended => return Ok(None),
        };
        let mut attr = batch_of(self.map, BATCH)?;
        attr.batch.in_batch = position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64);
        attr.batch.out_batch = (&raw mut next) as u64;
        attr.batch.keys = self.keys.as_mut_ptr() as u64;
        attr.batch.values = self.values.as_mut_ptr() as u64;
        self.next = match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => Next::At(next),
            // This was the last batch.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Next::Ended,
            Err(error) => return Err(error),
        };
        let count = count_of(&attr);
        Ok(Some((self.keys.get(..count).unwrap_or_default(), self.values.get(..count).unwrap_or_default())))
    }
}

/// Counts the entries of a hash map. `K` and `V` must have the sizes of its keys and values.
pub fn count_entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<u32> {
    let (mut entries, mut count) = (Entries::<K, V>::of(map), 0);
    while let Some((keys, _)) = entries.next_batch()? {
        count += keys.len();
    }
    u32::try_from(count).map_err(io::Error::other)
}

/// Writes entries into a hash map or trie, with one call. Keys that exist get the new values. `K` and `V` must have the sizes
/// of the map's keys and values.
///
/// Fails with `Unsupported`, before any write, on kernels without the call: before 5.6 for hash maps, before 5.13 for tries.
/// After another error, some entries may have been written.
pub fn update_entries<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let mut attr = batch_of(map, keys.len().min(values.len()))?;
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes keys from a hash map. Keys that are absent are skipped. Returns the number of deleted keys. `K` must have the size
/// of the map's keys.
pub fn delete_entries<K: Pod>(map: BorrowedFd<'_>, mut keys: &[K]) -> io::Result<usize> {
    let mut deleted = 0;
    while !keys.is_empty() {
        let mut attr = batch_of(map, keys.len())?;
        attr.batch.keys = keys.as_ptr() as u64;
        let result = bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr);
        let count = count_of(&attr);
        match result {
            Ok(_) => return Ok(deleted + count),
            // The kernel stops at an absent key, and counts the keys before it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                deleted += count;
                keys = keys.get(count + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

fn batch_of(map: BorrowedFd<'_>, count: usize) -> io::Result<bpf_attr> {
    let mut attr = zeroed();
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    attr.batch.count = u32::try_from(count).map_err(io::Error::other)?;
    Ok(attr)
}

/// The number of entries that the kernel read, wrote or deleted.
fn count_of(attr: &bpf_attr) -> usize {
    // SAFETY: every member of the union consists of integers, and the kernel wrote the count into this member.
    let count = unsafe { attr.batch.count };
    count as usize
}
