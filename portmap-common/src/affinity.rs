//! Session affinity. `AFFINITY` has the endpoint that each client used last, `AFFINITY_SHARES` the number of new clients per
//! cgroup, `MEMBERS` the endpoints that are still valid for a service port.

use crate::{AddressKind, layout};

/// A key of `AFFINITY`: a client of a service port. A client is a network namespace: usually one per pod, and one for the
/// host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Client {
    /// The cookie of the client's network namespace.
    pub namespace: u64,
    /// The service port's `id`.
    pub id: u64,
}

layout!(Client, 16);

/// A value of `AFFINITY`. Each word is read and written atomically, but the pair is not: a reader may see the endpoint of
/// one write and the time of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Affinity {
    /// The number of the endpoint that the client used last.
    pub endpoint: u64,
    /// Time of the client's last call, in nanoseconds of the monotonic clock.
    pub last_used: u64,
}

layout!(Affinity, 16);

// The programs access the fields as 8-byte words at these offsets.
const _: () = assert!(core::mem::offset_of!(Affinity, endpoint) == 0);
const _: () = assert!(core::mem::offset_of!(Affinity, last_used) == 8);

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

impl Affinity {
    /// Whether the client's last call was less than `timeout` seconds before `now` (in nanoseconds of the monotonic clock).
    ///
    /// `last_used` may be later than `now`, if another processor has written it. Then the session is valid.
    #[inline]
    pub fn holds(self, now: u64, timeout: u32) -> bool {
        now.saturating_sub(self.last_used) < u64::from(timeout) * SECOND
    }
}

/// A value of `AFFINITY_SHARES` under a cgroup's id: the number of clients that its processes added to `AFFINITY` in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Share {
    /// Start of the period, in nanoseconds of the monotonic clock.
    pub began: u64,
    /// Number of clients added since the start of the period.
    pub clients: u64,
}

layout!(Share, 16);

impl Share {
    /// Length of a period in nanoseconds: one hour.
    pub const PERIOD: u64 = 3_600 * SECOND;

    /// The share after one more client is added at `now`, in nanoseconds of the monotonic clock. If the period is over, a
    /// new one begins. `None` if the cgroup has already added `most` clients in this period.
    #[inline]
    pub fn take(self, now: u64, most: u64) -> Option<Self> {
        if now.saturating_sub(self.began) >= Self::PERIOD {
            Some(Self { began: now, clients: 1 })
        } else if self.clients < most {
            Some(Self { clients: self.clients + 1, ..self })
        } else {
            None
        }
    }
}

/// A key of `MEMBERS`: present only while the endpoint is among the backends for clients on this node
/// ([`crate::Service::inside`]). Only service ports with session affinity have members.
///
/// All ClusterIP frontends of a service port and address family have the same backends for clients on this node. All its other
/// frontends have the same backends, too. Both sets may differ if the internal traffic policy is `Local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Member {
    /// The service port's `id`.
    pub id: u64,
    /// The number of the endpoint.
    pub endpoint: u64,
    /// 0 for frontends on a ClusterIP, 1 for all others; [`Self::OUTSIDE`] for the backends of all others for clients outside
    /// the node, if they differ.
    pub external: u32,
    /// Always 0. A hash map compares every byte of its keys.
    pub unused: u32,
}

layout!(Member, 24);

impl Member {
    /// The value of the field `external` for clients outside the node, if they have other backends than clients on the node.
    pub const OUTSIDE: u32 = 2;

    /// The key of an endpoint for a service port's frontends of this kind. `kind` is [`crate::Service::kind`], an
    /// [`AddressKind`].
    #[inline]
    pub fn new(id: u64, kind: u8, endpoint: u64) -> Self {
        Self { id, endpoint, external: Self::external(kind), unused: 0 }
    }

    /// The value of the field `external` for frontends with an address of this kind: 0 for a ClusterIP, 1 for all others.
    #[inline]
    pub fn external(kind: u8) -> u32 {
        u32::from(kind != AddressKind::ClusterIp as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_up_and_comes_back() {
        let share = Share { began: 5, clients: 1 };
        assert_eq!(share.take(6, 2), Some(Share { began: 5, clients: 2 }));
        assert_eq!(Share { clients: 2, ..share }.take(4, 2), None, "the clock of this processor is behind");
        assert_eq!(
            Share { clients: 2, ..share }.take(5 + Share::PERIOD, 2),
            Some(Share { began: 5 + Share::PERIOD, clients: 1 })
        );
    }

    #[test]
    fn a_session_lasts_as_long_as_its_timeout_to_the_nanosecond() {
        let session = Affinity { endpoint: 1, last_used: 7 * SECOND + 1 };
        assert!(session.holds(17 * SECOND, 10));
        assert!(!session.holds(17 * SECOND + 1, 10));
        assert!(session.holds(6 * SECOND, 10), "the clock of this processor is behind");
        assert!(session.holds(u64::from(u32::MAX) * SECOND, u32::MAX), "the longest timeout");
    }
}
