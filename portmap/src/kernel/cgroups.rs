//! The paths of cgroups, by the ids that BPF programs see.

use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    os::unix::fs::DirEntryExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The shortest time between two searches of the hierarchy.
const PAUSE: Duration = Duration::from_secs(1);

/// The paths of a hierarchy's cgroups. A cgroup that is removed keeps its last path.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    paths: HashMap<u64, PathBuf>,
    searched: Option<Instant>,
}

impl Cgroups {
    /// The hierarchy whose root is mounted in this directory. Searches nothing yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), paths: HashMap::new(), searched: None }
    }

    /// The path of a cgroup, relative to the root. The id is the inode number of its directory. `None` if a search does not find
    /// it; there is at most one search per second.
    pub fn path(&mut self, id: u64) -> Option<&Path> {
        if !self.paths.contains_key(&id) && self.searched.is_none_or(|searched| searched.elapsed() >= PAUSE) {
            self.searched = Some(Instant::now());
            let root = self.root.clone();
            self.search(&root);
        }
        self.paths.get(&id).map(PathBuf::as_path)
    }

    /// Adds all directories below this one. A directory that is removed meanwhile is left out.
    fn search(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten().filter(is_directory) {
            let path = entry.path();
            let relative = path.strip_prefix(&self.root).unwrap_or(&path);
            self.paths.insert(entry.ino(), relative.to_owned());
            self.search(&path);
        }
    }
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn directories_are_found_by_their_inode_numbers() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let inner = root.path().join("kubepods.slice/inner");
        fs::create_dir_all(&inner)?;
        let id = fs::metadata(&inner)?.ino();
        let mut cgroups = Cgroups::new(root.path());
        assert_eq!(cgroups.path(id), Some(Path::new("kubepods.slice/inner")));
        assert_eq!(cgroups.path(id + 1_000_000), None);
        fs::remove_dir(&inner)?;
        assert_eq!(cgroups.path(id), Some(Path::new("kubepods.slice/inner")));
        Ok(())
    }
}
