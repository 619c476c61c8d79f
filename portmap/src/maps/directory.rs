//! Directories of pins, held open. A user who can change such a directory can change where connections go: each is checked before use.
//!
//! A directory passes if it is on a BPF file system, belongs to root or to this process's user, and cannot be written by others.
//! Its parents up to the root of the mount must belong to the same users. Others may write to a parent only if it is sticky: then
//! nobody but the owner renames or removes what is in it. So only root can put something else in the place of a directory that
//! passed, and paths below it are safe to use. What is removed is removed through the open directory, never by a path.

mod checks;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{File, Permissions},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat},
        statfs::{BPF_FS_MAGIC, fstatfs},
    },
    unistd::{UnlinkatFlags, unlinkat},
};

/// Every permission of the group and of others.
const SHARED: u32 = 0o077;

/// An open directory on a BPF file system that only root and this process's user can change.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: File,
}

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectoryEntry {
    /// A directory.
    Directory(OsString),
    /// A pinned object: on a BPF file system, every file but the kernel's own is one.
    Pin(OsString),
    /// A symbolic link, say.
    Other(OsString),
}

impl DirectoryEntry {
    /// Its name.
    pub fn name(&self) -> &OsStr {
        match self {
            Self::Directory(name) | Self::Pin(name) | Self::Other(name) => name,
        }
    }
}

impl Directory {
    /// Opens a directory. `None` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let Some(directory) = Self::look(&absolute(path)?)? else { return Ok(None) };
        ensure!(
            directory.is_on_bpffs()?,
            "nothing is pinned under {}: it is not on a BPF file system; give the directory of portmap's pins with --bpffs, or start an \
             agent with: portmap run",
            path.display()
        );
        directory.check()?;
        directory.check_parents()?;
        Ok(Some(directory))
    }

    /// Opens a directory, and makes it and its parents where they are missing.
    pub fn create(path: &Path) -> Result<Self> {
        let path = &absolute(path)?;
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            let Some(found) = Self::look(ancestor)? else {
                missing.push(ancestor.file_name().with_context(|| format!("{} has no name", ancestor.display()))?);
                continue;
            };
            ensure!(
                found.is_on_bpffs()?,
                "{} is not on a BPF file system; mount one there (mount -t bpf bpf /sys/fs/bpf), or give another directory with --bpffs",
                path.display()
            );
            if missing.is_empty() {
                found.check()?;
            } else {
                found.check_parent(&found.stat()?, path)?;
            }
            found.check_parents()?;
            return missing.into_iter().rev().try_fold(found, |parent, name| parent.make(name));
        }
        bail!("failed to create {}: none of its parents is there", path.display())
    }

    /// Opens a directory in this one. `None` if there is none.
    pub fn child(&self, name: &OsStr) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.file, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("failed to open {}", path.display())),
            Ok(file) => {
                let child = Self { path, file: file.into() };
                ensure!(child.is_on_bpffs()?, "{} is on another file system", child.path.display());
                child.check()?;
                Ok(Some(child))
            }
        }
    }

    /// Opens a directory in this one, and makes it if there is none.
    pub fn make(&self, name: &OsStr) -> Result<Self> {
        match mkdirat(&self.file, name, Mode::S_IRWXU) {
            // Whoever made it: it is checked.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("failed to create {}; run as root", self.path.join(name).display()));
            }
        }
        self.child(name)?.with_context(|| format!("{} was removed at once", self.path.join(name).display()))
    }

    /// Takes away every permission of other users. Returns whether there was one: whoever opens the directory could hold its lock.
    pub fn close_to_others(&self) -> Result<bool> {
        if self.stat()?.st_mode & SHARED == 0 {
            return Ok(false);
        }
        let closed = self.file.set_permissions(Permissions::from_mode(0o700));
        closed.with_context(|| format!("failed to close {} to other users; run as root", self.path.display()))?;
        Ok(true)
    }

    /// What is in it, in order.
    pub fn entries(&self) -> Result<BTreeSet<DirectoryEntry>> {
        let context = || format!("failed to list {}", self.path.display());
        // Opened anew: to list it moves a position, which clones of a descriptor share.
        let mut stream = Dir::openat(&self.file, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(context)?;
        let mut entries = BTreeSet::new();
        for entry in stream.iter() {
            let name = OsStr::from_bytes(entry.with_context(context)?.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            match fstatat(&self.file, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => drop(entries.insert(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFDIR => DirectoryEntry::Directory(name),
                    SFlag::S_IFREG => DirectoryEntry::Pin(name),
                    _ => DirectoryEntry::Other(name),
                })),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).with_context(context),
            }
        }
        Ok(entries)
    }

    /// Its path, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to an entry that leads through the open directory, wherever that is by now.
    pub fn through(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }

    /// The open directory.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Removes a pin.
    pub fn remove_pin(&self, name: &OsStr) -> Result<()> {
        let removed = unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir);
        removed.with_context(|| format!("failed to remove {}", self.path.join(name).display()))
    }

    /// Removes a directory in this one. False if it is not empty.
    pub fn remove_directory(&self, name: &OsStr) -> Result<bool> {
        match unlinkat(&self.file, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("failed to remove {}", self.path.join(name).display())),
        }
    }

    /// Removes this directory. False if it is not empty. The root of a mount is left.
    pub fn remove_itself(&self) -> Result<bool> {
        let parent = self.parent()?;
        let (own, above) = (self.stat()?, stat(&parent, &self.path)?);
        if own.st_dev != above.st_dev || own.st_ino == above.st_ino {
            return Ok(true);
        }
        let name =
            self.path.file_name().with_context(|| format!("failed to remove {}: it has no name", self.path.display()))?;
        let parent = Self { path: self.path.join(".."), file: parent.into() };
        let named = fstatat(&parent.file, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if named.is_ok_and(|named| named.st_ino == own.st_ino) { parent.remove_directory(name) } else { Ok(true) }
    }

    /// Opens a directory by its path, without any check. A symbolic link would let its owner choose another directory later.
    fn look(path: &Path) -> Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(AT_FDCWD, path, how) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file: file.into() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => {
                let target = path.canonicalize().map(|target| format!(" ({})", target.display())).unwrap_or_default();
                bail!(
                    "{} leads through a symbolic link, whose owner could change where connections go: give the directory itself{target} \
                     with --bpffs, or remove the link",
                    path.display()
                )
            }
            Err(errno) => Err(errno).with_context(|| format!("failed to open {}; run as root", path.display())),
        }
    }

    fn is_on_bpffs(&self) -> Result<bool> {
        let info = fstatfs(self.file.as_fd()).with_context(|| format!("failed to look at {}", self.path.display()))?;
        Ok(info.filesystem_type() == BPF_FS_MAGIC)
    }

    fn stat(&self) -> Result<FileStat> {
        stat(&self.file, &self.path)
    }

    fn parent(&self) -> Result<OwnedFd> {
        open_parent(&self.file, &self.path)
    }
}

/// With every parent in it. Links are not resolved.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path of a directory", path.display()))
}

fn open_parent(directory: impl std::os::fd::AsFd, path: &Path) -> Result<OwnedFd> {
    let opened = openat(directory, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    opened.with_context(|| format!("failed to open the parent of {}", path.display()))
}

fn stat(directory: impl std::os::fd::AsFd, path: &Path) -> Result<FileStat> {
    fstat(directory).with_context(|| format!("failed to look at {}", path.display()))
}
