//! Noticing that files changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::STDIN;

/// Changes to some files, as long as this lives.
pub struct Changes {
    _watcher: RecommendedWatcher,
    receiver: mpsc::Receiver<()>,
}

/// Watches the directories of the paths: a file may be replaced, and a directory may come later.
pub fn changes(paths: &[PathBuf]) -> Result<Changes> {
    // One place is enough: whatever happened, all files are looked at.
    let (sender, receiver) = mpsc::channel(1);
    let notice = move |event: notify::Result<notify::Event>| {
        let is_reading = event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_)));
        if !is_reading {
            // Full means that a change is waiting to be seen already.
            match sender.try_send(()) {
                Ok(()) | Err(_) => {}
            }
        }
    };
    let mut watcher = notify::recommended_watcher(notice).context("failed to watch files (inotify)")?;
    for path in paths.iter().filter(|path| *path != Path::new(STDIN)) {
        let directory = if path.is_dir() { path.clone() } else { directory_of(path) };
        watcher
            .watch(&directory, RecursiveMode::NonRecursive)
            .with_context(|| format!("failed to watch {}", path.display()))?;
    }
    Ok(Changes { _watcher: watcher, receiver })
}

impl Changes {
    /// Returns when something changed since the last call.
    pub async fn next(&mut self) -> Result<()> {
        self.receiver.recv().await.context("the watch of the files ended")
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}
