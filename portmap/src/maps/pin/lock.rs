//! The locks of the agent on directories. Only the agent that holds the lock on the directory of all sets writes to the maps.
//! While it is synced, the agent also holds the lock on the directory of its set. The end of the process ends both.

use std::{
    error::Error,
    fmt,
    fs::File,
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
