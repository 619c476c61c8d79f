//! The limit of open files (`RLIMIT_NOFILE`), and the file descriptors that are reserved for the agent's own work.
//!
//! The kernel assigns the lowest free number. So a new descriptor with a number near the limit means that all lower numbers
//! are in use.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors that connections to the agent's HTTP servers leave free.
const CONNECTION_RESERVE: u64 = 64;

/// The number of descriptors that listening sockets leave free, for connections and for the agent's own work.
const LISTENER_RESERVE: u64 = 256;

/// The most network namespaces that the agent watches for changes of addresses and routes. A watch keeps its namespace alive
/// until a survey finds neither a process in it nor a name of it.
const WATCHED: u64 = 256;

/// Watches of network namespaces use at most the limit of open files divided by this number.
const WATCH_SHARE: u64 = 8;

/// The use of a new descriptor. Each use leaves some descriptors free (its reserve).
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

/// Whether the number of a new descriptor is in the reserve that this use must leave free.
pub fn is_reserved(descriptor: impl AsFd, purpose: Use) -> bool {
    // The limit is read each time, because other processes may change it (prlimit).
    let limit = limit();
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or_default();
    number >= limit.saturating_sub(kept_free(limit, purpose))
}

/// The most network namespaces that may be watched under the present limit, with one descriptor each.
pub fn watched_namespaces() -> usize {
    usize::try_from((limit() / WATCH_SHARE).min(WATCHED)).unwrap_or_default()
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of descriptors that a use must leave free. It is smaller under a low limit, so that each use gets some
/// descriptors.
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
