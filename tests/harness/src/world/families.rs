//! The IP address families of a [`World`](super::World), which tests choose.

use crate::kernel::Features;

/// The address families of the node, pods and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only. IPv6 is disabled in all network namespaces of the [`World`](super::World).
    V4,
    /// IPv6 only. IPv4 has loopback addresses only.
    V6,
}

impl Families {
    /// The families of the running kernel: `Both`, or `V4` if the kernel's command line switches IPv6 off.
    #[must_use]
    pub fn here() -> Self {
        if Features::here().has_ipv6 { Self::Both } else { Self::V4 }
    }

    /// Selects the lines of a script for these families: `v4`, `v6` or both.
    pub(super) fn script(self, v4: String, v6: String) -> String {
        match self {
            Self::Both => format!("{v4}\n{v6}"),
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}
