//! Features of the running kernel, derived from its version and the kernel's documentation. IPv6 is an exception: it is looked
//! up in `/proc/net`.
//!
//! The harness does not use the agent's own probes, because the tests verify these probes.

use std::fs;
use std::path::Path;

/// Major and minor number of a kernel version, for example `[6, 18]`.
pub type Version = [u32; 2];

/// Features that differ between the supported kernels.
#[expect(clippy::struct_excessive_bools, reason = "each feature is independent of the others")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A BPF program can choose the error of a refused call (`bpf_set_retval`, 5.18). On older kernels the error is `EPERM`.
    pub sets_errors: bool,
    /// A process can read the cookie of its network namespace (`SO_NETNS_COOKIE`, 5.14).
    pub tells_namespaces: bool,
    /// BPF maps count against `RLIMIT_MEMLOCK` (before 5.11), which only `CAP_SYS_RESOURCE` may raise.
    pub locks_memory: bool,
    /// The harness expects Multipath TCP. The kernel has it since 5.6, but older distribution kernels omit it; so it is
    /// expected from 5.16 on.
    pub has_mptcp: bool,
    /// The kernel has links between BPF programs and network devices (TCX, 6.6).
    pub has_device_links: bool,
    /// The kernel has UDP-Lite, which 7.1 removed.
    pub has_udplite: bool,
    /// BPF programs can be attached to network devices by links (TCX, 6.6).
    pub has_tcx: bool,
    /// BPF programs see the packets that a tunnel of IP in IP or GRE has received from their inner header on (5.14).
    pub shows_inner_packets: bool,
    /// The kernel has `AF_INET6`. The kernel command line can switch it off.
    pub has_ipv6: bool,
}

impl Features {
    /// Features of the running kernel. A kernel with an unreadable version counts as the newest.
    #[must_use]
    pub fn here() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        Self { has_ipv6, ..Self::of(version(&release).unwrap_or([u32::MAX, 0])) }
    }

    /// The error of a call that a BPF program refuses with `error`: its name, or `EPERM` on kernels without
    /// [`Self::sets_errors`].
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
            has_device_links: version >= [6, 6],
            has_udplite: version < [7, 1],
            has_tcx: version >= [6, 6],
            shows_inner_packets: version >= [5, 14],
            has_ipv6: true,
        }
    }
}

/// Parses the first two numbers of a release such as `6.18.44-cloud-amd64`. `None` if it does not begin with two numbers.
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
