//! Installs Go, which builds the real Kubernetes API server for the tests.
//!
//! `tests/control-plane/go.mod` requires a version of Go. Go 1.21 or newer downloads that version itself, unless GOTOOLCHAIN
//! forbids the download.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, bail};

use super::debian::{Archive, NEWEST};
use super::{Purpose, Step, apt};
use crate::screen::Screen;
use crate::{program, workspace};

/// The first version of Go that downloads a newer version if a module requires it.
const FIRST_WITH_DOWNLOAD: [u32; 2] = [1, 21];

/// The step that installs Go.
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
        program::find("go").context("not installed")?;
        // The command runs outside of any module, so that Go does not download the version that the module requires.
        let found = program::output(program::command("go").args(["env", "GOVERSION"]).current_dir("/"))?;
        check_version(&found, &needed()?, env::var("GOTOOLCHAIN").ok().as_deref())
    }

    fn install(&self) -> Result<()> {
        if packaged_go_fits()? {
            return apt::install(&["golang-go".into()]);
        }
        let needed = needed()?;
        Screen::Stderr.line("this system has no package of a suitable Go; trying the package of a newer Debian");
        from_debian(&needed).with_context(|| format!("failed to install Go; install {needed} or newer from https://go.dev/dl"))
    }
}

/// Fails if this version of Go cannot build a module that requires `needed`. `toolchain` is the environment variable
/// GOTOOLCHAIN; if it is not set, the tests set it to "auto".
fn check_version(found: &str, needed: &str, toolchain: Option<&str>) -> Result<String> {
    let found = found.trim().trim_start_matches("go");
    let version = program::version(found).with_context(|| format!("failed to parse Go's version {found:?}"))?;
    if Some(&version) >= program::version(needed).as_ref() {
        return Ok(format!("Go {found}"));
    }
    if version.as_slice() < FIRST_WITH_DOWNLOAD.as_slice() {
        bail!("version {found} is installed, but {needed} is needed");
    }
    match toolchain {
        Some(mode) if !mode.contains("auto") => {
            bail!("version {found} is installed, but {needed} is needed, and GOTOOLCHAIN={mode} forbids its download")
        }
        _ => Ok(format!("Go {found} (downloads {needed} itself)")),
    }
}

/// The version of Go that the control plane's module requires, for example `1.26.0`.
fn needed() -> Result<String> {
    let path = workspace::root().join("tests/control-plane/go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("go "));
    Ok(version.with_context(|| format!("failed to find the `go` line in {}", path.display()))?.trim().to_owned())
}

/// Whether apt has a package of Go that is new enough to download the required version.
fn packaged_go_fits() -> Result<bool> {
    if program::find("apt-cache").is_none() {
        return Ok(false);
    }
    let Some(candidate) = apt::candidate("golang-go")? else { return Ok(false) };
    // Debian's version begins with an epoch: "2:1.24~2".
    let version = program::version(candidate.split_once(':').map_or(candidate.as_str(), |(_, version)| version));
    Ok(version.as_deref() >= Some(FIRST_WITH_DOWNLOAD.as_slice()))
}

/// Unpacks Debian's Go into the directory `go` of this workspace, with a final rename. [`program::search_path`] contains the
/// directory's `bin`.
fn from_debian(needed: &str) -> Result<()> {
    let series: String = needed.split('.').take(2).collect::<Vec<_>>().join(".");
    let directory = workspace::tools_dir()?.join("go");
    let partial = directory.with_extension("partial");
    fs::remove_dir_all(&partial).ok();
    let archive = Archive::open(&[NEWEST])?;
    for package in ["go", "src"].map(|part| format!("golang-{series}-{part}")) {
        archive.unpack(&package, &series, &partial)?;
    }
    symlink(format!("usr/lib/go-{series}/bin"), partial.join("bin")).context("failed to link Go's bin directory")?;
    fs::remove_dir_all(&directory).ok();
    fs::rename(&partial, &directory).with_context(|| format!("failed to move Go to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_fits_if_it_is_new_enough_or_can_download() {
        let checked = |found, toolchain| check_version(found, "1.26.0", toolchain).ok();
        assert_eq!(checked("go1.26.8\n", Some("local")), Some("Go 1.26.8".into()));
        assert_eq!(checked("go1.24.4\n", None), Some("Go 1.24.4 (downloads 1.26.0 itself)".into()));
        assert_eq!(checked("go1.24.4\n", Some("go1.24.4+auto")), Some("Go 1.24.4 (downloads 1.26.0 itself)".into()));
        assert_eq!(checked("go1.24.4\n", Some("local")), None);
        assert_eq!(checked("go1.19.8\n", None), None);
        assert_eq!(checked("", None), None);
    }
}
