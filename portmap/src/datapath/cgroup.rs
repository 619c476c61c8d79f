//! Opens cgroups: the one that the programs are attached to, and the excluded ones. Programs see the calls of all processes in
//! and below their cgroup.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};

/// The id of the root of the machine's cgroup hierarchy. The root of a private cgroup namespace has another id.
const ROOT_ID: u64 = 1;

/// Cgroups directly below the root of a node: those of systemd, and those of the kubelet for pods. A container with one
/// program has none of them.
const NODE_CGROUPS: [&str; 5] = ["init.scope", "kubepods", "kubepods.slice", "kubelet", "kubelet.slice"];

/// An open cgroup.
#[derive(Debug)]
pub struct Cgroup {
    /// The path of the cgroup's directory.
    pub path: PathBuf,
    /// The open directory, for the attachment of programs.
    pub directory: File,
    /// The kernel's id of the cgroup: the inode number of its directory.
    pub id: u64,
}

impl Cgroup {
    /// Opens the cgroup with this path; without a path, the root of the node's cgroups.
    ///
    /// Fails if the path is not a cgroup v2 directory, or if no hierarchy of a node is mounted.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        path.map_or_else(Self::root, Self::at)
    }

    fn at(path: &Path) -> Result<Self> {
        let directory = File::open(path).with_context(|| format!("failed to open the cgroup {}", path.display()))?;
        let info = fstatfs(&directory).with_context(|| format!("failed to stat {}", path.display()))?;
        ensure!(
            info.filesystem_type() == CGROUP2_SUPER_MAGIC,
            "{} is not a cgroup v2 directory; give one with --cgroup",
            path.display()
        );
        let id = directory.metadata().with_context(|| format!("failed to stat {}", path.display()))?.ino();
        Ok(Self { path: path.to_owned(), directory, id })
    }

    /// Opens the root of the machine's hierarchy, or the root of a node that is itself a container, as with kind.
    fn root() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
        let mut roots = Vec::new();
        let mut unusable = None;
        for mounted in mount_points(&mounts).map(Self::at) {
            match mounted {
                Ok(root) => roots.push(root),
                // Another file system may be mounted over this mount point.
                Err(error) => unusable = Some(error),
            }
        }
        if let (true, Some(error)) = (roots.is_empty(), unusable) {
            return Err(error);
        }
        ensure!(
            !roots.is_empty(),
            "no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), or give its directory with \
             --cgroup"
        );
        let of_machine = roots.iter().position(|root| root.id == ROOT_ID);
        let of_container = || roots.iter().position(Self::is_of_node);
        let Some(chosen) = of_machine.or_else(of_container) else {
            let path = roots[0].path.display();
            bail!(
                "{path} is the root of a private cgroup namespace, not of the node's cgroups: programs there would translate \
                 the calls of this container only; mount the node's {path} into the container (a hostPath volume, or docker \
                 run --cgroupns=host), or give --cgroup {path} to translate the calls of this container only"
            );
        };
        let root = roots.swap_remove(chosen);
        if root.id != ROOT_ID {
            tracing::info!(
                "attaching to {}, the root of a private cgroup namespace: the node is a container",
                root.path.display()
            );
        }
        Ok(root)
    }

    /// Whether this is the root of a node's cgroups, with those of systemd or of the kubelet below it.
    fn is_of_node(&self) -> bool {
        NODE_CGROUPS.iter().any(|name| self.path.join(name).is_dir())
    }

    /// Opens the cgroup that has this cgroup's path now, if it is another cgroup: the old one was removed and made again.
    /// `None` if it is the same cgroup. Fails if the path does not exist.
    pub fn successor(&self) -> Result<Option<Self>> {
        let found = fs::metadata(&self.path).with_context(|| format!("failed to stat the cgroup {}", self.path.display()))?;
        if found.ino() == self.id { Ok(None) } else { Self::at(&self.path).map(Some) }
    }

    /// Whether this cgroup is `other`, or is below it.
    pub fn is_within(&self, other: &Self) -> Result<bool> {
        let canonical = |path: &Path| path.canonicalize().with_context(|| format!("failed to resolve {}", path.display()));
        Ok(canonical(&self.path)?.starts_with(canonical(&other.path)?))
    }

    /// Depth of the cgroup below the root of the hierarchy, which has level 0. Fails below the root of a private cgroup
    /// namespace.
    pub fn level(&self) -> Result<u32> {
        let path = self.path.canonicalize().with_context(|| format!("failed to resolve {}", self.path.display()))?;
        let is_cgroup = |directory: &&Path| statfs(*directory).is_ok_and(|info| info.filesystem_type() == CGROUP2_SUPER_MAGIC);
        // The last directory of the list is the mount point of the hierarchy, which must be its root.
        let cgroups: Vec<&Path> = path.ancestors().take_while(is_cgroup).collect();
        let top = cgroups.last().with_context(|| format!("{} is not a cgroup v2 directory", path.display()))?;
        ensure!(
            Self::at(top)?.id == ROOT_ID,
            "{} is not the root of the node's cgroups, so the depth of {} below the root is unknown; mount the node's cgroups \
             there",
            top.display(),
            path.display()
        );
        Ok(u32::try_from(cgroups.len())?.saturating_sub(1))
    }
}

/// The mount points of cgroup v2 hierarchies in a mount table, in the format of `/proc/self/mounts`.
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
