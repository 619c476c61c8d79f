//! The third table, `BACKENDS`: slot → pod address and port. A [`crate::Choice`] is a range of slots.

use crate::{V4, V6, layout};

/// A flag of [`Backend`]: the endpoint runs on this node.
pub const LOCAL: u16 = 1;

/// A value of `BACKENDS_V4` or `BACKENDS_V6`: a pod's address and its targetPort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Backend<A> {
    /// The pod's address.
    pub address: A,
    /// The port that the pod listens on. It may differ between pods of one Service, for example if the targetPort is a name.
    pub port: u16,
    /// Bits: [`LOCAL`].
    pub flags: u16,
    /// The number of this endpoint of the service port. An endpoint that is removed and returns gets another number, so
    /// earlier sessions and notes on sockets do not apply to it.
    pub endpoint: Halves,
}

layout!(Backend<V4>, 16);
layout!(Backend<V6>, 28);

/// A 64-bit number in two halves, such as an endpoint's. A `u64` would give [`Backend<V6>`] padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Halves {
    /// The lower 32 bits.
    pub low: u32,
    /// The upper 32 bits.
    pub high: u32,
}

impl Halves {
    /// The number as one integer.
    #[inline]
    pub fn get(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

impl From<u64> for Halves {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the lower half is wanted")]
    fn from(number: u64) -> Self {
        Self { low: number as u32, high: (number >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_its_halves() {
        for number in [0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(Halves::from(number).get(), number);
        }
    }
}
