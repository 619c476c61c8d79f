//! The agent's heap, which is kept small between bursts of work.
//!
//! The agent reads tens of megabytes at its start, and little afterwards. By default glibc spreads allocations over several
//! heaps, and keeps memory that became free.

/// Makes all threads share one heap. Must be called before the program has threads. Sharing costs little, because the
/// agent's threads rarely allocate at the same time. Does nothing with other C libraries than glibc.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call changes a setting of the allocator, which takes its own locks.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory of the heap to the kernel. Does nothing with other C libraries than glibc.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call needs only the allocator's own locks, which it takes.
    unsafe {
        libc::malloc_trim(0);
    }
}
