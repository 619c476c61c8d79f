//! The names of service ports, by id, for the subcommands and the agent. No BPF program reads them.

use crate::layout;

/// Number of bytes in each text of a [`Name`]. A DNS label has at most 63 bytes, so a 0 byte always fits at the end.
pub const TEXT: usize = 64;

/// A value of `NAMES`, under the `id` of a [`crate::Service`]: the name of the service port. Texts end with a 0 byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Name {
    /// The Service's namespace.
    pub namespace: [u8; TEXT],
    /// The Service's name.
    pub service: [u8; TEXT],
    /// The name of the port in the Service; empty if the port has no name.
    pub port: [u8; TEXT],
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Always 0.
    pub unused: [u8; 7],
}

layout!(Name, 200);
