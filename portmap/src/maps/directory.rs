//! Open directories of pins. A user who can change such a directory can redirect connections, so each directory is checked
//! before use.
//!
//! The directory must be on a BPF file system, belong to root or to the user of this process, and not be writable by others.
//! Its parents, up to the root of the mount, must belong to the same users. A parent may be writable by others only if it is
//! sticky: then only the owner of an entry, or of the parent, renames or removes the entry. So only these users can replace a
//! checked directory, and paths below it are safe to use. Entries are removed through the open directory, never by a path.

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

/// All permissions of the group and of others.
const SHARED: u32 = 0o077;

/// An open directory on a BPF file system. Only root and the user of this process can change it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: File,
}

/// An entry of a directory, with its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectoryEntry {
    /// A subdirectory.
    Directory(OsString),
    /// A regular file. On a BPF file system, every file is a pinned object, except two files of the kernel.
    Pin(OsString),
    /// An entry of another type, such as a symbolic link.
    Other(OsString),
}

impl DirectoryEntry {
    /// The name of the entry.
    pub fn name(&self) -> &OsStr {
        match self {
            Self::Directory(name) | Self::Pin(name) | Self::Other(name) => name,
        }
    }
}

impl Directory {
    /// Opens and checks a directory; `None` if it does not exist. Fails if it is not on a BPF file system, or does not pass the
    /// checks.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let Some(directory) = Self::open_unchecked(&absolute(path)?)? else { return Ok(None) };
        ensure!(
            directory.is_on_bpffs()?,
            "nothing is pinned under {}: this directory is not on a BPF file system; give the directory of the pins with \
             --bpffs, or start an agent with: portmap run",
            path.display()
        );
        directory.check()?;
        directory.check_parents()?;
        Ok(Some(directory))
    }

    /// Opens and checks a directory. Makes the directory and its parents where they are missing.
    pub fn create(path: &Path) -> Result<Self> {
        let path = &absolute(path)?;
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            let Some(found) = Self::open_unchecked(ancestor)? else {
                missing
                    .push(ancestor.file_name().with_context(|| format!("the path {} has no last name", ancestor.display()))?);
                continue;
            };
            ensure!(
                found.is_on_bpffs()?,
                "{} is not on a BPF file system; mount one there (mount -t bpf bpf /sys/fs/bpf), or give another directory \
                 with --bpffs",
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
        bail!("failed to create {}: none of its parents exists", path.display())
    }

    /// Opens and checks a subdirectory; `None` if it does not exist.
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

    /// Opens and checks a subdirectory. Makes it, for its owner alone, if it does not exist.
    pub fn make(&self, name: &OsStr) -> Result<Self> {
        match mkdirat(&self.file, name, Mode::S_IRWXU) {
            // An existing directory is accepted, because `child` checks it.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("failed to create {}; run as root", self.path.join(name).display()));
            }
        }
        self.child(name)?
            .with_context(|| format!("failed to open {}: another process removed it just now", self.path.join(name).display()))
    }

    /// Sets the mode to 0700, if the group or others have any permission: a user who can open the directory can hold its lock.
    /// Returns whether there were such permissions.
    pub fn close_to_others(&self) -> Result<bool> {
        if self.stat()?.st_mode & SHARED == 0 {
            return Ok(false);
        }
        let closed = self.file.set_permissions(Permissions::from_mode(0o700));
        closed.with_context(|| format!("failed to close {} to other users; run as root", self.path.display()))?;
        Ok(true)
    }

    /// The entries of the directory, sorted by type and name. An entry that is removed during the call may be missing.
    pub fn entries(&self) -> Result<BTreeSet<DirectoryEntry>> {
        let context = || format!("failed to list {}", self.path.display());
        // Opened again, because clones of a descriptor share the position that a listing moves.
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

    /// The path that the directory was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to an entry through the open descriptor, for this process while `self` is open. It stays valid if the directory
    /// is moved.
    pub fn path_by_descriptor(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }

    /// The open directory as a file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Removes a pin from this directory.
    pub fn remove_pin(&self, name: &OsStr) -> Result<()> {
        let removed = unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir);
        removed.with_context(|| format!("failed to remove {}", self.path.join(name).display()))
    }

    /// Removes a subdirectory. False if it is not empty; true if it does not exist any more.
    pub fn remove_directory(&self, name: &OsStr) -> Result<bool> {
        match unlinkat(&self.file, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("failed to remove {}", self.path.join(name).display())),
        }
    }

    /// Removes this directory from its parent. False if it is not empty. Does nothing, and returns true, for the root of a
    /// mount, or if the path does not lead to this directory any more.
    pub fn remove_itself(&self) -> Result<bool> {
        let parent = self.parent()?;
        let (own, above) = (self.stat()?, stat(&parent, &self.path)?);
        if own.st_dev != above.st_dev || own.st_ino == above.st_ino {
            return Ok(true);
        }
        let name = self
            .path
            .file_name()
            .with_context(|| format!("failed to remove {}: the path has no last name", self.path.display()))?;
        let parent = Self { path: self.path.join(".."), file: parent.into() };
        let named = fstatat(&parent.file, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if named.is_ok_and(|named| named.st_ino == own.st_ino) { parent.remove_directory(name) } else { Ok(true) }
    }

    /// Opens a directory by its path without checks; `None` if it does not exist.
    ///
    /// Fails if the path contains a symbolic link: the owner of the link could make it point to another directory later.
    fn open_unchecked(path: &Path) -> Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(AT_FDCWD, path, how) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file: file.into() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => {
                let target = path.canonicalize().map(|target| format!(" ({})", target.display())).unwrap_or_default();
                bail!(
                    "{} contains a symbolic link, and the owner of the link could redirect connections; give the directory \
                     itself{target} with --bpffs, or remove the link",
                    path.display()
                )
            }
            Err(errno) => Err(errno).with_context(|| format!("failed to open {}; run as root", path.display())),
        }
    }

    fn is_on_bpffs(&self) -> Result<bool> {
        let info =
            fstatfs(self.file.as_fd()).with_context(|| format!("failed to stat the file system of {}", self.path.display()))?;
        Ok(info.filesystem_type() == BPF_FS_MAGIC)
    }

    fn stat(&self) -> Result<FileStat> {
        stat(&self.file, &self.path)
    }

    fn parent(&self) -> Result<OwnedFd> {
        open_parent(&self.file, &self.path)
    }
}

/// The path with all its parents. Symbolic links are not resolved.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is not the path of a directory", path.display()))
}

fn open_parent(directory: impl std::os::fd::AsFd, path: &Path) -> Result<OwnedFd> {
    let opened = openat(directory, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    opened.with_context(|| format!("failed to open the parent of {}", path.display()))
}

fn stat(directory: impl std::os::fd::AsFd, path: &Path) -> Result<FileStat> {
    fstat(directory).with_context(|| format!("failed to stat {}", path.display()))
}
