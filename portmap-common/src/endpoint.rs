//! Endpoints that serve, for what is remembered of them: by sockets that send datagrams, and by session affinity.

use crate::{Address, FrontendKey, V4, V6, layout};

/// A value of `ENDPOINTS_V4` or `ENDPOINTS_V6` under an endpoint's number: there while the endpoint serves, and never updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EndpointEntry<A> {
    /// The pod's address.
    pub address: A,
    /// The port that the pod listens on.
    pub port: u16,
    /// Always 0.
    pub unused: u16,
    /// A digest of the endpoint's number, address and port: who reads a value that is just being replaced notices it.
    pub check: u32,
}

layout!(EndpointEntry<V4>, 12);
layout!(EndpointEntry<V6>, 24);

impl<A: Address> EndpointEntry<A> {
    /// The value for an endpoint.
    #[inline]
    pub fn new(number: u64, address: A, port: u16) -> Self {
        Self { address, port, unused: 0, check: digest(number, address, port) }
    }

    /// Whether this value was inserted under this number.
    #[inline]
    pub fn belongs_to(&self, number: u64) -> bool {
        self.check == digest(number, self.address, self.port)
    }
}

#[inline]
fn digest<A: Address>(number: u64, address: A, port: u16) -> u32 {
    (FrontendKey::new(address, port, 0).digest(number, 0) >> 32) as u32
}
