//! What the running kernel can do, as its version says and the documentation promises: the agent's own probing plays no part.

use std::fs;
use std::path::Path;

/// A kernel's version, as in `[6, 18]`.
pub type Version = [u32; 2];

/// What some kernels have and others lack.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A hook can choose the error of a call (`bpf_set_retval`). Otherwise it is `EPERM`.
    pub sets_errors: bool,
    /// A process can ask for the cookie of its network namespace (`SO_NETNS_COOKIE`).
    pub tells_namespaces: bool,
    /// Maps count against a limit of memory (`RLIMIT_MEMLOCK`), which only `CAP_SYS_RESOURCE` may raise.
    pub locks_memory: bool,
    /// Multipath TCP, in the versions that distributions build it into.
    pub has_mptcp: bool,
    /// UDP-Lite, which there was until then.
    pub has_udplite: bool,
    /// `AF_INET6`, unless it was switched off on the kernel's command line.
    pub has_ipv6: bool,
}

impl Features {
    /// Those of the running kernel. One that does not tell its version has to have everything.
    #[must_use]
    pub fn here() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        Self { has_ipv6, ..Self::of(version(&release).unwrap_or([u32::MAX, 0])) }
    }

    /// The name of the error that a call fails with, where a hook wants this one.
    #[must_use]
    pub fn chosen(self, error: &'static str) -> &'static str {
        if self.sets_errors { error } else { "EPERM" }
    }

    fn of(version: Version) -> Self {
        Self {
            sets_errors: version >= [5, 18],
            tells_namespaces: version >= [5, 14],
            locks_memory: version < [5, 11],
            has_mptcp: version >= [5, 16],
            has_udplite: version < [7, 1],
            has_ipv6: true,
        }
    }
}

/// The first two numbers of `6.18.44-cloud-amd64`.
fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("6.18.44-cloud-amd64\n"), Some([6, 18]));
        assert_eq!(version("5.10.0-46-cloud-amd64"), Some([5, 10]));
        assert_eq!(version("7.3-rc1"), Some([7, 3]));
        assert_eq!(version("next"), None);
        assert!(!Features::of([5, 9]).sets_errors && Features::of([5, 18]).sets_errors && Features::of([6, 1]).sets_errors);
    }
}
