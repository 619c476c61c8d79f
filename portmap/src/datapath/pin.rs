//! Where the maps and links live while no agent runs: `<--bpffs>/<abi version>/<set>/` on a BPF file system.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
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

/// The only set of maps so far. A resize will need two at a time.
const SET: &str = "0";

/// Prefix of the links' names, so that they are told from the maps.
const LINK: &str = "link_";

/// The maps of what sockets remember.
const NOTES: [&str; 2] = ["SOCKETS", "DATAGRAMS"];

/// The pins of one agent.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// Held by the one agent that writes. Released when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Pins {
    /// The pins under this directory, whether they exist or not.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory given by `--bpffs`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the maps and links.
    pub fn set(&self) -> PathBuf {
        self.root.join(ABI_VERSION.to_string()).join(SET)
    }

    /// The pin of a map. What sockets remember has a version, and a directory, of its own: it outlives the tables.
    pub fn map(&self, name: &str) -> PathBuf {
        if NOTES.contains(&name) {
            self.root.join(format!("sockets-{SOCKETS_VERSION}")).join(name)
        } else {
            self.set().join(name)
        }
    }

    /// The pin of a program's link.
    pub fn link(&self, program: &str) -> PathBuf {
        self.set().join(format!("{LINK}{program}"))
    }

    /// Makes the directories, and mounts a BPF file system where one is usually mounted if there is none yet.
    pub fn create(&self) -> Result<()> {
        if self.root.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("failed to mount a BPF file system on {BPFFS}; as root: mount -t bpf bpf {BPFFS}"))?;
        }
        ensure!(
            self.root.ancestors().find(|directory| directory.exists()).is_some_and(is_bpffs),
            "{} is not on a BPF file system; mount one there, or give another directory with --bpffs",
            self.root.display()
        );
        let directories = [Some(self.set()), self.map(NOTES[0]).parent().map(Path::to_owned)];
        for directory in directories.into_iter().flatten() {
            fs::create_dir_all(&directory).with_context(|| format!("failed to create {}; run as root", directory.display()))?;
        }
        Ok(())
    }

    /// Whether the directory of the pins exists.
    pub fn root_exists(&self) -> Result<bool> {
        exists(&self.root)
    }

    /// Fails, and says what to do, where nothing of this version is pinned.
    pub fn expect(&self) -> Result<()> {
        if exists(&self.set().join("STATE"))? {
            return Ok(());
        }
        bail!("nothing is pinned under {}: no agent has run here; start one with: portmap run", self.root.display())
    }

    /// Becomes the one that writes; `None` if another process is.
    pub fn lock(&self) -> Result<Option<Lock>> {
        let directory = File::open(&self.root).with_context(|| format!("failed to open {}", self.root.display()))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", self.root.display())),
        }
    }

    /// Everything pinned, links before maps: the order in which to remove it.
    pub fn list(&self) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        walk(&self.root, &mut |path, is_directory| {
            let is_link = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK));
            if !is_directory {
                pins.push(if is_link { Pin::Link(path) } else { Pin::Map(path) });
            }
        })?;
        pins.sort();
        Ok(pins)
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
