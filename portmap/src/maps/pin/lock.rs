//! The locks of the agent on directories. Only the agent that holds the lock on the directory of all sets writes to the maps.
//! While it is synced, the agent also holds the lock on the directory of its set. The end of the process ends both.

use std::{
    error::Error,
    fmt,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::{Pins, SharedMaps};
use crate::maps::directory::Directory;

/// Number of attempts to get the lock. A subcommand that checks for an agent holds a shared lock for a moment.
const ATTEMPTS: u32 = 5;

/// The kernel's list of all locks on files.
const LOCKS: &str = "/proc/locks";

/// Time between two attempts to get the lock.
const PAUSE: Duration = Duration::from_millis(10);

/// An exclusive lock on a directory. The kernel releases it when the process ends, also after a crash.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// Error: a directory does not exist, so it cannot be locked.
#[derive(Debug)]
pub struct Missing(PathBuf);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the directory {} does not exist", self.0.display())
    }
}

impl Error for Missing {}

impl Lock {
    /// Whether the locked directory still exists. After its removal, another process may hold the lock of a new directory of
    /// this name.
    pub fn is_in_force(&self) -> Result<bool> {
        Ok(self.file.metadata().context("failed to stat the locked directory")?.nlink() > 0)
    }
}

impl Pins {
    /// Takes the lock; `None` if another process holds it. Blocks for about 40 ms at most. Fails with [`Missing`] if the
    /// directory of all sets does not exist.
    pub fn lock(&self) -> Result<Option<Lock>> {
        for _ in 1..ATTEMPTS {
            if let Some(lock) = try_lock(&self.root, FlockArg::LockExclusiveNonblock)? {
                return Ok(Some(lock));
            }
            thread::sleep(PAUSE);
        }
        try_lock(&self.root, FlockArg::LockExclusiveNonblock)
    }

    /// Whether another process holds the exclusive lock, as a running agent does. Fails with [`Missing`] if the directory of
    /// all sets does not exist.
    pub fn is_locked(&self) -> Result<bool> {
        // A shared lock: several subcommands can check at the same time.
        Ok(try_lock(&self.root, FlockArg::LockSharedNonblock)?.is_none())
    }

    /// The process that holds the exclusive lock: the running agent. `None` without an agent, or if its process is in a PID
    /// namespace that this process does not see.
    ///
    /// The number in STATE would not do: it is that of the agent's own PID namespace, and may be of another process here.
    pub fn holder(&self) -> Result<Option<u32>> {
        let metadata = open(&self.root)?.metadata().context("failed to stat the directory of all sets")?;
        let locks = fs::read_to_string(LOCKS).with_context(|| format!("failed to read {LOCKS}"))?;
        Ok(holder(&locks, metadata.dev(), metadata.ino()))
    }

    /// Takes the lock as soon as no other process holds it. Blocks until then. Fails with [`Missing`] if the directory of
    /// all sets does not exist.
    pub fn wait_for_lock(&self) -> Result<Lock> {
        wait_for_lock(&self.root)
    }

    /// Marks this set as synced, until the lock is dropped or the process ends. Only the agent that holds the lock of
    /// [`Self::lock`] may call this.
    pub fn mark_synced(&self) -> Result<Lock> {
        // Only subcommands that look at the mark hold this lock, each for a moment.
        wait_for_lock(&self.set())
    }

    /// Takes the lock of `portmap trace`; `None` if another process holds it. Fails with [`Missing`] without maps for traces.
    pub fn lock_trace(&self) -> Result<Option<Lock>> {
        try_lock(&self.root.join(SharedMaps::Trace.directory()), FlockArg::LockExclusiveNonblock)
    }

    /// Whether an agent runs that has written its desired table to this set.
    pub fn is_synced(&self) -> Result<bool> {
        Ok(try_lock(&self.set(), FlockArg::LockSharedNonblock)?.is_none())
    }
}

/// Takes a lock on a directory; `None` if another process holds one that excludes it.
fn try_lock(directory: &Path, kind: FlockArg) -> Result<Option<Lock>> {
    match Flock::lock(open(directory)?, kind) {
        Ok(file) => Ok(Some(Lock { file })),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", directory.display())),
    }
}

/// Takes the exclusive lock on a directory as soon as no other process holds one.
fn wait_for_lock(directory: &Path) -> Result<Lock> {
    let locked = Flock::lock(open(directory)?, FlockArg::LockExclusive);
    let file = locked.map_err(|(_, error)| error).with_context(|| format!("failed to lock {}", directory.display()))?;
    Ok(Lock { file })
}

fn open(directory: &Path) -> Result<File> {
    let opened = Directory::open(directory)?.ok_or_else(|| Missing(directory.to_owned()))?;
    Ok(opened.into_file())
}

/// The process with an exclusive lock (`flock`) on the file with this device and inode, by the lines of `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 6647 fe:00:5824597 0 EOF`. The kernel writes the process 0 or less, or no line, for a process that
/// the reader's PID namespace does not have.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let [kind, _, access, process, locked] = std::array::from_fn(|_| words.next().unwrap_or_default());
        let is_own = (kind, access, locked) == ("FLOCK", "WRITE", file.as_str());
        process.parse().ok().filter(|process| is_own && *process > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_the_process_with_an_exclusive_lock_on_the_file() {
        const LOCKS: &str = "1: FLOCK  ADVISORY  READ 11 00:2d:7 0 EOF\n2: POSIX  ADVISORY  WRITE 12 00:2d:7 0 EOF\n\
                             3: -> FLOCK  ADVISORY  WRITE 13 00:2d:7 0 EOF\n4: FLOCK  ADVISORY  WRITE 14 00:2d:7 0 EOF\n\
                             5: FLOCK  ADVISORY  WRITE 0 00:2d:8 0 EOF\n";
        let device = nix::sys::stat::makedev(0, 0x2d);
        assert_eq!(holder(LOCKS, device, 7), Some(14));
        assert_eq!(holder(LOCKS, device, 8), None, "a process of another PID namespace");
        assert_eq!(holder(LOCKS, device, 9), None);
        assert_eq!(holder("", device, 7), None);
    }
}
