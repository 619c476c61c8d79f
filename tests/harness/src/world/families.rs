//! Which IP families a world has addresses of.

use crate::kernel::Features;

/// The families of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4; IPv6 is switched off in all namespaces.
    V4,
    /// IPv6; the other family has loopback addresses at most.
    V6,
}

impl Families {
    /// Those that the kernel has: IPv6 may be switched off on its command line.
    #[must_use]
    pub fn here() -> Self {
        if Features::here().has_ipv6 { Self::Both } else { Self::V4 }
    }

    /// The lines of a script that are about a family of this world.
    pub(super) fn script(self, v4: String, v6: String) -> String {
        match self {
            Self::Both => format!("{v4}\n{v6}"),
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}
