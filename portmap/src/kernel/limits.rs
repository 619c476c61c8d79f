//! The effects of features that a kernel lacks, as the log and `portmap status` describe them.

/// The kernel has no `bpf_set_retval` for these hooks: it came with 5.18.
pub const CANNOT_SET_ERRORS: &str =
    "this kernel is older than 5.18: what is dropped, and UDP that is refused, fails with EPERM";

/// The kernel cannot find or destroy the UDP sockets of ended endpoints.
pub const KEEPS_UDP_SOCKETS: &str = "connected UDP sockets stay with endpoints that end";
