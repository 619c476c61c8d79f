//! The endpoints that still serve, by number: `ENDPOINTS`.
//!
//! Notes on sockets and sessions hold the number of an endpoint. This table gives its address again, if the endpoint still
//! serves.

use crate::{Address, FrontendKey, V4, V6, layout};

/// A value of `ENDPOINTS_V4` or `ENDPOINTS_V6` under an endpoint's number: present only while the endpoint serves, and never
/// updated in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EndpointEntry<A> {
    /// The pod's address.
    pub address: A,
    /// The port that the pod listens on.
    pub port: u16,
    /// Bits: [`crate::LOCAL`].
    pub flags: u16,
    /// A digest of the endpoint's number, address and port. A reader detects by it that the kernel has reused the element.
    pub check: u32,
}

layout!(EndpointEntry<V4>, 12);
layout!(EndpointEntry<V6>, 24);

impl<A: Address> EndpointEntry<A> {
    /// The value to insert under `number`.
    #[inline]
    pub fn new(number: u64, address: A, port: u16, flags: u16) -> Self {
        Self { address, port, flags, check: digest(number, address, port) }
    }

    /// Whether this value was inserted under `number`.
    #[inline]
    pub fn belongs_to(&self, number: u64) -> bool {
        self.check == digest(number, self.address, self.port)
    }
}

#[inline]
fn digest<A: Address>(number: u64, address: A, port: u16) -> u32 {
    (FrontendKey::new(address, port, 0).digest(number, 0) >> 32) as u32
}
