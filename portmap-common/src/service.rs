//! The second table: for each frontend, what happens to a client of it.

use crate::{layout, word};

/// Which backends a client is spread over, or the verdict where there is none. One aligned 8-byte word: it is stored by one
/// atomic store and read by one load, so that a client meets the old set or the new one, whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Choice {
    /// The first slot in `BACKENDS`; with `count` 0 a [`Verdict`].
    pub first: u32,
    /// How many slots from there on; 0 if no backend may be used.
    pub count: u32,
}

layout!(Choice, 8);
word!(Choice { first, count });

/// What happens to a client that gets no backend: the `first` of a [`Choice`] whose `count` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// The call fails with `ECONNREFUSED`.
    Refuse = 0,
    /// The call fails with `ETIMEDOUT`, at once: nothing leaves the node.
    Drop = 1,
    /// The call goes on untranslated.
    Leave = 2,
}

impl Choice {
    /// A choice of no backend.
    pub const fn verdict(verdict: Verdict) -> Self {
        Self { first: verdict as u32, count: 0 }
    }

    /// The slot of one backend of the set, given a uniformly distributed number. Without a division: `random × count / 2³²`
    /// favours no slot by more than `count / 2³²`.
    #[inline]
    pub fn slot(self, random: u32) -> u32 {
        let offset = (u64::from(random) * u64::from(self.count)) >> 32;
        self.first.wrapping_add(offset as u32)
    }
}

/// How a frontend's address came to the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AddressKind {
    /// `spec.clusterIPs`.
    #[default]
    ClusterIp = 0,
    /// `spec.ports[].nodePort`, on an address of this node.
    NodePort = 1,
    /// `spec.externalIPs`.
    ExternalIp = 2,
    /// `status.loadBalancer.ingress[].ip`.
    LoadBalancer = 3,
}

/// A flag of [`Service`]: only for clients in the host's own network namespace, as a loopback address is.
pub const HOST_ONLY: u8 = 1;

/// A flag of [`Service`]: only for clients whose address lies in one of the service port's source ranges.
pub const SOURCE_RANGES: u8 = 2;

/// A value of `SERVICES`: one per frontend, for the frontend's whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// For sockets on this node.
    pub inside: Choice,
    /// For clients outside the node.
    pub outside: Choice,
    /// The service port this frontend belongs to: a key of `NAMES`. Never given again; frontends of one service port share it.
    pub id: u64,
    /// Session affinity in seconds, 0 for none.
    pub affinity_timeout: u32,
    /// A [`AddressKind`].
    pub kind: u8,
    /// [`HOST_ONLY`], [`SOURCE_RANGES`].
    pub flags: u8,
    /// Always 0.
    pub unused: [u8; 2],
}

layout!(Service, 32);

impl Service {
    /// The words behind the choices, in memory order: `id`, then the rest.
    pub fn description(&self) -> [u64; 2] {
        let Self { inside: _, outside: _, id, affinity_timeout, kind, flags, unused: [a, b] } = *self;
        let [t0, t1, t2, t3] = affinity_timeout.to_ne_bytes();
        [id, u64::from_ne_bytes([t0, t1, t2, t3, kind, flags, a, b])]
    }
}

/// What a service entry says beside its choices, as far as programs need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The service port.
    pub id: u64,
    /// Session affinity in seconds, 0 for none.
    pub affinity_timeout: u32,
    /// A [`AddressKind`].
    pub kind: u8,
    /// [`HOST_ONLY`], [`SOURCE_RANGES`].
    pub flags: u8,
}

impl Description {
    /// The description in the words of [`Service::description`], as read from `SERVICES`.
    #[inline]
    pub fn from_words(first: u64, second: u64) -> Self {
        let [a, b, c, d, kind, flags, ..] = second.to_ne_bytes();
        Self { id: first, affinity_timeout: u32::from_ne_bytes([a, b, c, d]), kind, flags }
    }
}

// The programs and the agent access the choices as 8-byte words at these offsets.
const _: () = assert!(core::mem::offset_of!(Service, inside) == 0);
const _: () = assert!(core::mem::offset_of!(Service, outside) == 8);
const _: () = assert!(core::mem::offset_of!(Service, id) == 16);
const _: () = assert!(core::mem::offset_of!(Service, affinity_timeout) == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_its_word() {
        let choice = Choice { first: 0x0102_0304, count: 5 };
        assert_eq!(Choice::from_word(choice.to_word()), choice);
    }

    #[test]
    fn slots_stay_in_the_range() {
        let choice = Choice { first: 100, count: 3 };
        assert_eq!(choice.slot(0), 100);
        assert_eq!(choice.slot(u32::MAX / 2), 101);
        assert_eq!(choice.slot(u32::MAX), 102);
    }
}
