//! The limit of open files (`RLIMIT_NOFILE`), and the descriptors that are reserved for the agent's own work.
//!
//! The kernel assigns the lowest free number. So a new descriptor near the limit means that all lower ones are in use.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors that connections to the agent's HTTP servers leave free.
const CONNECTION_RESERVE: u64 = 64;

/// The number of descriptors that listening sockets leave free, for connections and for the agent's own work.
const LISTENER_RESERVE: u64 = 256;

/// The most watched namespaces. A watch keeps its namespace alive until a survey finds no process in it.
const WATCHED: u64 = 256;

/// The divisor of the limit of descriptors that gives the share of watches.
const WATCH_SHARE: u64 = 8;

/// The use of a descriptor that must leave the reserve free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A connection to an HTTP server.
    Connection,
    /// A listening socket of an HTTP server.
    Listener,
}

/// Raises the soft limit to the hard limit: many systems start programs with 1,024 descriptors and allow far more.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("failed to raise the limit of open files (RLIMIT_NOFILE): {error}");
    }
}

/// Whether a new descriptor belongs to the reserve that this use must leave free.
pub fn is_reserved(descriptor: impl AsFd, purpose: Use) -> bool {
    // Read each time, because other processes may change the limit (prlimit).
    let limit = limit();
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or_default();
    number >= limit.saturating_sub(kept_free(limit, purpose))
}

/// The number of network namespaces that may be watched, with one descriptor each.
pub fn watched_namespaces() -> usize {
    usize::try_from((limit() / WATCH_SHARE).min(WATCHED)).unwrap_or_default()
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of descriptors that a use must leave free: less under a low limit, so that each use keeps a share.
fn kept_free(limit: u64, purpose: Use) -> u64 {
    match purpose {
        Use::Connection => CONNECTION_RESERVE.min(limit / 4),
        Use::Listener => LISTENER_RESERVE.min(limit / 2),
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
