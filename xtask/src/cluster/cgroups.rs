//! The cgroups of the nodes. Each node is the root of its own cgroup namespace, so that its kubelet and its BPF programs reach
//! only this node's processes.
//!
//! Version 2 alone, version 1, and both together are supported. A version 1 hierarchy is mounted for each of its controllers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::addresses::Node;
use crate::files;

/// The beginning of the name of each cluster's cgroup. The process id of the command follows.
const PREFIX: &str = "portmap-cluster-";
/// The cgroup of a node's own programs. With version 2, kubelet can give controllers only to a cgroup without processes.
const PROGRAMS: &str = "init.scope";
/// The file with the controllers that version 2 enables for a cgroup's children.
const ENABLED: &str = "cgroup.subtree_control";
/// Time limit for the end of killed processes.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// A mounted cgroup hierarchy of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point.
    pub path: PathBuf,
    /// The mount options that select the hierarchy in version 1, such as `memory` or `none,name=systemd`; `None` for version 2.
    pub version_1: Option<String>,
}

/// All cgroup hierarchies of this machine. Fails without version 2, which BPF programs need.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
    let hierarchies = parse(&mounts);
    ensure!(hierarchies.iter().any(|hierarchy| hierarchy.version_1.is_none()), "no cgroup v2 hierarchy is mounted");
    Ok(hierarchies)
}

/// Parses lines such as `35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`. Leaves out mounts elsewhere.
fn parse(mounts: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let path = PathBuf::from(mount.split(' ').nth(4)?);
        let mut fields = source.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        match kind {
            "cgroup2" => Some(Hierarchy { path, version_1: None }),
            "cgroup" => Some(Hierarchy { path, version_1: Some(selection(options)) }),
            _ => None,
        }
    };
    mounts.lines().filter_map(parse).filter(|hierarchy| hierarchy.path.starts_with("/sys/fs/cgroup")).collect()
}

/// The options that select a hierarchy, of all options of its mount.
fn selection(options: &str) -> String {
    let is_general = |option: &str| matches!(option, "rw" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode");
    let chosen: Vec<_> = options.split(',').filter(|option| !is_general(option) && !option.contains("_agent")).collect();
    let chosen = chosen.join(",");
    // A hierarchy without controllers has only a name.
    if chosen.starts_with("name=") { format!("none,{chosen}") } else { chosen }
}

/// The cgroups of one cluster. Dropping this removes them; all their processes must have been killed.
#[derive(Debug)]
pub struct Cgroups {
    /// The name of the cluster's cgroup in each hierarchy.
    pub name: String,
    hierarchies: Vec<Hierarchy>,
    /// The controllers that were enabled at the root of version 2 for the cluster.
    enabled: Vec<String>,
}

impl Cgroups {
    /// Makes a cgroup for each node, and removes those of killed commands.
    pub fn create(nodes: &[Node]) -> Result<Self> {
        let name = format!("{PREFIX}{}", process::id());
        let mut cgroups = Self { name, hierarchies: hierarchies()?, enabled: Vec::new() };
        // Beside version 1, the controllers of version 2 are not needed.
        let is_alone = cgroups.hierarchies.iter().all(|hierarchy| hierarchy.version_1.is_none());
        for hierarchy in &cgroups.hierarchies {
            sweep(&hierarchy.path);
            let parent = hierarchy.path.join(&cgroups.name);
            if is_alone {
                cgroups.enabled = enable_controllers(&hierarchy.path)?;
            }
            hierarchy.make(&parent)?;
            if is_alone {
                enable_controllers(&parent)?;
            }
            for node in nodes {
                hierarchy.make(&parent.join(node.name()))?;
            }
        }
        Ok(cgroups)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            if let Err(error) = remove(&hierarchy.path.join(&self.name), REMOVAL_LIMIT) {
                eprintln!("{error:#}");
            }
            for controller in &self.enabled {
                // Another process may use the controller by now.
                write(&hierarchy.path.join(ENABLED), &format!("-{controller}")).ok();
            }
        }
    }
}

impl Hierarchy {
    /// Makes a cgroup that can take processes.
    fn make(&self, cgroup: &Path) -> Result<()> {
        files::create(cgroup)?;
        if self.version_1.as_deref() == Some("cpuset") {
            // A new cgroup of this controller has no processors and no memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = read(&cgroup.parent().unwrap_or(cgroup).join(file))?;
                write(&cgroup.join(file), value.trim())?;
            }
        }
        Ok(())
    }
}

/// Enables all controllers of version 2 for the cgroups in `cgroup`. Returns the controllers that were not enabled before.
fn enable_controllers(cgroup: &Path) -> Result<Vec<String>> {
    let (available, enabled) = (read(&cgroup.join("cgroup.controllers"))?, read(&cgroup.join(ENABLED))?);
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let missing = available.split_whitespace().filter(|controller| !enabled.contains(controller));
    missing
        .map(|controller| {
            write(&cgroup.join(ENABLED), &format!("+{controller}"))?;
            Ok(controller.to_owned())
        })
        .collect()
}

/// Moves this process to the cgroup of a node, which may then become the root of a new cgroup namespace.
pub fn join(cluster: &str, node: Node) -> Result<()> {
    hierarchies()?.iter().try_for_each(|hierarchy| {
        // 0 is the writing process.
        write(&hierarchy.path.join(cluster).join(node.name()).join("cgroup.procs"), "0")
    })
}

/// Moves this process to the cgroup of a node's own programs, below that of the node.
pub fn join_programs(cluster: &str, node: Node) -> Result<()> {
    let hierarchies = hierarchies()?;
    hierarchies.iter().filter(|hierarchy| hierarchy.version_1.is_none()).try_for_each(|hierarchy| {
        let cgroup = hierarchy.path.join(cluster).join(node.name()).join(PROGRAMS);
        files::create(&cgroup)?;
        write(&cgroup.join("cgroup.procs"), "0")
    })
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {text:?} to {}", file.display()))
}

/// Removes the cgroups of commands that have been killed.
fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // If processes are left, the next cluster tries again.
            remove(&entry.path(), Duration::ZERO).ok();
        }
    }
}

/// Removes a cgroup with all cgroups below it. Killed processes may still leave it, so this tries again until `limit`.
fn remove(cgroup: &Path, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match remove_once(cgroup) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

fn remove_once(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(cgroup).with_context(|| format!("failed to list {}", cgroup.display()))?;
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).try_for_each(|path| remove_once(&path))?;
    fs::remove_dir(cgroup).with_context(|| format!("failed to remove {}", cgroup.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mounts() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
                      50 23 0:38 / /mnt/elsewhere rw - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = parse(mounts).into_iter().map(|found| (found.path, found.version_1)).collect();
        let expected = [
            ("memory", Some("memory")),
            ("cpu,cpuacct", Some("cpu,cpuacct")),
            ("systemd", Some("none,name=systemd")),
            ("unified", None),
        ];
        let expected = expected.map(|(name, options)| (Path::new("/sys/fs/cgroup").join(name), options.map(str::to_owned)));
        assert_eq!(found, expected);
    }
}
