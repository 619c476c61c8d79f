//! System programs that the build, the demo and the tests call.

use std::fs;

use anyhow::{Result, bail};

use super::{Purpose, Step, apt};
use crate::program;

/// Programs and the Debian packages that have them.
const PROGRAMS: [(&str, &[&str]); 9] = [
    ("ip", &["iproute2"]),
    ("nsenter", &["util-linux"]),
    ("setpriv", &["util-linux"]),
    ("nft", &["nftables"]),
    ("curl", &["curl"]),
    ("dig", &["bind9-dnsutils"]),
    ("python3", &["python3"]),
    ("cc", &["gcc", "libc6-dev"]),
    (BPFTOOL, &[BPFTOOL]),
];
const BPFTOOL: &str = "bpftool";

/// The step.
pub struct Programs;

impl Step for Programs {
    fn name(&self) -> &'static str {
        "system programs"
    }

    fn why(&self) -> &'static str {
        "the demo and the tests make and show their worlds with them"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        let missing: Vec<_> = PROGRAMS.iter().map(|(name, _)| *name).filter(|name| !works(name)).collect();
        if !missing.is_empty() {
            bail!("no {}", missing.join(", no "));
        }
        Ok(PROGRAMS.map(|(name, _)| name).join(", "))
    }

    fn install(&self) -> Result<()> {
        let mut packages = Vec::new();
        for (name, of) in PROGRAMS.iter().filter(|(name, _)| !works(name)) {
            if *name == BPFTOOL {
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
        // On Ubuntu a script of this name may be there that finds no bpftool for the running kernel.
        BPFTOOL => program::output(program::command(BPFTOOL).arg("version")).is_ok(),
        _ => program::find(name).is_some(),
    }
}

/// Debian has a package of that name. In Ubuntu before 25.04 it comes with the tools of each kernel.
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
