//! The names behind the numbers, for people: nothing is decided by them.

use crate::layout;

/// Bytes in each text of a [`Name`]: a DNS label has at most 63, so there is always a closing 0.
pub const TEXT: usize = 64;

/// A value of `NAMES`: the service port that an `id` of `SERVICES` stands for. Texts end with a 0 byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Name {
    /// The Service's namespace.
    pub namespace: [u8; TEXT],
    /// The Service's name.
    pub service: [u8; TEXT],
    /// The name of the Service port; empty if it has none.
    pub port: [u8; TEXT],
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Always 0.
    pub unused: [u8; 7],
}

layout!(Name, 200);
