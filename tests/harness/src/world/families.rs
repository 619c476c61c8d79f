//! The IP address families of a world.

use crate::kernel::Features;

/// The address families of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only. IPv6 is disabled in all network namespaces.
    V4,
    /// IPv6 only. IPv4 has loopback addresses only.
    V6,
}

impl Families {
    /// The families of the running kernel. Its command line may switch IPv6 off.
    #[must_use]
    pub fn here() -> Self {
        if Features::here().has_ipv6 { Self::Both } else { Self::V4 }
    }

    /// The parts of a script for the families of this world.
    pub(super) fn script(self, v4: String, v6: String) -> String {
        match self {
            Self::Both => format!("{v4}\n{v6}"),
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}
