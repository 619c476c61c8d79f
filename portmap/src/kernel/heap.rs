//! The agent's heap, which is kept small between bursts of work.
//!
//! The agent reads tens of megabytes at its start, and little afterwards. By default the allocator keeps free memory for a second,
//! and for longer if nothing is allocated then.

use std::ffi::c_long;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc: the time in milliseconds for which free memory is kept.
const PURGE_DELAY: mi_option_t = 15;

/// Lets the allocator return free memory to the kernel at once. Must be called before the program has threads.
pub fn keep_small() {
    const NONE: c_long = 0;
    // SAFETY: the call changes a setting, which no other thread reads or writes at this time.
    unsafe {
        mi_option_set(PURGE_DELAY, NONE);
    }
}

/// Returns free memory that the allocator keeps for this thread to the kernel.
pub fn give_back() {
    // SAFETY: the call has no requirements; it takes the allocator's own locks.
    unsafe {
        mi_collect(true);
    }
}
