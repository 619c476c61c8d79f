//! Go, which builds the real Kubernetes API server for the tests.
//!
//! A Go older than the one that `tests/control-plane/go.mod` names fetches that one by itself, if it knows how and may.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, bail};

use super::debian::{Archive, NEWEST};
use super::{Purpose, Step, apt};
use crate::screen::Screen;
use crate::{program, workspace};

/// The first Go that fetches a newer one when a module asks for it.
const FETCHES_NEWER: [u32; 2] = [1, 21];

/// The step.
pub struct Go;

impl Step for Go {
    fn name(&self) -> &'static str {
        "Go"
    }

    fn why(&self) -> &'static str {
        "builds the real API server for the tests"
    }

    fn purpose(&self) -> Purpose {
        Purpose::ControlPlane
    }

    fn check(&self) -> Result<String> {
        program::find("go").context("not there")?;
        // Outside of any module, or Go would already fetch what the module asks for.
        let found = program::output(program::command("go").args(["env", "GOVERSION"]).current_dir("/"))?;
        judge(&found, &needed()?, env::var("GOTOOLCHAIN").ok().as_deref())
    }

    fn install(&self) -> Result<()> {
        if packaged_go_fits()? {
            return apt::install(&["golang-go".into()]);
        }
        let needed = needed()?;
        Screen::Stderr.line("no package of a Go new enough here; trying a newer Debian's");
        from_debian(&needed)
            .with_context(|| format!("failed to install Go; do it yourself (https://go.dev/dl, {needed} or newer)"))
    }
}

/// Whether this version of Go can build a module that asks for `needed`. `switching` is the environment's GOTOOLCHAIN; the tests set
/// it to "auto" where it is not set.
fn judge(found: &str, needed: &str, switching: Option<&str>) -> Result<String> {
    let found = found.trim().trim_start_matches("go");
    let version = program::version(found).with_context(|| format!("failed to understand Go's version {found:?}"))?;
    if Some(&version) >= program::version(needed).as_ref() {
        return Ok(format!("Go {found}"));
    }
    if version.as_slice() < FETCHES_NEWER.as_slice() {
        bail!("found {found}, {needed} is needed");
    }
    match switching {
        Some(mode) if !mode.contains("auto") => {
            bail!("found {found}, {needed} is needed, and GOTOOLCHAIN={mode} forbids to fetch it")
        }
        _ => Ok(format!("Go {found} (fetches {needed} by itself)")),
    }
}

/// The version that the control plane's module asks for.
fn needed() -> Result<String> {
    let path = workspace::root().join("tests/control-plane/go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("go "));
    Ok(version.with_context(|| format!("failed to find the `go` line in {}", path.display()))?.trim().to_owned())
}

fn packaged_go_fits() -> Result<bool> {
    if program::find("apt-cache").is_none() {
        return Ok(false);
    }
    let Some(candidate) = apt::candidate("golang-go")? else { return Ok(false) };
    // Debian's version begins with an epoch: "2:1.24~2".
    let version = program::version(candidate.split_once(':').map_or(candidate.as_str(), |(_, version)| version));
    Ok(version.as_deref() >= Some(FETCHES_NEWER.as_slice()))
}

/// Into a directory of this workspace, with one rename. [`program::search_path`] finds its `bin`.
fn from_debian(needed: &str) -> Result<()> {
    let series: String = needed.split('.').take(2).collect::<Vec<_>>().join(".");
    let place = workspace::tools_dir()?.join("go");
    let partial = place.with_extension("partial");
    fs::remove_dir_all(&partial).ok();
    let archive = Archive::open(&[NEWEST])?;
    for package in ["go", "src"].map(|part| format!("golang-{series}-{part}")) {
        archive.unpack(&package, &series, &partial)?;
    }
    symlink(format!("usr/lib/go-{series}/bin"), partial.join("bin")).context("failed to link Go's bin directory")?;
    fs::remove_dir_all(&place).ok();
    fs::rename(&partial, &place).with_context(|| format!("failed to move Go to {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_fits_when_new_enough_or_able_to_fetch() {
        let judged = |found, switching| judge(found, "1.26.0", switching).ok();
        assert_eq!(judged("go1.26.8\n", Some("local")), Some("Go 1.26.8".into()));
        assert_eq!(judged("go1.24.4\n", None), Some("Go 1.24.4 (fetches 1.26.0 by itself)".into()));
        assert_eq!(judged("go1.24.4\n", Some("go1.24.4+auto")), Some("Go 1.24.4 (fetches 1.26.0 by itself)".into()));
        assert_eq!(judged("go1.24.4\n", Some("local")), None);
        assert_eq!(judged("go1.19.8\n", None), None);
        assert_eq!(judged("", None), None);
    }
}
