//! Installs system packages with apt, as root. Without apt or root, the error has the command for the user.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::program;

/// Whether this process has downloaded the package lists.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// Installs packages by their Debian names. Downloads the package lists first.
pub fn install(packages: &[String]) -> Result<()> {
    let packages = packages.join(" ");
    if program::find("apt-get").is_none() {
        bail!("install the packages that are named in Debian: {packages}");
    }
    if !program::is_root() {
        bail!("run: sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}");
    }
    // Completes an installation by dpkg that was interrupted before. Otherwise this command does nothing.
    program::run(program::command("dpkg").args(["--configure", "-a"]))?;
    update()?;
    program::run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages.split(' ')))
}

/// Downloads apt's package lists, once per process. Fails without root.
pub fn update() -> Result<()> {
    if UPDATED.load(Ordering::Relaxed) {
        return Ok(());
    }
    if !program::is_root() {
        bail!("run: sudo apt-get update");
    }
    program::run(apt_get().arg("update"))?;
    UPDATED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Downloads a package of this machine's own release, and unpacks it into `dir` instead of installing it. Needs root.
pub fn unpack(package: &str, dir: &Path) -> Result<()> {
    if program::find("apt-get").is_none() {
        bail!("apt-get is missing, and the package {package} of Debian or Ubuntu is needed");
    }
    update()?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    // apt's unprivileged user cannot enter every directory.
    let mut download = apt_get();
    download.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(dir);
    program::run(&mut download).with_context(|| format!("failed to download {package}"))?;
    for file in debian::packages_in(dir)? {
        debian::extract(&file, dir)?;
        fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
    }
    Ok(())
}

/// The version of a package that apt would install; `None` if apt knows no such package. As root, downloads the package lists
/// first.
pub fn candidate(package: &str) -> Result<Option<String>> {
    if program::is_root() {
        update()?;
    }
    let policy = program::output(program::command("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
        .with_context(|| format!("failed to get the version of {package} from apt"))?;
    Ok(parse_candidate(&policy).map(str::to_owned))
}

fn parse_candidate(policy: &str) -> Option<&str> {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (candidate != "(none)").then_some(candidate)
}

fn apt_get() -> Command {
    let mut apt = program::command("apt-get");
    // Wait for the lock: another apt may run, for example on a machine that has just booted.
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
