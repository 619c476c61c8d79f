//! The bpffs directory of a [`World`](super::World). This module mounts the bpffs if needed, chooses the path and removes the
//! directory; the agent or the benchmark creates it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::identity::Identity;

/// The usual mount point of the bpffs.
pub(super) const MOUNT: &str = "/sys/fs/bpf";

/// The path of the directory. Dropping this removes the directory if it exists.
pub(super) struct Pins(PathBuf);

impl Pins {
    pub(super) fn name(identity: &Identity) -> Result<Self> {
        mount_once().with_context(|| format!("failed to mount a bpffs on {MOUNT}"))?;
        Ok(Self(Path::new(MOUNT).join(identity.to_string())))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Removes a directory with its pins. A missing directory is no error.
pub(super) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove the pins in {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Mounts the bpffs if needed. A second mount would hide the pins of the first, so a lock serializes the processes that mount.
fn mount_once() -> Result<()> {
    if is_mounted()? {
        return Ok(());
    }
    let _lock = Flock::lock(File::open(MOUNT)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if !is_mounted()? {
        mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    }
    Ok(())
}

fn is_mounted() -> Result<bool> {
    Ok(statfs(MOUNT)?.filesystem_type() == BPF_FS_MAGIC)
}
