//! Session affinity: which endpoint a client was given last.

use crate::layout;

/// A key of `AFFINITY`: a client of a service port. Pods are told apart by their network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Client {
    /// The cookie of the client's network namespace.
    pub namespace: u64,
    /// The service port's `id`.
    pub id: u32,
    /// Always 0.
    pub unused: u32,
}

layout!(Client, 16);

/// A value of `AFFINITY`, read and written as one 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Affinity {
    /// The endpoint's number.
    pub endpoint: u32,
    /// When the client last connected, in seconds of the monotonic clock.
    pub seconds: u32,
}

layout!(Affinity, 8);

impl Affinity {
    /// The value in a word read from the map.
    #[inline]
    pub fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self { endpoint: u32::from_ne_bytes([a, b, c, d]), seconds: u32::from_ne_bytes([e, f, g, h]) }
    }

    /// The word that holds this value.
    #[inline]
    pub fn to_word(self) -> u64 {
        let [a, b, c, d] = self.endpoint.to_ne_bytes();
        let [e, f, g, h] = self.seconds.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// Whether the client connects again within the timeout, in seconds.
    #[inline]
    pub fn holds(self, now: u32, timeout: u32) -> bool {
        now.wrapping_sub(self.seconds) <= timeout
    }
}

/// A key of `MEMBERS`: there while the endpoint is in the inside choice of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Member {
    /// Index into `SERVICES`.
    pub service: u32,
    /// The endpoint's number.
    pub endpoint: u32,
}

layout!(Member, 8);
