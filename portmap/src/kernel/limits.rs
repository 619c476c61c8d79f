//! The effects of features that a kernel lacks, as the log and `portmap status` describe them.

/// The effect of a kernel without `bpf_set_retval` (before 5.18).
pub const CANNOT_SET_ERRORS: &str =
    "this kernel is older than 5.18: dropped calls, and refused UDP calls, fail with EPERM instead of their own errors";

/// The effect of a kernel that cannot find or destroy UDP sockets.
pub const KEEPS_UDP_SOCKETS: &str = "connected UDP sockets stay with their endpoints after these end";
