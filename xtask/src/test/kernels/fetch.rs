//! Downloads kernels from Debian's packages, and keeps them in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::series::{self, PackagedKernel, Series};
use crate::screen::Screen;
use crate::setup::debian::{Archive, DebianSuite};
use crate::workspace;

/// Age of a downloaded kernel after which a newer version is searched.
const FRESH: Duration = Duration::from_hours(7 * 24);

/// Number of versions to try, because an archive's index may list packages that the archive no longer has.
const ATTEMPTS: usize = 3;

/// A downloaded kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel's release, as in `uname -r`.
    pub release: String,
    /// The path of the kernel image.
    pub image: PathBuf,
    /// The directory of the kernel's modules.
    pub modules: PathBuf,
}

/// The directory of the downloaded kernels, of the ramdisk and of the virtual machines' logs.
pub fn directory() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("kernels"))
}

/// The kernels of these series, in the same order. Downloads kernels that are missing or older than [`FRESH`]. If the download
/// fails, kernels that were downloaded before are used.
pub fn obtain(wanted: &[&Series]) -> Result<Vec<Kernel>> {
    let mut stale: Vec<&Series> = wanted.iter().copied().filter(|series| !is_fresh(series)).collect();
    stale.dedup_by_key(|series| series.version);
    let refreshed = if stale.is_empty() { Ok(()) } else { refresh(&stale) };
    match (wanted.iter().map(|series| open(series)).collect(), refreshed) {
        (Err(_), Err(reason)) => Err(reason),
        (Ok(kernels), Err(reason)) => {
            Screen::Stderr.line(&format!("using the kernels that were downloaded before: {reason:#}"));
            Ok(kernels)
        }
        (kernels, Ok(())) => kernels,
    }
}

/// The directory of a series' kernel. Series that differ only by their parameters share it.
fn kernel_directory(series: &Series) -> Result<PathBuf> {
    let numbers: Vec<_> = series.version.iter().map(ToString::to_string).collect();
    let name = if numbers.is_empty() { "newest".to_owned() } else { numbers.join(".") };
    Ok(directory()?.join(name))
}

/// Whether the kernel of a series was downloaded recently. The file `release` is written last, so its time counts.
fn is_fresh(series: &Series) -> bool {
    let written = kernel_directory(series).and_then(|kernel| Ok(fs::metadata(kernel.join("release"))?.modified()?));
    written.is_ok_and(|written| SystemTime::now().duration_since(written).is_ok_and(|age| age < FRESH))
}

fn open(series: &Series) -> Result<Kernel> {
    let directory = kernel_directory(series)?;
    let release = fs::read_to_string(directory.join("release"))
        .with_context(|| format!("there is no kernel {} in {}", series.name, directory.display()))?;
    Ok(Kernel { release, image: directory.join("vmlinuz"), modules: directory.join("modules") })
}

fn refresh(stale: &[&Series]) -> Result<()> {
    let mut suites: Vec<DebianSuite> = stale.iter().map(|series| series.suite).collect();
    suites.dedup();
    let archive = Archive::open(&suites)?;
    let names = archive.names("linux-")?;
    stale.iter().try_for_each(|series| {
        let packaged = series::packaged_kernels(&names, series.version);
        let directory = kernel_directory(series)?;
        unpack_first(&archive, &packaged, &directory)
            .with_context(|| format!("failed to download a kernel {} from Debian", series.name))
    })
}

/// Unpacks the first kernel that the archive still has, of at most [`ATTEMPTS`]. If none works, the error is that of the first.
fn unpack_first(archive: &Archive, kernels: &[PackagedKernel], directory: &Path) -> Result<()> {
    let mut failure = None;
    for kernel in kernels.iter().take(ATTEMPTS) {
        match unpack(archive, kernel, directory) {
            Ok(()) => return Ok(()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.context("Debian has no package of this kernel")?)
}

/// Downloads and unpacks the packages of a kernel, and moves the kernel to `directory` with a rename.
fn unpack(archive: &Archive, kernel: &PackagedKernel, directory: &Path) -> Result<()> {
    let partial = directory.with_extension("partial");
    fs::remove_dir_all(&partial).ok();
    let unpacked = partial.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| format!("failed to create {}", unpacked.display()))?;
    for package in &kernel.packages {
        archive.unpack(package, "", &unpacked)?;
    }
    let release = &kernel.release;
    let image = format!("boot/vmlinuz-{release}");
    move_first(&unpacked, &[&image, &format!("usr/lib/modules/{release}/vmlinuz")], &partial.join("vmlinuz"))?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|parent| format!("{parent}/{release}"));
    move_first(&unpacked, &modules.each_ref().map(String::as_str), &partial.join("modules"))?;
    fs::remove_dir_all(&unpacked)?;
    fs::write(partial.join("release"), release)?;
    fs::remove_dir_all(directory).ok();
    fs::rename(&partial, directory).with_context(|| format!("failed to move the kernel to {}", directory.display()))
}

/// Moves the first of these paths that exists below `unpacked` to `to`. Fails if none exists.
fn move_first(unpacked: &Path, paths: &[&str], to: &Path) -> Result<()> {
    let found = paths.iter().map(|path| unpacked.join(path)).find(|path| path.exists());
    let found = found.with_context(|| format!("the packages have no {}", paths.join(" and no ")))?;
    fs::rename(&found, to).with_context(|| format!("failed to move {}", found.display()))
}
