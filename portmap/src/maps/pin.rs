//! Where the maps and links live while no agent runs: `<--bpffs>/<abi version>/<set>/` on a BPF file system.
//!
//! Usually there is one set. A second one is made where the first cannot be used on: its maps have another size, or another
//! layout (ABI version). It is filled, then it takes the links over, and the first one goes: see `attach`.

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
pub(crate) use names::{LINK, PinDirectory};
use names::{NOTES, notes_directory, numbered};

use super::directory::{Directory, DirectoryEntry};

/// The directory of our pins, unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/portmap";

/// Where a BPF file system is usually mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// The pins of one set of maps, and of the links to the programs that read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    abi: u32,
    set: u32,
}

/// Whether a missing BPF file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// Where one is usually mounted.
    Allowed,
    /// Not at all.
    Forbidden,
}

impl Pins {
    /// The set in use under this directory, of this build's ABI version; the first one to be made if there is none.
    pub fn new(root: &Path) -> Self {
        Self::of_version(root, ABI_VERSION)
    }

    /// As [`Self::new`], of another ABI version.
    pub fn of_version(root: &Path, abi: u32) -> Self {
        let first = Self { root: root.to_owned(), abi, set: 0 };
        let sets: Vec<Self> = first.sets().into_iter().filter(|pins| pins.abi == abi).collect();
        // Of two, the later one was about to take over, and is complete.
        let in_use = sets.iter().rev().find(|pins| pins.has_links()).or_else(|| sets.last());
        in_use.cloned().unwrap_or(first)
    }

    /// As [`Self::of_version`], once it is certain that only root could have put there what is under the directory.
    pub fn find(root: &Path, abi: u32) -> Result<Self> {
        if let Some(root) = Directory::open(root)? {
            check_below(&root)?;
        }
        Ok(Self::of_version(root, abi))
    }

    /// A set that is not there yet.
    #[must_use]
    pub fn next(&self) -> Self {
        let last = self.sets().iter().filter(|pins| pins.abi == self.abi).map(|pins| pins.set).max();
        Self { set: last.map_or(0, |last| last + 1), ..self.clone() }
    }

    /// The other sets under the same directory, of whatever ABI version.
    pub fn others(&self) -> Result<Vec<Self>> {
        Ok(self.list_sets()?.into_iter().filter(|pins| pins != self).collect())
    }

    /// As [`Self::list_sets`], but what cannot be read is not there.
    fn sets(&self) -> Vec<Self> {
        self.list_sets().unwrap_or_default()
    }

    /// All sets under the directory, in order.
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

    /// The ABI version, and the number of the set.
    pub fn numbers(&self) -> (u32, u32) {
        (self.abi, self.set)
    }

    /// The directory given by `--bpffs`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the maps and links.
    pub fn set(&self) -> PathBuf {
        self.root.join(self.abi.to_string()).join(self.set.to_string())
    }

    /// The pin of a map. What sockets remember has a version, and a directory, of its own: it outlives the tables.
    pub fn map(&self, name: &str) -> PathBuf {
        if NOTES.contains(&name) { self.root.join(notes_directory()).join(name) } else { self.set().join(name) }
    }

    /// Whether a map is this set's own, and not kept for the next one.
    pub fn owns(name: &str) -> bool {
        !NOTES.contains(&name)
    }

    /// The pin of a program's link.
    pub fn link(&self, program: &str) -> PathBuf {
        self.set().join(format!("{LINK}{program}"))
    }

    /// Whether any program is attached through this set.
    pub fn has_links(&self) -> bool {
        let entries = Directory::open(&self.set()).ok().flatten().and_then(|set| set.entries().ok()).unwrap_or_default();
        entries.iter().any(|entry| matches!(entry, DirectoryEntry::Pin(name) if name.to_string_lossy().starts_with(LINK)))
    }

    /// Makes the directory of all sets, and mounts a BPF file system where one is usually mounted if there is none yet. Fails if
    /// somebody else than root could have put there what is under the directory.
    pub fn create_root(&self, mounting: Mounting) -> Result<()> {
        if mounting == Mounting::Allowed && self.root.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                .with_context(|| format!("failed to mount a BPF file system on {BPFFS}; as root: mount -t bpf bpf {BPFFS}"))?;
        }
        let root = Directory::create(&self.root)?;
        if root.close_to_others()? {
            tracing::info!("{} was open to other users: its mode is 0700 now", self.root.display());
        }
        check_below(&root)
    }

    /// Makes the directories of this set.
    pub fn create(&self) -> Result<()> {
        let root = Directory::create(&self.root)?;
        root.make(self.abi.to_string().as_ref())?.make(self.set.to_string().as_ref())?;
        root.make(notes_directory().as_ref()).map(drop)
    }

    /// Whether the directory of the pins exists.
    pub fn root_exists(&self) -> Result<bool> {
        Ok(Directory::open(&self.root)?.is_some())
    }

    /// Fails, and says what to do, where nothing of this version is pinned.
    pub fn expect(&self) -> Result<()> {
        if exists(&self.map("STATE"))? {
            return Ok(());
        }
        let root = self.root.display();
        if let Some(other) = self.sets().iter().find(|pins| pins.abi != self.abi && pins.has_links()) {
            bail!(
                "what is pinned under {root} is another version's (ABI {}, this is {}): look with that version's portmap, or let \
                 this one take over: portmap run",
                other.abi,
                self.abi
            );
        }
        bail!("nothing is pinned under {root}: no agent has run here; start one with: portmap run")
    }
}

/// Fails if somebody else could change a directory of the sets.
fn check_below(root: &Directory) -> Result<()> {
    for entry in root.entries()? {
        let DirectoryEntry::Directory(name) = entry else { continue };
        let Some(place) = PinDirectory::in_root(&name) else { continue };
        let Some(directory) = root.child(&name)? else { continue };
        if place == PinDirectory::Version {
            numbered(&directory)?.into_iter().try_for_each(|(_, set)| directory.child(&set).map(drop))?;
        }
    }
    Ok(())
}

/// Tells absence from lack of permission.
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
