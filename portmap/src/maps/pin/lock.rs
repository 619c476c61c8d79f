//! The lock on the directory of all sets: one agent writes.

use std::{error::Error, fmt, fs::File, os::unix::fs::MetadataExt as _, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::Pins;
use crate::maps::directory::Directory;

/// How often a lock is asked for before another process is said to hold it: whoever asks who writes holds it for a moment.
const TRIES: u32 = 5;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// Held by the one agent that writes. Released when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// There is no directory to lock.
#[derive(Debug)]
pub struct Missing(PathBuf);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no directory {}", self.0.display())
    }
}

impl Error for Missing {}

impl Lock {
    /// Whether the locked directory is still there. If not, somebody may hold the lock of another directory of its name.
    pub fn is_in_force(&self) -> Result<bool> {
        Ok(self.file.metadata().context("failed to look at the locked directory")?.nlink() > 0)
    }
}

impl Pins {
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
            Ok(file) => Ok(Some(Lock { file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("failed to lock {}", self.root.display())),
        }
    }

    /// Becomes the one that writes, as soon as no other process is. Blocks.
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
