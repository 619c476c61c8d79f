//! Removes the namespaces, cgroups and directories of each [`World`](super::World) whose process was killed. Several processes
//! may do so at the same time, so a missing object is no error.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{bpffs, cgroup, identity, namespace};

/// Removes everything that killed processes left. The cgroups come first: their removal kills the processes that use the other
/// objects.
pub(super) fn sweep() {
    match cgroup::mount() {
        Ok(mount) => sweep_directory(&mount, |path, _| cgroup::remove(path)),
        Err(error) => eprintln!("warning: {error:#}"),
    }
    sweep_directory(Path::new(bpffs::MOUNT), |path, _| bpffs::remove(path));
    sweep_directory(Path::new(namespace::DIRECTORY), |_, name| namespace::delete(name));
    sweep_directory(&std::env::temp_dir(), |path, _| {
        fs::remove_dir_all(path).with_context(|| format!("failed to remove {}", path.display()))
    });
}

fn sweep_directory(directory: &Path, remove: impl Fn(&Path, &str) -> Result<()>) {
    // A missing directory has no entries.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| identity::is_orphan(name)) else { continue };
        let path = entry.path();
        match remove(&path, name) {
            Err(error) if path.exists() => eprintln!("warning: {error:#}"),
            Ok(()) | Err(_) => {}
        }
    }
}
