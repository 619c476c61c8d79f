//! Where the maps and links live while no agent runs: `<--bpffs>/<abi version>/<set>/` on a BPF file system.
//!
//! Usually there is one set. A second one is made where the first cannot be used on: its maps have another size, or another
//! layout (ABI version). It is filled, then it takes the links over, and the first one goes: see `attach`.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use portmap_common::{ABI_VERSION, SOCKETS_VERSION};

/// The directory of our pins, unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/portmap";

/// Where a BPF file system is usually mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// Prefix of the links' names, so that they are told from the maps.
const LINK: &str = "link_";

/// The maps that what sockets remember depends on. They outlive the tables.
const NOTES: [&str; 3] = ["SOCKETS", "DATAGRAMS", "NUMBERS"];

/// How often a lock is asked for before another process is said to hold it: whoever asks who writes holds it for a moment.
const TRIES: u32 = 5;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(10);

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

/// Held by the one agent that writes. Released when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
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

    /// A set that is not there yet.
    #[must_use]
    pub fn next(&self) -> Self {
        let last = self.sets().iter().filter(|pins| pins.abi == self.abi).map(|pins| pins.set).max();
        Self { set: last.map_or(0, |last| last + 1), ..self.clone() }
    }

    /// The other sets under the same directory, of whatever ABI version.
    pub fn others(&self) -> Vec<Self> {
        self.sets().into_iter().filter(|pins| pins != self).collect()
    }

    /// All sets under the directory, in order. What cannot be read is not there.
    fn sets(&self) -> Vec<Self> {
        let mut sets = Vec::new();
        for (abi, directory) in numbered(&self.root) {
            sets.extend(numbered(&directory).into_iter().map(|(set, _)| Self { root: self.root.clone(), abi, set }));
        }
        sets
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
        if NOTES.contains(&name) {
            self.root.join(format!("sockets-{SOCKETS_VERSION}")).join(name)
        } else {
            self.set().join(name)
        }
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
        read_dir(&self.set()).is_ok_and(|entries| entries.iter().any(|path| is_link(path)))
    }

    /// Makes the directory of all sets, and mounts a BPF file system where one is usually mounted if there is none yet.
    pub fn create_root(&self, mounting: Mounting) -> Result<()> {
        if mounting == Mounting::Allowed && self.root.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("failed to mount a BPF file system on {BPFFS}; as root: mount -t bpf bpf {BPFFS}"))?;
        }
        ensure!(
            self.root.ancestors().find(|directory| directory.exists()).is_some_and(is_bpffs),
            "{} is not on a BPF file system; mount one there (mount -t bpf bpf {BPFFS}), or give another directory with --bpffs",
            self.root.display()
        );
        create_dir(&self.root)
    }

    /// Makes the directories of this set.
    pub fn create(&self) -> Result<()> {
        create_dir(&self.set())?;
        self.map(NOTES[0]).parent().map_or(Ok(()), create_dir)
    }

    /// Whether the directory of the pins exists.
    pub fn root_exists(&self) -> Result<bool> {
        exists(&self.root)
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

    /// Becomes the one that writes; `None` if another process is.
    pub fn lock(&self) -> Result<Option<Lock>> {
        for _ in 1..TRIES {
            if let Some(lock) = self.try_lock(FlockArg::LockExclusiveNonblock)? {
                return Ok(Some(lock));
            }
            thread::sleep(PAUSE);
        }
        self.try_lock(FlockArg::LockExclusiveNonblock)
    }

    /// Whether a process writes.
    pub fn is_locked(&self) -> Result<bool> {
        // Those who only ask do not stand in one another's way.
        Ok(self.try_lock(FlockArg::LockSharedNonblock)?.is_none())
    }

    fn try_lock(&self, kind: FlockArg) -> Result<Option<Lock>> {
        match Flock::lock(self.open_root()?, kind) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", self.root.display())),
        }
    }

    /// Becomes the one that writes, as soon as no other process is. Blocks.
    pub fn wait_for_lock(&self) -> Result<Lock> {
        let locked = Flock::lock(self.open_root()?, FlockArg::LockExclusive);
        let file = locked.map_err(|(_, error)| error).with_context(|| format!("failed to lock {}", self.root.display()))?;
        Ok(Lock { _file: file })
    }

    fn open_root(&self) -> Result<File> {
        File::open(&self.root).with_context(|| format!("failed to open {}; run as root", self.root.display()))
    }

    /// Everything pinned in this set, links before maps: the order in which to remove it.
    pub fn list(&self) -> Result<Vec<Pin>> {
        list(&self.set())
    }

    /// Everything pinned under the directory, whichever set's, in the same order.
    pub fn list_all(&self) -> Result<Vec<Pin>> {
        list(&self.root)
    }

    /// The directories to remove once they are empty, inner before outer.
    pub fn directories(&self) -> Result<Vec<PathBuf>> {
        let mut directories = vec![self.root.clone()];
        walk(&self.root, &mut |path, is_directory| {
            if is_directory {
                directories.push(path);
            }
        })?;
        directories.sort();
        directories.reverse();
        Ok(directories)
    }
}

/// For nobody but the owner: who may open a map may change where connections go.
fn create_dir(directory: &Path) -> Result<()> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    created.with_context(|| format!("failed to create {}; run as root", directory.display()))
}

fn list(directory: &Path) -> Result<Vec<Pin>> {
    let mut pins = Vec::new();
    walk(directory, &mut |path, is_directory| {
        if !is_directory {
            pins.push(if is_link(&path) { Pin::Link(path) } else { Pin::Map(path) });
        }
    })?;
    pins.sort();
    Ok(pins)
}

/// The subdirectories whose name is a number, in the order of the numbers.
fn numbered(directory: &Path) -> Vec<(u32, PathBuf)> {
    let entries = read_dir(directory).unwrap_or_default().into_iter();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let mut numbered: Vec<(u32, PathBuf)> = entries.filter_map(|path| Some((number(&path)?, path))).collect();
    numbered.sort();
    numbered
}

/// Visits everything below a directory, what is in a directory before the directory itself.
fn walk(directory: &Path, visit: &mut impl FnMut(PathBuf, bool)) -> Result<()> {
    for path in read_dir(directory)? {
        let is_directory = path.is_dir();
        if is_directory {
            walk(&path, visit)?;
        }
        visit(path, is_directory);
    }
    Ok(())
}

/// Something pinned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// What keeps a program attached.
    Link(PathBuf),
    /// A map.
    Map(PathBuf),
}

fn is_link(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK))
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

fn read_dir(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("failed to list {}", path.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        entries.push(entry.with_context(context)?.path());
    }
    entries.sort();
    Ok(entries)
}
