//! Mounts file systems in this process's mount namespace. A caller must have made a namespace, because the functions do not.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NONE: Option<&str> = None;

/// Keeps all later mounts inside this namespace.
pub fn make_private() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("failed to make mounts private")
}

/// Makes all mounts shared among this namespace and those that are copied from it, as in a usual machine.
pub fn make_shared() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).context("failed to make mounts shared")
}

/// Mounts a new file system. `data` has the options of its kind.
pub fn filesystem(kind: &str, target: &Path, data: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(data))
        .with_context(|| format!("failed to mount {kind} with {data:?} at {}", target.display()))
}

/// Mounts a directory or a file at another path.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("failed to mount {} at {}", source.display(), target.display()))
}

/// Makes a mounted file system read-only for this namespace.
pub fn make_read_only(path: &Path) -> Result<()> {
    mount(NONE, path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, NONE)
        .with_context(|| format!("failed to make {} read-only", path.display()))
}

/// Removes a mount with all mounts below it from this namespace.
pub fn detach(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("failed to unmount {}", path.display()))
}
