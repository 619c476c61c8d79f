//! The checks of a directory and its parents before it is used.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result, ensure};
use nix::{sys::stat::FileStat, unistd::geteuid};

use super::{Directory, open_parent, stat};

/// Write permission of the group and of others.
const WRITABLE: u32 = 0o022;

/// In such a directory only the owner of an entry, or of the directory, renames or removes the entry.
const STICKY: u32 = 0o1000;

impl Directory {
    /// Fails if somebody else could change what is in the directory.
    pub(super) fn check(&self) -> Result<()> {
        let (path, stat) = (self.path.display(), self.stat()?);
        ensure!(
            is_own(&stat),
            "{path} belongs to user {}, who could change where connections go: look what is in it, then remove it (rm -r {path}) or make it \
             root's (chown root:root {path})",
            stat.st_uid
        );
        ensure!(
            stat.st_mode & WRITABLE == 0,
            "{path} can be written by other users (its mode is {:04o}), who could change where connections go: look what is in it, then \
             close it to them (chmod 0700 {path}), or give a directory of portmap's own with --bpffs",
            stat.st_mode & 0o7777
        );
        Ok(())
    }

    /// Fails if somebody else could put another directory in its place, as far up as its file system is mounted.
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

    /// Fails if somebody else could rename or remove what is in this directory.
    pub(super) fn check_parent(&self, stat: &FileStat, child: &Path) -> Result<()> {
        let (path, child) = (self.path.display(), child.display());
        ensure!(
            is_own(stat),
            "{path} belongs to user {}, who could put something else in the place of {child}: make it root's (chown root:root {path}), or \
             give another directory with --bpffs",
            stat.st_uid
        );
        ensure!(
            stat.st_mode & WRITABLE == 0 || stat.st_mode & STICKY != 0,
            "{path} can be written by other users (its mode is {:04o}), who could put something else in the place of {child}: close it to \
             them (chmod go-w {path}, or chmod +t {path}), or give another directory with --bpffs",
            stat.st_mode & 0o7777
        );
        Ok(())
    }
}

/// Root's, or this process's user's.
fn is_own(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}
