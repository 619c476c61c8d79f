//! How much of the node's memory the agent holds: no more than it needs from day to day.
//!
//! It reads tens of megabytes when it starts, and little afterwards. By default the C library would spread that over several heaps and
//! keep what became free, and the kernel would keep mapped what was executed once.

/// Has all threads share one heap. For the start of a program, before it has threads. The agent's threads rarely allocate at the
/// same time.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes a setting of the allocator, which takes its own locks.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free of the heap, and unmaps the program, of which the kernel maps again what is still executed.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only needs the allocator's own locks, which it takes.
    unsafe {
        libc::malloc_trim(0);
    }
}
