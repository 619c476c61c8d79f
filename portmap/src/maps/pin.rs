//! The directories of the pinned maps and links on a BPF file system: `<--bpffs>/<abi version>/<set>/`. Pinned objects outlive
//! the agent.
//!
//! Usually there is one set. An agent makes a second set if the maps of the first one have another capacity, another type or
//! other flags, or another layout (ABI version). It fills the second set, moves the links to it, and removes the first set.
//! `datapath::attach` moves the links, `datapath::removal` removes sets, and `directory` checks each directory before it is
//! used.

mod lock;
mod names;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use portmap_common::ABI_VERSION;

pub use lock::{Lock, Missing};
use names::numbered;
pub(crate) use names::{LINK, PinDirectory, SharedMaps};

use super::directory::{Directory, DirectoryEntry};

/// Default of `--bpffs`: the directory of all sets.
pub const DEFAULT: &str = "/sys/fs/bpf/portmap";

/// The usual mount point of a BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// The paths of one set: its maps, and the links of the programs that read them. The set need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    abi: u32,
    set: u32,
}

/// Whether the agent may mount a missing BPF file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// Mount a BPF file system on `/sys/fs/bpf`, if `--bpffs` is this path or below it.
    Allowed,
    /// Never mount a file system.
    Forbidden,
}

impl Pins {
    /// The set in use under this directory, of the ABI version of this build: the last set with links, else the last set.
    /// Without a set, or if a directory cannot be read: the set with the number 0, which may not exist.
    pub fn new(root: &Path) -> Self {
        Self::of_version(root, ABI_VERSION)
    }

    /// As [`Self::new`], of the given ABI version.
    pub fn of_version(root: &Path, abi: u32) -> Self {
        let first = Self { root: root.to_owned(), abi, set: 0 };
        let sets: Vec<Self> = first.sets().into_iter().filter(|pins| pins.abi == abi).collect();
        // If two sets have links, the later one is complete: an agent was moving the links to it.
        let in_use = sets.iter().rev().find(|pins| pins.has_links()).or_else(|| sets.last());
        in_use.cloned().unwrap_or(first)
    }

    /// As [`Self::of_version`]. Fails if a user other than root and the user of this process can change the directories of
    /// the sets.
    pub fn find(root: &Path, abi: u32) -> Result<Self> {
        if let Some(root) = Directory::open(root)? {
            check_below(&root)?;
        }
        Ok(Self::of_version(root, abi))
    }

    /// A new set of the same ABI version: its number is one above the last set's, or 0 without a set.
    #[must_use]
    pub fn next(&self) -> Self {
        let last = self.sets().iter().filter(|pins| pins.abi == self.abi).map(|pins| pins.set).max();
        Self { set: last.map_or(0, |last| last + 1), ..self.clone() }
    }

    /// The other sets under the same directory, of all ABI versions.
    pub fn others(&self) -> Result<Vec<Self>> {
        Ok(self.list_sets()?.into_iter().filter(|pins| pins != self).collect())
    }

    /// As [`Self::list_sets`]; empty if a directory cannot be read.
    fn sets(&self) -> Vec<Self> {
        self.list_sets().unwrap_or_default()
    }

    /// All sets under the directory, ordered by ABI version and number.
    fn list_sets(&self) -> Result<Vec<Self>> {
        let Some(root) = Directory::open(&self.root)? else { return Ok(Vec::new()) };
        let mut sets = Vec::new();
        for (abi, name) in numbered(&root)? {
            if let Some(version) = root.child(&name)? {
                sets.extend(numbered(&version)?.into_iter().map(|(set, _)| Self { root: self.root.clone(), abi, set }));
            }
        }
        Ok(sets)
    }

    /// The set in use now: see [`Self::new`]. An agent may have replaced the set since this value was made.
    #[must_use]
    pub fn in_use(&self) -> Self {
        Self::of_version(&self.root, self.abi)
    }

    /// The ABI version and the number of the set.
    pub fn numbers(&self) -> (u32, u32) {
        (self.abi, self.set)
    }

    /// The directory of all sets, given by `--bpffs`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of this set's maps and links.
    pub fn set(&self) -> PathBuf {
        self.root.join(self.abi.to_string()).join(self.set.to_string())
    }

    /// The path of a map's pin. The maps about sockets and flows are in directories of their own, because both outlive a set.
    pub fn map(&self, name: &str) -> PathBuf {
        let directory = SharedMaps::of_map(name).map_or_else(|| self.set(), |shared| self.root.join(shared.directory()));
        directory.join(name)
    }

    /// Whether each set has its own map of this name. All sets share the maps about sockets and flows.
    pub fn owns(name: &str) -> bool {
        SharedMaps::of_map(name).is_none()
    }

    /// The path of the pin of a program's link.
    pub fn link(&self, program: &str) -> PathBuf {
        self.set().join(format!("{LINK}{program}"))
    }

    /// Whether this set has a pinned link: its programs are attached. False if the directory cannot be read.
    pub fn has_links(&self) -> bool {
        let entries = Directory::open(&self.set()).ok().flatten().and_then(|set| set.entries().ok()).unwrap_or_default();
        entries.iter().any(|entry| matches!(entry, DirectoryEntry::Pin(name) if name.to_string_lossy().starts_with(LINK)))
    }

    /// Makes the directory of all sets, and closes it to other users. If `mounting` allows it and `/sys/fs/bpf` has no BPF
    /// file system, mounts one there first.
    ///
    /// Fails if a user other than root and the user of this process can change the directories of the sets.
    pub fn create_root(&self, mounting: Mounting) -> Result<()> {
        if mounting == Mounting::Allowed && self.root.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                .with_context(|| format!("failed to mount a BPF file system on {BPFFS}; as root: mount -t bpf bpf {BPFFS}"))?;
        }
        let root = Directory::create(&self.root)?;
        if root.close_to_others()? {
            tracing::info!("closed {} to other users: its mode is 0700 now", self.root.display());
        }
        check_below(&root)
    }

    /// Makes the directory of this set, and the directories of the maps that all sets share.
    pub fn create(&self) -> Result<()> {
        let root = Directory::create(&self.root)?;
        root.make(self.abi.to_string().as_ref())?.make(self.set.to_string().as_ref())?;
        SharedMaps::ALL.iter().try_for_each(|shared| root.make(shared.directory().as_ref()).map(drop))
    }

    /// Whether the directory of all sets exists.
    pub fn root_exists(&self) -> Result<bool> {
        Ok(Directory::open(&self.root)?.is_some())
    }

    /// Fails if this set is not pinned. The error names the next step: to start an agent, or to use the other version's
    /// command.
    pub fn expect(&self) -> Result<()> {
        if exists(&self.map("STATE"))? {
            return Ok(());
        }
        let root = self.root.display();
        if let Some(other) = self.sets().iter().find(|pins| pins.abi != self.abi && pins.has_links()) {
            bail!(
                "the maps under {root} belong to another version of portmap (their ABI version is {}, that of this build is \
                 {}); use the portmap command of that version, or start an agent of this version: portmap run",
                other.abi,
                self.abi
            );
        }
        bail!("nothing is pinned under {root}: no agent has run on this node; start an agent with: portmap run")
    }
}

/// Fails if a user other than root and the user of this process can change a directory below the directory of all sets.
fn check_below(root: &Directory) -> Result<()> {
    for entry in root.entries()? {
        let DirectoryEntry::Directory(name) = entry else { continue };
        let Some(kind) = PinDirectory::in_root(&name) else { continue };
        let Some(directory) = root.child(&name)? else { continue };
        if kind == PinDirectory::Version {
            numbered(&directory)?.into_iter().try_for_each(|(_, set)| directory.child(&set).map(drop))?;
        }
    }
    Ok(())
}

/// Whether a file exists. Fails without the permission to see it.
fn exists(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to look at {}; run as root", path.display())),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC)
}
