//! The first table: destination address, port and protocol → the number of a service entry.

use crate::{Address, V4, V6, layout, word};

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;

/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// A special service number, under the key of a whole ClusterIP: portmap serves its Service, and the Service does not define
/// the port of the call.
pub const UNDEFINED_PORT: u32 = u32::MAX;

/// A special service number, under the key of a whole ClusterIP: another proxy serves its Service.
pub const OTHER_PROXY: u32 = u32::MAX - 1;

/// A key of `FRONTENDS_V4` or `FRONTENDS_V6`: an address, port and protocol that a client may connect to. A key with port 0
/// and protocol 0 is for all ports of a ClusterIP without a key of their own.
///
/// It has no alignment, unlike the keys of flows: with one, the verifier needs a million steps for the programs of `lookup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FrontendKey<A> {
    /// The destination address of the client's call.
    pub address: A,
    /// The destination port, in host order: the port of the Service, or a node port; 0 for all ports without a key of their
    /// own.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`; 0 for all ports and protocols without a key of their own.
    pub protocol: u8,
    /// Always 0. A hash map compares every byte of its keys.
    pub unused: u8,
}

layout!(FrontendKey<V4>, 8);
layout!(FrontendKey<V6>, 20);

impl<A: Address> FrontendKey<A> {
    /// The key of a destination. The port is in host order.
    #[inline]
    pub fn new(address: A, port: u16, protocol: u8) -> Self {
        Self { address, port, protocol, unused: 0 }
    }

    /// The key of the whole address: for its ports without a key of their own.
    #[inline]
    #[must_use]
    pub fn of_address(&self) -> Self {
        Self::new(self.address, 0, 0)
    }

    /// A digest of this key and a service number.
    ///
    /// The kernel reuses the memory of a deleted hash element at once. A reader that still holds the element may therefore
    /// read another key's value. It detects this by the digest.
    #[inline]
    pub fn check(&self, service: u32) -> u32 {
        (self.fold(u64::from(service) << 24) >> 32) as u32
    }

    /// A digest of this key, an endpoint's number and a service port's id. For one key and id, two numbers have different
    /// digests.
    #[inline]
    pub fn digest(&self, endpoint: u64, id: u64) -> u64 {
        self.fold(mix(mix(endpoint) ^ id))
    }

    #[inline]
    fn fold(&self, start: u64) -> u64 {
        let destination = u64::from(self.port) << 8 | u64::from(self.protocol);
        let mut digest = mix(start ^ destination);
        for word in self.address.words() {
            digest = mix(digest ^ u64::from(word));
        }
        digest
    }
}

/// Mixes the bits of a value. Different values have different results. The multiplier is 2⁶⁴ divided by the golden ratio.
#[inline]
fn mix(value: u64) -> u64 {
    let product = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// A value of `FRONTENDS_V4` or `FRONTENDS_V6`, read as one 64-bit word. An element is inserted and deleted, and never changed
/// in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ServiceRef {
    /// Index into `SERVICES` and `COUNTERS`, or [`UNDEFINED_PORT`] or [`OTHER_PROXY`].
    pub service: u32,
    /// [`FrontendKey::check`] of the key that this value was inserted under.
    pub check: u32,
}

layout!(ServiceRef, 8);
word!(ServiceRef { service, check });

impl ServiceRef {
    /// The value to insert under `frontend`.
    #[inline]
    pub fn new<A: Address>(frontend: &FrontendKey<A>, service: u32) -> Self {
        Self { service, check: frontend.check(service) }
    }

    /// Whether this value was inserted under `frontend`.
    #[inline]
    pub fn belongs_to<A: Address>(self, frontend: &FrontendKey<A>) -> bool {
        self.check == frontend.check(self.service)
    }
}

/// Number of words in [`FrontendPorts`] for each protocol.
const WORDS: usize = 65_536 / 64;

/// The one value of `FRONTEND_PORTS`: the ports of all frontends since the tables were made, of TCP and then of UDP. A destination
/// whose port is not among them is no frontend. So most destinations need no look-up in `FRONTENDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FrontendPorts {
    /// One bit for each port, from the lowest bit of a word on.
    pub words: [u64; 2 * WORDS],
}

layout!(FrontendPorts, 16_384);

impl FrontendPorts {
    /// The index of the word with the bit of a port, and the word with only this bit. The port is in host order.
    #[inline]
    pub fn place(port: u16, protocol: u8) -> (usize, u64) {
        let first = if protocol == TCP { 0 } else { WORDS };
        (first + usize::from(port / 64), 1 << (port % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        let all =
            [TCP, UDP].into_iter().flat_map(|protocol| (0..=u16::MAX).map(move |port| FrontendPorts::place(port, protocol)));
        let places: std::collections::HashSet<_> = all.collect();
        assert_eq!(places.len(), 2 * 65_536);
        assert!(places.iter().all(|(word, bit)| *word < 2 * WORDS && bit.is_power_of_two()));
    }

    #[test]
    fn a_value_belongs_to_its_own_key_only() {
        let key = FrontendKey::new([10, 96, 0, 10], 80, TCP);
        let value = ServiceRef::new(&key, 7);
        assert!(value.belongs_to(&key));
        for other in [
            FrontendKey::new([10, 96, 0, 11], 80, TCP),
            FrontendKey::new([10, 96, 0, 10], 81, TCP),
            FrontendKey::new([10, 96, 0, 10], 80, UDP),
        ] {
            assert!(!value.belongs_to(&other), "{other:?}");
        }
        assert!(!ServiceRef { service: 8, ..value }.belongs_to(&key));
    }

    #[test]
    fn digests_spread() {
        let digests: std::collections::HashSet<u32> = (0..=255_u8)
            .flat_map(|host| {
                (1..=64_u16).map(move |port| FrontendKey::new([10, 96, 0, host], port, TCP).check(u32::from(host)))
            })
            .collect();
        // 16,384 draws from 2³² are expected to collide 0.03 times.
        assert!(digests.len() >= 16_382, "{} distinct digests", digests.len());
    }
}
