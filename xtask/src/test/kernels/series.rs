//! Which kernels there are, what runs on each, and which of Debian's packages is the newest of them.

use anyhow::{Context as _, Result};

use crate::setup::debian::DebianSuite;

/// A kernel of the matrix.
#[derive(Debug)]
pub struct Series {
    /// As a person calls it.
    pub name: &'static str,
    /// The first numbers of its version; none is the newest of all.
    pub version: &'static [u32],
    /// Who has it.
    pub suite: DebianSuite,
    /// What the kernel is told besides.
    pub parameters: &'static str,
    /// What the processor is.
    pub processor: &'static str,
    /// Whether it is in every run of the tests.
    is_quick: bool,
    quick: &'static [&'static str],
    full: &'static [&'static str],
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What tells kernels apart, in a few minutes.
    Quick,
    /// Everything that needs no more than a kernel.
    Full,
}

/// The suites that need no more than a kernel.
pub const SUITES: [&str; 5] = ["datapath", "sockets", "table_stress", "socket_stress", "one_family"];

/// Of each concern what depends on the kernel: verdicts, hooks, notes on sockets, sockets that are destroyed, namespaces.
const QUICK: [&str; 3] = ["datapath", "sockets:names::,ended_sockets::,clock::,privileges::each", "one_family"];

/// qemu 7.2 sometimes spoils the flags of `cmpxchg16b`, and the kernel crashes: seen with 6.12.
const NO_CX16: &str = "max,-cx16";
/// Without that instruction, kernels from 7.0 on have no memory for the notes on sockets (`kmalloc_nolock`).
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

/// All of them, the oldest first.
pub static ALL: [Series; 6] = [
    Series { name: "5.10", version: &[5, 10], suite: DebianSuite::Security("bullseye-security"), is_quick: true, ..USUAL },
    Series { name: "6.1", version: &[6, 1], suite: DebianSuite::Security("bookworm-security"), is_quick: true, ..USUAL },
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
    Series { name: "newest", processor: CX16, is_quick: true, ..USUAL },
];

impl Series {
    /// Those of a run of this extent.
    pub fn of(extent: Extent) -> Vec<&'static Self> {
        ALL.iter().filter(|series| extent == Extent::Full || series.is_quick).collect()
    }

    /// The one of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || ALL.iter().map(|series| series.name).collect::<Vec<_>>().join(", ");
        ALL.iter().find(|series| series.name == name).with_context(|| format!("no kernel `{name}` is known, but {}", names()))
    }

    /// The suites to run, and what of them.
    pub fn plans(&self, extent: Extent) -> Vec<String> {
        let plans = if extent == Extent::Quick { self.quick } else { self.full };
        plans.iter().map(ToString::to_string).collect()
    }
}

/// Packages that are one kernel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    version: Vec<u32>,
    /// The name that the kernel gives itself.
    pub release: String,
    /// Packages to unpack into one directory.
    pub packages: Vec<String>,
}

/// From this version on, the modules are in a package of their own, and `linux-image-*` is empty.
const SPLIT: [u32; 2] = [6, 19];
const FLAVOUR: &str = "-cloud-amd64";

/// The kernels of a series among the packages of an archive, the newest first. One whose modules are gone is none.
pub fn offers(names: &[String], series: &[u32]) -> Vec<Offer> {
    let images = names.iter().filter_map(|name| name.strip_prefix("linux-image-").filter(|rest| rest.ends_with(FLAVOUR)));
    let mut offers: Vec<Offer> = images.filter_map(|release| offer(names, release)).collect();
    offers.retain(|offer| offer.version.starts_with(series));
    offers.sort_by(|one, other| other.version.cmp(&one.version));
    offers
}

fn offer(names: &[String], release: &str) -> Option<Offer> {
    let version = numbers(release.strip_suffix(FLAVOUR)?);
    // "6.12-cloud-amd64" and "cloud-amd64" only lead to others.
    if version.len() < 3 {
        return None;
    }
    let kinds = if version.as_slice() < SPLIT.as_slice() { &["image"][..] } else { &["binary", "modules"] };
    let packages: Vec<String> = kinds.iter().map(|kind| format!("linux-{kind}-{release}")).collect();
    packages.iter().all(|package| names.contains(package)).then(|| Offer { version, release: release.to_owned(), packages })
}

/// All numbers in a version, in their order: `6.1.0-56` is newer than `6.1.0-0.deb11.52`.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(names: &[&str], series: &[u32]) -> Option<Vec<String>> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        offers(&names, series).into_iter().next().map(|offer| offer.packages)
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
