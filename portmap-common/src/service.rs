//! The second table, `SERVICES`: service number → the backends of a frontend, or the outcome of calls if there are none.

use crate::{layout, word};

/// A range of backends, or a [`Verdict`] if there are none. It is one aligned 8-byte word: in an entry in use, the agent writes
/// it with one atomic store, and a program reads it with one load. So a call sees the old range or the new range, never a mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Choice {
    /// The first slot in `BACKENDS`; a [`Verdict`] if `count` is 0.
    pub first: u32,
    /// Number of slots from `first` on; 0 if no backend can be used.
    pub count: u32,
}

layout!(Choice, 8);
word!(Choice { first, count });

/// The outcome of a call for which there is no backend: the `first` of a [`Choice`] whose `count` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// The call fails with `ECONNREFUSED`; with `EPERM` for UDP before kernel 5.18.
    Refuse = 0,
    /// The call fails with `ETIMEDOUT`, or with `EPERM` before kernel 5.18, at once. No packet leaves the node.
    Drop = 1,
    /// The call goes on untranslated. The agent does not write this verdict; programs accept it.
    Leave = 2,
}

impl Choice {
    /// A choice without backends.
    pub const fn verdict(verdict: Verdict) -> Self {
        Self { first: verdict as u32, count: 0 }
    }

    /// The slot at offset `random × count / 2³²` of the range, for a uniformly distributed `random`. Needs no division
    /// instruction, and favours no slot by more than `count / 2³²`. `count` must not be 0.
    #[inline]
    pub fn slot(self, random: u32) -> u32 {
        let offset = (u64::from(random) * u64::from(self.count)) >> 32;
        self.first.wrapping_add(offset as u32)
    }
}

/// The field of the Service from which a frontend's address comes.
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

/// A flag of [`Service`]: only clients in the host's network namespace are served. Set for frontends with a loopback or
/// unspecified address.
pub const HOST_ONLY: u8 = 1;

/// A flag of [`Service`]: only clients whose address is in one of the service port's source ranges are served.
pub const SOURCE_RANGES: u8 = 2;

/// A value of `SERVICES`. Each frontend has one entry, which keeps its number for the frontend's whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// The backends for sockets on this node.
    pub inside: Choice,
    /// The backends for clients outside the node.
    pub outside: Choice,
    /// The id of the frontend's service port: a key of `NAMES`, never reused. All frontends of a service port and address
    /// family have the same id, except while the agent changes it: session affinity was turned on or off.
    pub id: u64,
    /// Timeout of session affinity in seconds; 0 without session affinity.
    pub affinity_timeout: u32,
    /// The frontend's [`AddressKind`], as a number.
    pub kind: u8,
    /// Bits: [`HOST_ONLY`], [`SOURCE_RANGES`].
    pub flags: u8,
    /// Always 0.
    pub unused: [u8; 2],
}

layout!(Service, 32);

impl Service {
    /// The two 8-byte words after the choices, in memory order: `id`, then `affinity_timeout`, `kind`, `flags` and `unused`.
    pub fn description(&self) -> [u64; 2] {
        let Self { inside: _, outside: _, id, affinity_timeout, kind, flags, unused: [a, b] } = *self;
        let [t0, t1, t2, t3] = affinity_timeout.to_ne_bytes();
        [id, u64::from_ne_bytes([t0, t1, t2, t3, kind, flags, a, b])]
    }
}

/// The fields of a [`Service`] other than its choices, as programs read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The id of the service port.
    pub id: u64,
    /// Timeout of session affinity in seconds; 0 without session affinity.
    pub affinity_timeout: u32,
    /// The frontend's [`AddressKind`], as a number.
    pub kind: u8,
    /// Bits: [`HOST_ONLY`], [`SOURCE_RANGES`].
    pub flags: u8,
}

impl Description {
    /// Decodes the two words of [`Service::description`], as they were read from `SERVICES`.
    #[inline]
    pub fn from_words(first: u64, second: u64) -> Self {
        let [a, b, c, d, kind, flags, ..] = second.to_ne_bytes();
        Self { id: first, affinity_timeout: u32::from_ne_bytes([a, b, c, d]), kind, flags }
    }
}

// The programs and the agent access the two choices, the id and the fields after it as 8-byte words at these offsets.
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
