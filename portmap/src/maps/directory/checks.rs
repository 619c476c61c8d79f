//! The checks of a directory and of its parents.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result, ensure};
use nix::{sys::stat::FileStat, unistd::geteuid};

use super::{Directory, open_parent, stat};

/// Write permission of the group and of others.
const WRITABLE: u32 = 0o022;

/// The sticky bit: only the owner of an entry, or of the directory, renames or removes the entry.
const STICKY: u32 = 0o1000;

impl Directory {
    /// Fails if a user other than root and the user of this process can change the entries of this directory.
    pub(super) fn check(&self) -> Result<()> {
        let (path, stat) = (self.path.display(), self.stat()?);
        ensure!(
            is_own(&stat),
            "{path} belongs to user {}, who could redirect connections; check its contents, then remove it (rm -r {path}) or \
             give it to root (chown root:root {path})",
            stat.st_uid
        );
        ensure!(
            stat.st_mode & WRITABLE == 0,
            "{path} is writable by other users (its mode is {:04o}), who could redirect connections; check its contents, then \
             close it to them (chmod 0700 {path}), or give a directory that only portmap uses with --bpffs",
            stat.st_mode & 0o7777
        );
        Ok(())
    }

    /// Fails if a user other than root and the user of this process can replace this directory. Checks all parents up to the
    /// root of the mount.
    pub(super) fn check_parents(&self) -> Result<()> {
        let mut below = self.stat()?;
        let mut directory: OwnedFd = self.file.try_clone().context("failed to clone a descriptor")?.into();
        for depth in 1.. {
            directory = open_parent(&directory, &self.path)?;
            let above = stat(&directory, &self.path)?;
            if above.st_dev != below.st_dev || above.st_ino == below.st_ino {
                break;
            }
            let path = self.path.ancestors().nth(depth).unwrap_or(Path::new("/"));
            Self { path: path.to_owned(), file: directory.try_clone().context("failed to clone a descriptor")?.into() }
                .check_parent(&above, &self.path)?;
            below = above;
        }
        Ok(())
    }

    /// Fails if a user other than root and the user of this process can rename or remove a subdirectory of these two users
    /// here. `child` is the directory that the error names.
    pub(super) fn check_parent(&self, stat: &FileStat, child: &Path) -> Result<()> {
        let (path, child) = (self.path.display(), child.display());
        ensure!(
            is_own(stat),
            "{path} belongs to user {}, who could replace {child}; give it to root (chown root:root {path}), or give another \
             directory with --bpffs",
            stat.st_uid
        );
        ensure!(
            stat.st_mode & WRITABLE == 0 || stat.st_mode & STICKY != 0,
            "{path} is writable by other users (its mode is {:04o}), who could replace {child}; close it to them (chmod go-w \
             {path}, or chmod +t {path}), or give another directory with --bpffs",
            stat.st_mode & 0o7777
        );
        Ok(())
    }
}

/// Whether the directory belongs to root or to the user of this process.
fn is_own(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}
