//! Noticing that files changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::STDIN;

/// Changes to some files, as long as this lives.
pub struct Changes {
    watcher: RecommendedWatcher,
    receiver: mpsc::Receiver<()>,
    paths: Vec<PathBuf>,
}

/// Watches the paths and the directories they lie in: a file or a directory may be replaced as a whole.
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
    let paths: Vec<PathBuf> = paths.iter().filter(|path| *path != Path::new(STDIN)).cloned().collect();
    for path in &paths {
        let context = || format!("failed to watch {}", path.display());
        watcher.watch(&directory_of(path), RecursiveMode::NonRecursive).with_context(context)?;
        if path.is_dir() {
            watcher.watch(path, RecursiveMode::NonRecursive).with_context(context)?;
        }
    }
    Ok(Changes { watcher, receiver, paths })
}

impl Changes {
    /// Returns when something changed since the last call.
    pub async fn next(&mut self) -> Result<()> {
        self.receiver.recv().await.context("the watch of the files ended")?;
        for path in self.paths.iter().filter(|path| path.is_dir()) {
            // It may be another directory now. Where it cannot be watched any more, it cannot be read either, which is said.
            if let Err(error) = self.watcher.watch(path, RecursiveMode::NonRecursive) {
                tracing::debug!("failed to watch {}: {error}", path.display());
            }
        }
        Ok(())
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}
