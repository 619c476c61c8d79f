//! The kernels of the test matrix and their suites; finds the newest packages of a kernel among Debian's package names.

use anyhow::{Context as _, Result};

use crate::setup::debian::DebianSuite;

/// A kernel series of the matrix: versions of which the newest is tested, and the way to boot it.
#[derive(Debug)]
pub struct Series {
    /// The name of the series on the command line.
    pub name: &'static str,
    /// The first numbers of the version; empty for the newest version of all.
    pub version: &'static [u32],
    /// The Debian suite that has the packages of the kernels.
    pub suite: DebianSuite,
    /// Additional parameters of the kernel command line.
    pub parameters: &'static str,
    /// The processor model for qemu's `-cpu`.
    pub processor: &'static str,
    /// Whether general test runs include this kernel.
    is_quick: bool,
    /// Suites and filters of a quick run.
    quick: &'static [&'static str],
    /// Suites and filters of a full run.
    full: &'static [&'static str],
}

/// The number of kernels and tests in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Some kernels, and the tests whose result depends most on the kernel; takes some minutes.
    Quick,
    /// All kernels, and on each the full list of its suites ([`SUITES`], except for series with a special parameter).
    Full,
}

/// The suites for other kernels. They need only a kernel, and their results depend on it.
pub const SUITES: [&str; 9] =
    ["datapath", "devices", "flows", "links", "outside", "sockets", "table_stress", "socket_stress", "one_family"];

/// The tests that depend most on the kernel: errors and hooks (`datapath`), peer names, destroyed sockets, clocks, privileges,
/// and a client outside the node behind a packet filter.
const QUICK: [&str; 3] = ["datapath", "sockets:names::,ended_sockets::,clock::,privileges::each", CLIENTS_OUTSIDE];

/// A client outside the node, behind a packet filter, with a backend on the node and with one on another node.
const CLIENTS_OUTSIDE: &str =
    "outside:a_local_backend_sees_the_client::ipv4::firewall_clsact,a_remote_backend_sees_the_node::ipv4::firewall_clsact";

/// A processor without `cmpxchg16b`. qemu 7.2 sometimes sets wrong flags after it, which crashes kernels (observed with 6.12).
const NO_CX16: &str = "max,-cx16";
/// A processor with `cmpxchg16b`. Without it, kernels from 7.0 on cannot allocate socket storage (`kmalloc_nolock`).
const CX16: &str = "max";

const NEWEST: DebianSuite = DebianSuite::Release("trixie-backports");
const USUAL: Series = Series {
    name: "",
    version: &[],
    suite: NEWEST,
    parameters: "",
    processor: NO_CX16,
    is_quick: false,
    quick: &QUICK,
    full: &SUITES,
};

/// All series, the oldest first.
pub static ALL: [Series; 6] = [
    Series { name: "5.10", version: &[5, 10], suite: DebianSuite::Security("bullseye-security"), is_quick: true, ..USUAL },
    // A quick run has this kernel without IPv6 only: the kernels before and after it have the other tests.
    Series { name: "6.1", version: &[6, 1], suite: DebianSuite::Security("bookworm-security"), ..USUAL },
    Series {
        name: "6.1-ipv4",
        version: &[6, 1],
        suite: DebianSuite::Security("bookworm-security"),
        parameters: "ipv6.disable=1",
        processor: NO_CX16,
        is_quick: true,
        quick: &["one_family"],
        full: &["one_family"],
    },
    Series { name: "6.12", version: &[6, 12], suite: DebianSuite::Security("bookworm-security"), ..USUAL },
    Series { name: "newest-6", version: &[6], ..USUAL },
    Series {
        name: "newest",
        processor: CX16,
        is_quick: true,
        // From 7.0 on the agent finds the sockets of ended endpoints in another way.
        quick: &["datapath", "sockets:ended_sockets::", CLIENTS_OUTSIDE],
        ..USUAL
    },
];

impl Series {
    /// All series for a full run, some series for a quick run.
    pub fn of(extent: Extent) -> Vec<&'static Self> {
        ALL.iter().filter(|series| extent == Extent::Full || series.is_quick).collect()
    }

    /// The series of this name. The error lists the known names.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || ALL.iter().map(|series| series.name).collect::<Vec<_>>().join(", ");
        ALL.iter()
            .find(|series| series.name == name)
            .with_context(|| format!("unknown kernel `{name}`: choose from {}", names()))
    }

    /// The suites to run, with filters, as arguments of portmap-guest.
    pub fn plans(&self, extent: Extent) -> Vec<String> {
        let plans = if extent == Extent::Quick { self.quick } else { self.full };
        plans.iter().map(ToString::to_string).collect()
    }
}

/// A kernel in Debian's archive, with its packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagedKernel {
    version: Vec<u32>,
    /// The kernel's release, as in `uname -r`.
    pub release: String,
    /// The packages of the kernel, to be unpacked into one directory.
    pub packages: Vec<String>,
}

/// From this version on, Debian's `linux-image-*` is empty: image and modules are in separate packages.
const SPLIT: [u32; 2] = [6, 19];
const FLAVOUR: &str = "-cloud-amd64";

/// The kernels of a series among the package names of an archive, the newest first. Kernels with missing packages are left out.
pub fn packaged_kernels(names: &[String], series: &[u32]) -> Vec<PackagedKernel> {
    let images = names.iter().filter_map(|name| name.strip_prefix("linux-image-").filter(|rest| rest.ends_with(FLAVOUR)));
    let mut kernels: Vec<PackagedKernel> = images.filter_map(|release| packaged_kernel(names, release)).collect();
    kernels.retain(|kernel| kernel.version.starts_with(series));
    kernels.sort_by(|one, other| other.version.cmp(&one.version));
    kernels
}

fn packaged_kernel(names: &[String], release: &str) -> Option<PackagedKernel> {
    let version = numbers(release.strip_suffix(FLAVOUR)?);
    // "6.12-cloud-amd64" and "cloud-amd64" are meta packages.
    if version.len() < 3 {
        return None;
    }
    let kinds = if version.as_slice() < SPLIT.as_slice() { &["image"][..] } else { &["binary", "modules"] };
    let packages: Vec<String> = kinds.iter().map(|kind| format!("linux-{kind}-{release}")).collect();
    packages.iter().all(|package| names.contains(package)).then(|| PackagedKernel {
        version,
        release: release.to_owned(),
        packages,
    })
}

/// All numbers of a version, in order, to compare versions: `6.1.0-56` is newer than `6.1.0-0.deb11.52`.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(names: &[&str], series: &[u32]) -> Option<Vec<String>> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        packaged_kernels(&names, series).into_iter().next().map(|kernel| kernel.packages)
    }

    #[test]
    fn the_newest_of_the_series_is_found() {
        let names = [
            "linux-image-cloud-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        assert_eq!(newest(&names, &[6, 1]), Some(vec!["linux-image-6.1.0-56-cloud-amd64".into()]));
        assert_eq!(newest(&names, &[6]), Some(vec!["linux-image-6.12.117+deb12-cloud-amd64".into()]));
        assert_eq!(newest(&names, &[5, 10]), None);
    }

    #[test]
    fn a_kernel_without_its_modules_is_passed_over() {
        let names = [
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-image-6.19.14+deb13-cloud-amd64",
            "linux-binary-6.19.14+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ];
        assert_eq!(newest(&names, &[6]), Some(vec!["linux-image-6.18.15+deb13-cloud-amd64".into()]));
        let parts = ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"].map(str::to_owned);
        assert_eq!(newest(&names, &[]), Some(parts.into()));
    }
}
