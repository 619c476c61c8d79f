//! System packages, where that is apt's business and we are root; elsewhere the command for a person to type.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::program;

/// The lists were downloaded by this process.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// Installs packages, named as in Debian.
pub fn install(packages: &[String]) -> Result<()> {
    let packages = packages.join(" ");
    if program::find("apt-get").is_none() {
        bail!("install with this system's package manager what Debian calls: {packages}");
    }
    if !program::is_root() {
        bail!("type: sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}");
    }
    // Completes what an interrupted installation left; nothing to do otherwise.
    program::run(program::command("dpkg").args(["--configure", "-a"]))?;
    update()?;
    program::run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages.split(' ')))
}

/// Downloads the package lists, once.
pub fn update() -> Result<()> {
    if UPDATED.load(Ordering::Relaxed) {
        return Ok(());
    }
    if !program::is_root() {
        bail!("type: sudo apt-get update");
    }
    program::run(apt_get().arg("update"))?;
    UPDATED.store(true, Ordering::Relaxed);
    Ok(())
}

/// The version that would be installed, if there is one.
pub fn candidate(package: &str) -> Result<Option<String>> {
    if program::is_root() {
        update()?;
    }
    let policy = program::output(program::command("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
        .with_context(|| format!("failed to ask apt for {package}"))?;
    Ok(parse_candidate(&policy).map(str::to_owned))
}

fn parse_candidate(policy: &str) -> Option<&str> {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (candidate != "(none)").then_some(candidate)
}

fn apt_get() -> Command {
    let mut apt = program::command("apt-get");
    // Another apt may be at work, as on a machine that has just booted.
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_is_read_from_policy() {
        let policy = "golang-go:\n  Installed: (none)\n  Candidate: 2:1.19~1\n  Version table:\n     2:1.19~1 500\n";
        assert_eq!(parse_candidate(policy), Some("2:1.19~1"));
        assert_eq!(parse_candidate("bpftool:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }
}
