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
    unmap_program();
}

unsafe extern "C" {
    /// Made by the linker: the first byte of the program.
    static __executable_start: u8;
    /// The byte behind the program's code. What is written to lies behind it.
    static etext: u8;
}

fn unmap_program() {
    let first = &raw const __executable_start;
    let length = (&raw const etext).addr() - first.addr();
    // SAFETY: nothing is written to these pages, so that all of them are read from the file when they are used again. A failure, of which
    // none is known, would change nothing.
    unsafe {
        libc::madvise(first.cast_mut().cast(), length, libc::MADV_DONTNEED);
    }
}
