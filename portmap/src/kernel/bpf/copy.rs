//! Copies the entries of a map of any type.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::bpf_cmd;

use super::{bpf, zeroed};

/// The properties of a map that a copy of its entries depends on.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Whether the map is an array: its elements are zeroes from the start.
    pub is_array: bool,
    /// Size of a key in bytes.
    pub key_size: usize,
    /// Size of a value in bytes. A per-CPU map has a value for each possible processor, each rounded up to a multiple of 8.
    pub value_size: usize,
    /// The number of entries that the map has room for.
    pub capacity: usize,
}

/// Copies the entries of a map into another map with the same type and sizes of entries. Leaves zeroes out of an array.
///
/// An entry that a program inserts or removes meanwhile may be copied or not.
pub fn copy_entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>, layout: Layout) -> io::Result<()> {
    let Layout { is_array, key_size, value_size, capacity } = layout;
    let (mut key, mut next, mut value) = (None, vec![0_u8; key_size], vec![0_u8; value_size]);
    // The kernel starts over at a key that a program has removed, so the number of steps has a limit.
    for _ in 0..capacity.saturating_mul(2) {
        if !next_key(from, key.as_deref(), &mut next)? {
            break;
        }
        if look_up(from, &next, &mut value)? && !(is_array && value.iter().all(|byte| *byte == 0)) {
            update(to, &next, &value)?;
        }
        key = Some(next.clone());
    }
    Ok(())
}

/// Writes the key after `key` into `next`, or the first key. Returns false if there is none.
fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = key.map_or(0, |key| key.as_ptr() as u64);
    attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    is_found(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr))
}

/// Reads the value of a key. Returns false if the key is absent.
fn look_up(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    is_found(bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr))
}

fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

fn is_found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|_| true),
    }
}
