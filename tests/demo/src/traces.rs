//! What a world could leave on the machine, and whether it did.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use portmap_harness::world::{Group, World};

/// Where to look when a world is gone, and for what.
#[derive(Debug)]
pub struct Traces {
    /// The directories of network namespaces, cgroups, pins and temporary files.
    directories: Vec<PathBuf>,
    /// What all names of the world begin with.
    prefix: String,
}

impl Traces {
    /// To be asked while the world is there.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let cgroup = world.cgroup(Group::Clean);
        let members = [Some(world.namespace()), cgroup.parent(), Some(world.bpffs()), Some(world.directory())];
        let directories = members.into_iter().flatten().filter_map(Path::parent).map(Path::to_owned).collect();
        let prefix = world.bpffs().file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { directories, prefix }
    }

    /// Fails if something is there.
    pub fn check(&self) -> Result<()> {
        // A directory that is not there holds nothing.
        let entries = self.directories.iter().flat_map(fs::read_dir).flatten().flatten();
        let is_ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&self.prefix);
        let left: Vec<String> = entries.filter(is_ours).map(|entry| entry.path().display().to_string()).collect();
        ensure!(left.is_empty(), "this is left of the demo: {}; the next one removes it", left.join(", "));
        Ok(())
    }
}
