//! Reads an element of a per-CPU array. aya reads the number of processors from a file for each element.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;
use aya_obj::generated::bpf_cmd;

use super::{bpf, zeroed};

/// The values of an element, one for each possible processor, of which there are `processors`. `V` must have the size of the
/// map's values, a multiple of 8 bytes.
pub fn read_per_cpu<V: Pod>(map: BorrowedFd<'_>, index: u32, processors: usize) -> io::Result<Vec<V>> {
    const { assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds other sizes up") };
    // SAFETY: any bytes are a valid value of a `Pod`.
    let mut values: Vec<V> = vec![unsafe { mem::zeroed() }; processors];
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = (&raw const index) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = values.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(values)
}
