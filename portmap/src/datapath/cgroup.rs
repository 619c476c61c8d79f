//! Finding the cgroup to attach to: its programs see the sockets of every process in it and below.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};

/// The number of the root of the machine's hierarchy. The root of a private cgroup namespace has another.
const ROOT: u64 = 1;

/// Cgroups right below the root of a system of its own: systemd's, and the kubelet's for pods. A container that runs one program has none.
const OF_A_SYSTEM: [&str; 5] = ["init.scope", "kubepods", "kubepods.slice", "kubelet", "kubelet.slice"];

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
        path.map_or_else(Self::root, Self::at)
    }

    fn at(path: &Path) -> Result<Self> {
        let directory = File::open(path).with_context(|| format!("failed to open the cgroup {}", path.display()))?;
        let info = fstatfs(&directory).with_context(|| format!("failed to look at {}", path.display()))?;
        ensure!(
            info.filesystem_type() == CGROUP2_SUPER_MAGIC,
            "{} is not a cgroup v2 directory; give one with --cgroup",
            path.display()
        );
        let id = directory.metadata().with_context(|| format!("failed to look at {}", path.display()))?.ino();
        Ok(Self { path: path.to_owned(), directory, id })
    }

    /// The root of the machine's hierarchy; or of a node that is itself a container, as kind's are.
    fn root() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
        let mut roots = Vec::new();
        let mut unusable = None;
        for mounted in mount_points(&mounts).map(Self::at) {
            match mounted {
                Ok(root) => roots.push(root),
                // Something else is mounted over it.
                Err(error) => unusable = Some(error),
            }
        }
        if let (true, Some(error)) = (roots.is_empty(), unusable) {
            return Err(error);
        }
        ensure!(
            !roots.is_empty(),
            "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), or give its directory with --cgroup"
        );
        let of_machine = roots.iter().position(|root| root.id == ROOT);
        let of_system = || roots.iter().position(Self::is_of_a_system);
        let Some(chosen) = of_machine.or_else(of_system) else {
            let path = roots[0].path.display();
            bail!(
                "{path} shows a private cgroup namespace, not the node's cgroups: programs attached there would serve this container only.                  Mount the node's {path} into the container (a hostPath volume; docker run --cgroupns=host), or give the directory with                  --cgroup {path} if this container is all that is to be served"
            );
        };
        let root = roots.swap_remove(chosen);
        if root.id != ROOT {
            tracing::info!("{} is the root of a private cgroup namespace: the node is a container", root.path.display());
        }
        Ok(root)
    }

    fn is_of_a_system(&self) -> bool {
        OF_A_SYSTEM.iter().any(|name| self.path.join(name).is_dir())
    }

    /// The cgroup that its path leads to now: `None` if it is this one. A cgroup that is removed and made again is another one.
    pub fn successor(&self) -> Result<Option<Self>> {
        let found =
            fs::metadata(&self.path).with_context(|| format!("failed to look at the cgroup {}", self.path.display()))?;
        if found.ino() == self.id { Ok(None) } else { Self::at(&self.path).map(Some) }
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
        let cgroups: Vec<&Path> = path.ancestors().take_while(is_cgroup).collect();
        let top = cgroups.last().with_context(|| format!("{} is not a cgroup v2 directory", path.display()))?;
        ensure!(
            Self::at(top)?.id == ROOT,
            "{} is not the root of the node's cgroups, so it cannot be told how deep {} is in them: mount the node's there",
            top.display(),
            path.display()
        );
        Ok(u32::try_from(cgroups.len())?.saturating_sub(1))
    }
}

/// Where cgroup v2 hierarchies are mounted, by a mount table.
fn mount_points(mounts: &str) -> impl Iterator<Item = &Path> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (directory, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(Path::new(directory))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_wherever_it_is_mounted() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_points(hybrid).collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/unified")]);
        assert_eq!(mount_points("tmpfs / tmpfs rw 0 0\n").count(), 0);
    }
}
