//! How many file descriptors this process may open, and how many of them are kept for the agent's own work.
//!
//! The kernel gives out the lowest number that is free. So a new descriptor near the limit says that all below it are in use.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections to the agent's HTTP servers leave free.
const RESERVE: u64 = 64;

/// Descriptors that listening sockets leave free: the reserve, and room for connections.
const ROOM: u64 = 256;

/// Namespaces that are watched at most. Each watch keeps its namespace alive until the next look finds no process in it.
const WATCHED: u64 = 256;

/// One descriptor of so many may be for such a watch.
const WATCH_SHARE: u64 = 8;

/// What a descriptor is for, if it is not for the agent's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A connection to an HTTP server.
    Connection,
    /// A listening socket of an HTTP server.
    Listener,
}

/// Raises the limit as far as it may be: many systems start programs with 1,024 and allow them far more.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("failed to raise the limit of open files (RLIMIT_NOFILE): {error}");
    }
}

/// Whether a new descriptor is one of those that this use has to leave free.
pub fn is_reserved(descriptor: impl AsFd, what_for: Use) -> bool {
    // Asked for each time, as others may change it (prlimit).
    let limit = limit();
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or_default();
    number >= limit.saturating_sub(kept_free(limit, what_for))
}

/// How many network namespaces may be watched, each with a descriptor: a share of the limit.
pub fn watched_namespaces() -> usize {
    usize::try_from((limit() / WATCH_SHARE).min(WATCHED)).unwrap_or_default()
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many descriptors a use has to leave free. Where there are few in all, each use still has its share.
fn kept_free(limit: u64, what_for: Use) -> u64 {
    match what_for {
        Use::Connection => RESERVE.min(limit / 4),
        Use::Listener => ROOM.min(limit / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_listeners_leave_descriptors_free() {
        assert_eq!(kept_free(1_024, Use::Connection), 64);
        assert_eq!(kept_free(1_024, Use::Listener), 256);
        assert_eq!(kept_free(128, Use::Connection), 32);
        assert_eq!(kept_free(128, Use::Listener), 64);
        assert_eq!(kept_free(u64::MAX, Use::Listener), 256);
    }
}
