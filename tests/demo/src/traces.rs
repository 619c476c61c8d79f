//! Checks that the removed [`World`] of the demo has left no network namespace, cgroup, pin or temporary file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use portmap_harness::world::{Group, World};

/// The directories and the name prefix of the objects of a [`World`].
#[derive(Debug)]
pub struct Traces {
    /// The parent directories of network namespaces, cgroups, pins and temporary files.
    directories: Vec<PathBuf>,
    /// The common prefix of the objects' names.
    prefix: String,
}

impl Traces {
    /// Records the directories and the prefix of a [`World`] that still exists.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let cgroup = world.cgroup(Group::Clean);
        let members = [Some(world.namespace()), cgroup.parent(), Some(world.bpffs()), Some(world.directory())];
        let directories = members.into_iter().flatten().filter_map(Path::parent).map(Path::to_owned).collect();
        let prefix = world.bpffs().file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { directories, prefix }
    }

    /// Fails if an object with the prefix still exists in one of the directories.
    pub fn check(&self) -> Result<()> {
        // A missing directory has no entries.
        let entries = self.directories.iter().flat_map(fs::read_dir).flatten().flatten();
        let is_ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&self.prefix);
        let left: Vec<String> = entries.filter(is_ours).map(|entry| entry.path().display().to_string()).collect();
        ensure!(left.is_empty(), "the demo could not remove {}; the next demo or test will", left.join(", "));
        Ok(())
    }
}
