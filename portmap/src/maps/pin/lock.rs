//! The lock on the directory of all sets: only the agent that holds it writes to the maps.

use std::{error::Error, fmt, fs::File, os::unix::fs::MetadataExt as _, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::Pins;
use crate::maps::directory::Directory;

/// Number of attempts to get the lock. A subcommand that checks for an agent holds a shared lock for a moment.
const ATTEMPTS: u32 = 5;

/// Time between two attempts to get the lock.
const PAUSE: Duration = Duration::from_millis(10);

/// The exclusive lock of the agent that writes. The kernel releases it when the process ends, also after a crash.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// Error: the directory of all sets does not exist, so it cannot be locked.
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
            if let Some(lock) = self.try_lock(FlockArg::LockExclusiveNonblock)? {
                return Ok(Some(lock));
            }
            thread::sleep(PAUSE);
        }
        self.try_lock(FlockArg::LockExclusiveNonblock)
    }

    /// Whether another process holds the exclusive lock, as a running agent does. Fails with [`Missing`] if the directory of
    /// all sets does not exist.
    pub fn is_locked(&self) -> Result<bool> {
        // A shared lock: several subcommands can check at the same time.
        Ok(self.try_lock(FlockArg::LockSharedNonblock)?.is_none())
    }

    fn try_lock(&self, kind: FlockArg) -> Result<Option<Lock>> {
        match Flock::lock(self.open_root()?, kind) {
            Ok(file) => Ok(Some(Lock { file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", self.root.display())),
        }
    }

    /// Takes the lock as soon as no other process holds it. Blocks until then. Fails with [`Missing`] if the directory of
    /// all sets does not exist.
    pub fn wait_for_lock(&self) -> Result<Lock> {
        let locked = Flock::lock(self.open_root()?, FlockArg::LockExclusive);
        let file = locked.map_err(|(_, error)| error).with_context(|| format!("failed to lock {}", self.root.display()))?;
        Ok(Lock { file })
    }

    fn open_root(&self) -> Result<File> {
        let root = Directory::open(&self.root)?.ok_or_else(|| Missing(self.root.clone()))?;
        Ok(root.into_file())
    }
}
