//! Finding the cgroup to attach to: its programs see the sockets of every process in it and below.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// A cgroup to attach to.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// The directory, open.
    pub directory: File,
    /// Its number, by which the kernel names it: the inode of its directory.
    pub id: u64,
}

impl Cgroup {
    /// Opens a cgroup's directory; without one, the root of the cgroup v2 hierarchy.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => root(&fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?)?,
        };
        let directory = File::open(&path).with_context(|| format!("failed to open the cgroup {}", path.display()))?;
        let info = statfs(&path).with_context(|| format!("failed to look at {}", path.display()))?;
        ensure!(
            info.filesystem_type() == CGROUP2_SUPER_MAGIC,
            "{} is not a cgroup v2 directory; give one with --cgroup",
            path.display()
        );
        let id = directory.metadata().with_context(|| format!("failed to look at {}", path.display()))?.ino();
        Ok(Self { path, directory, id })
    }

    /// Whether it is another cgroup or lies below it.
    pub fn is_within(&self, other: &Self) -> Result<bool> {
        let canonical = |path: &Path| path.canonicalize().with_context(|| format!("failed to look at {}", path.display()));
        Ok(canonical(&self.path)?.starts_with(canonical(&other.path)?))
    }

    /// How far it is below the root of the hierarchy, which is at 0.
    pub fn level(&self) -> Result<u32> {
        let path = self.path.canonicalize().with_context(|| format!("failed to look at {}", self.path.display()))?;
        let is_cgroup = |directory: &&Path| statfs(*directory).is_ok_and(|info| info.filesystem_type() == CGROUP2_SUPER_MAGIC);
        // The directory that the hierarchy is mounted on is not below the root.
        Ok(u32::try_from(path.ancestors().take_while(is_cgroup).count())?.saturating_sub(1))
    }
}

/// The mount point of the cgroup v2 hierarchy in a mount table.
fn root(mounts: &str) -> Result<PathBuf> {
    for line in mounts.lines() {
        let mut fields = line.split_whitespace().skip(1);
        if let (Some(directory), Some("cgroup2")) = (fields.next(), fields.next()) {
            return Ok(directory.into());
        }
    }
    bail!(
        "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), or give its directory with --cgroup"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_wherever_it_is_mounted() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root(hybrid).ok(), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let error = root("tmpfs / tmpfs rw 0 0\n").expect_err("there is none");
        assert!(error.to_string().contains("--cgroup"), "{error}");
    }
}
