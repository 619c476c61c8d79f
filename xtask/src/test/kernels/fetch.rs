//! Gets kernels out of Debian's packages, and keeps them below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::series::{self, Offer, Series};
use crate::screen::Screen;
use crate::setup::debian::{Archive, DebianSuite};
use crate::workspace;

/// After this time a newer one is looked for.
const FRESH: Duration = Duration::from_hours(7 * 24);

/// Offers that are tried: an index may still have what its archive has no more.
const ATTEMPTS: usize = 3;

/// A kernel that is here.
#[derive(Debug)]
pub struct Kernel {
    /// What it calls itself.
    pub release: String,
    /// What a machine boots.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// Where kernels and what is made of them are kept.
pub fn directory() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("kernels"))
}

/// The kernels of these series, in their order. Debian is asked only if one is missing or may be out of date.
pub fn obtain(wanted: &[&Series]) -> Result<Vec<Kernel>> {
    let mut stale: Vec<&Series> = wanted.iter().copied().filter(|series| !is_fresh(series)).collect();
    stale.dedup_by_key(|series| series.version);
    let refreshed = if stale.is_empty() { Ok(()) } else { refresh(&stale) };
    match (wanted.iter().map(|series| open(series)).collect(), refreshed) {
        (Err(_), Err(reason)) => Err(reason),
        (Ok(kernels), Err(reason)) => {
            // What is here will do.
            Screen::Stderr.line(&format!("{reason:#}"));
            Ok(kernels)
        }
        (kernels, Ok(())) => kernels,
    }
}

/// Series that differ by their parameters share one.
fn place(series: &Series) -> Result<PathBuf> {
    let numbers: Vec<_> = series.version.iter().map(ToString::to_string).collect();
    let name = if numbers.is_empty() { "newest".to_owned() } else { numbers.join(".") };
    Ok(directory()?.join(name))
}

/// Its file with the release is written last.
fn is_fresh(series: &Series) -> bool {
    let written = place(series).and_then(|place| Ok(fs::metadata(place.join("release"))?.modified()?));
    written.is_ok_and(|written| SystemTime::now().duration_since(written).is_ok_and(|age| age < FRESH))
}

fn open(series: &Series) -> Result<Kernel> {
    let place = place(series)?;
    let release = fs::read_to_string(place.join("release"))
        .with_context(|| format!("there is no kernel {} in {}", series.name, place.display()))?;
    Ok(Kernel { release, image: place.join("vmlinuz"), modules: place.join("modules") })
}

fn refresh(stale: &[&Series]) -> Result<()> {
    let mut suites: Vec<DebianSuite> = stale.iter().map(|series| series.suite).collect();
    suites.dedup();
    let archive = Archive::open(&suites)?;
    let names = archive.names("linux-")?;
    stale.iter().try_for_each(|series| {
        let offers = series::offers(&names, series.version);
        let place = place(series)?;
        unpack_first(&archive, &offers, &place).with_context(|| format!("failed to get a kernel {} from Debian", series.name))
    })
}

fn unpack_first(archive: &Archive, offers: &[Offer], place: &Path) -> Result<()> {
    let mut failure = None;
    for offer in offers.iter().take(ATTEMPTS) {
        match unpack(archive, offer, place) {
            Ok(()) => return Ok(()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.context("none is offered")?)
}

/// With one rename, complete.
fn unpack(archive: &Archive, offer: &Offer, place: &Path) -> Result<()> {
    let partial = place.with_extension("partial");
    fs::remove_dir_all(&partial).ok();
    let unpacked = partial.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| format!("failed to create {}", unpacked.display()))?;
    for package in &offer.packages {
        archive.unpack(package, "", &unpacked)?;
    }
    let release = &offer.release;
    let image = format!("boot/vmlinuz-{release}");
    take(&unpacked, &[&image, &format!("usr/lib/modules/{release}/vmlinuz")], &partial.join("vmlinuz"))?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|above| format!("{above}/{release}"));
    take(&unpacked, &modules.each_ref().map(String::as_str), &partial.join("modules"))?;
    fs::remove_dir_all(&unpacked)?;
    fs::write(partial.join("release"), release)?;
    fs::remove_dir_all(place).ok();
    fs::rename(&partial, place).with_context(|| format!("failed to move the kernel to {}", place.display()))
}

/// Moves what is at one of the places.
fn take(unpacked: &Path, places: &[&str], to: &Path) -> Result<()> {
    let found = places.iter().map(|place| unpacked.join(place)).find(|path| path.exists());
    let found = found.with_context(|| format!("the packages have no {}", places.join(" and no ")))?;
    fs::rename(&found, to).with_context(|| format!("failed to move {}", found.display()))
}
