//! Installs the standard library's sources into the toolchain, where cargo's `-Z build-std` finds them.
//!
//! The sources come from rustup or, if rustup fails, from Debian's package of the same Rust minor version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::debian::{Archive, NEWEST};
use super::toolchain::{self, Toolchain};
use super::{Purpose, Step};
use crate::program;
use crate::screen::Screen;

/// The name of a file that the set-up adds to sources from Debian. It has the version of rustc for which they were unpacked.
///
/// rustup does not manage these sources, and keeps them when it updates the compiler. The file then shows that they are
/// outdated.
const MARKER: &str = "unpacked-by-portmap-setup";

/// The step that installs the sources.
pub struct RustSrc;

impl Step for RustSrc {
    fn name(&self) -> &'static str {
        "rust-src"
    }

    fn why(&self) -> &'static str {
        "has the sources of `core`, which is compiled for BPF"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Build
    }

    fn check(&self) -> Result<String> {
        let toolchain = toolchain::chosen().context("the nightly Rust must be installed first")?;
        let origin = check_library(&library(&toolchain.sysroot()?), &toolchain.release)?;
        Ok(format!("rust-src of {} from {origin}", toolchain.name))
    }

    fn install(&self) -> Result<()> {
        let toolchain = toolchain::chosen().context("the nightly Rust must be installed first")?;
        let sysroot = toolchain.sysroot()?;
        clear(&sysroot)?;
        match from_rustup(&toolchain) {
            Ok(()) => return Ok(()),
            Err(reason) => Screen::Stderr.line(&format!("{reason:#}; trying Debian's package")),
        }
        from_debian(&toolchain.release, &sysroot)
    }
}

fn library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// Temporary directory for unpacking, on the same file system as the library, so that a rename works.
fn partial(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust.partial")
}

/// The origin of the sources, "rustup" or "Debian". Fails if they are incomplete or belong to another compiler than `release`.
fn check_library(library: &Path, release: &str) -> Result<&'static str> {
    for file in ["core/src/lib.rs", "Cargo.lock"] {
        if !library.join(file).is_file() {
            bail!("{} is missing", library.join(file).display());
        }
    }
    match fs::read_to_string(library.join(MARKER)) {
        Err(_) => Ok("rustup"),
        Ok(unpacked_for) if unpacked_for == release => Ok("Debian"),
        Ok(unpacked_for) => bail!("{} belongs to rustc {unpacked_for}, not {release}", library.display()),
    }
}

/// Removes the partial sources of an interrupted set-up, and sources from Debian, which [`MARKER`] identifies.
fn clear(sysroot: &Path) -> Result<()> {
    let (library, partial) = (library(sysroot), partial(sysroot));
    fs::remove_dir_all(&partial).ok();
    if library.join(MARKER).exists() {
        // A rename first, because partially removed sources could look complete.
        fs::rename(&library, &partial).with_context(|| format!("failed to move {} away", library.display()))?;
        fs::remove_dir_all(&partial).with_context(|| format!("failed to remove {}", partial.display()))?;
    }
    Ok(())
}

fn from_rustup(toolchain: &Toolchain) -> Result<()> {
    let library = library(&toolchain.sysroot()?);
    let component = |action| {
        let mut rustup = toolchain::rustup();
        rustup.args(["component", action, "rust-src", "--toolchain", &toolchain.name]);
        rustup
    };
    // rustup would keep a damaged component, so remove it first.
    program::output(&mut component("remove")).ok();
    program::run(&mut component("add"))?;
    check_library(&library, &toolchain.release).map(drop)
}

fn from_debian(release: &str, sysroot: &Path) -> Result<()> {
    let partial = partial(sysroot);
    let result = unpack(release, &partial, &library(sysroot));
    fs::remove_dir_all(&partial).ok();
    result
}

/// Unpacks Debian's sources, adds [`MARKER`], and moves them to `library` with a rename.
fn unpack(release: &str, partial: &Path, library: &Path) -> Result<()> {
    // For example "1.97.": the minor version must match the compiler, but the patch version may differ.
    let series: String = release.split_inclusive('.').take(2).collect();
    Archive::open(&[NEWEST])?.unpack("rust-src", &series, partial)?;
    let unpacked = partial.join("usr/lib/rustlib/src/rust/library");
    fs::write(unpacked.join(MARKER), release).context("failed to find `library` in Debian's rust-src")?;
    fs::remove_dir_all(library).ok();
    fs::create_dir_all(library).with_context(|| format!("failed to create {}", library.display()))?;
    fs::rename(&unpacked, library).with_context(|| format!("failed to move the sources to {}", library.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_another_compiler_do_not_count() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("portmap-rust-src-{}", std::process::id()));
        fs::create_dir_all(dir.join("core/src"))?;
        fs::write(dir.join("core/src/lib.rs"), "")?;
        let half = check_library(&dir, "1.97.0-nightly").is_err();
        fs::write(dir.join("Cargo.lock"), "")?;
        let from_rustup = check_library(&dir, "1.97.0-nightly").ok();
        fs::write(dir.join(MARKER), "1.97.0-nightly")?;
        let from_debian = check_library(&dir, "1.97.0-nightly").ok();
        let outdated = check_library(&dir, "1.98.0-nightly").is_err();
        fs::remove_dir_all(&dir)?;
        assert!(half && outdated);
        assert_eq!((from_rustup, from_debian), (Some("rustup"), Some("Debian")));
        Ok(())
    }
}
