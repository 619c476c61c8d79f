//! Installs the system programs that the demo and the tests call.

use std::fs;

use anyhow::{Result, bail};

use super::{Purpose, Step, apt};
use crate::program;

const BPFTOOL: &str = "bpftool";

/// A step that installs system programs.
pub struct Programs {
    name: &'static str,
    why: &'static str,
    purpose: Purpose,
    /// Programs, each with its Debian packages.
    packages: &'static [(&'static str, &'static [&'static str])],
}

/// The programs for tests on this machine's kernel, and for the demo.
pub const SYSTEM: Programs = Programs {
    name: "system programs",
    why: "the demo and the tests call them",
    purpose: Purpose::Kernel,
    packages: &[
        ("ip", &["iproute2"]),
        ("nsenter", &["util-linux"]),
        ("setpriv", &["util-linux"]),
        ("nft", &["nftables"]),
        ("curl", &["curl"]),
        ("dig", &["bind9-dnsutils"]),
        ("python3", &["python3"]),
        ("faketime", &["faketime"]),
        ("cc", &["gcc", "libc6-dev"]),
        (BPFTOOL, &[BPFTOOL]),
    ],
};

/// The programs for booting other kernels.
pub const MACHINES: Programs = Programs {
    name: "virtual machines",
    why: "the tests on other kernels run in them",
    purpose: Purpose::Machines,
    packages: &[("qemu-system-x86_64", &["qemu-system-x86"]), ("cpio", &["cpio"]), ("depmod", &["kmod"])],
};

/// The browser for the tests of `portmap page`.
pub const BROWSER: Programs = Programs {
    name: "browser",
    why: "the tests of the page open it",
    purpose: Purpose::Browser,
    packages: &[("chromium", &["chromium"])],
};

impl Programs {
    fn missing(&self) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        self.packages.iter().copied().filter(|(name, _)| !works(name))
    }
}

impl Step for Programs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn why(&self) -> &'static str {
        self.why
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn check(&self) -> Result<String> {
        let missing: Vec<_> = self.missing().map(|(name, _)| name).collect();
        if !missing.is_empty() {
            bail!("{} not installed", missing.join(", "));
        }
        Ok(self.packages.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
    }

    fn install(&self) -> Result<()> {
        let mut packages = Vec::new();
        for (name, of) in self.missing() {
            if name == BPFTOOL {
                packages.extend(bpftool_packages()?);
            } else {
                packages.extend(of.iter().map(ToString::to_string));
            }
        }
        packages.dedup();
        apt::install(&packages)
    }
}

fn works(name: &str) -> bool {
    match name {
        // In Ubuntu `bpftool` may be a script that finds no program for the running kernel, so run it.
        BPFTOOL => program::output(program::command(BPFTOOL).arg("version")).is_ok(),
        _ => program::find(name).is_some(),
    }
}

/// The packages of bpftool. Debian has a package of that name. In Ubuntu before 25.04, bpftool is part of each kernel's tools.
fn bpftool_packages() -> Result<Vec<String>> {
    if program::find("apt-cache").is_none() || apt::candidate(BPFTOOL)?.is_some() {
        return Ok(vec![BPFTOOL.into()]);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let for_this_kernel = format!("linux-tools-{}", release.trim());
    let tools = match apt::candidate(&for_this_kernel)? {
        Some(_) => for_this_kernel,
        None => "linux-tools-generic".into(),
    };
    Ok(vec!["linux-tools-common".into(), tools])
}
