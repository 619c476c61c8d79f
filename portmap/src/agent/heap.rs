//! What the agent gives back to the node.

/// Returns the free parts of the heap to the kernel. After a list of everything most of it is free, and the C library would keep it.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only needs the allocator's own locks, which it takes.
    unsafe {
        libc::malloc_trim(0);
    }
}
