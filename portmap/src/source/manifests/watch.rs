//! Watches the manifest files by inotify, and reports possible changes.
//!
//! Directories are watched for changes of names, and manifest files for changes of content. So while a process writes another
//! file in the same directory, usually only the close of that file causes an event. Each path is followed through symbolic
//! links. All readable directories on it are watched, because each of its components may be replaced.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use futures::{FutureExt as _, StreamExt as _};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};

use super::{STDIN, files::is_manifest, schedule::FileChange};
use crate::collections::HashMap;

/// Size of the buffer for inotify events, in bytes.
const BUFFER: usize = 4096;

/// Maximum number of inotify events in one batch of notifications.
const MAX_EVENTS: usize = 1024;

/// Maximum number of symbolic links in a path, the limit of the kernel.
const MAX_LINKS: usize = 40;

/// Events of a directory: a name was added or removed, or a written file was closed. So the close of a new file is reported
/// even before the file has its own watch.
const DIRECTORY: WatchMask =
    WatchMask::CREATE.union(WatchMask::DELETE).union(WatchMask::MOVE).union(WatchMask::CLOSE_WRITE).union(WatchMask::ONLYDIR);

/// Events of a file: its content or metadata changed, or its writer closed it.
const CONTENT: WatchMask = WatchMask::MODIFY.union(WatchMask::CLOSE_WRITE).union(WatchMask::ATTRIB);

/// Events after which a name may refer to another file, or to none.
const NAMES: EventMask = EventMask::CREATE.union(EventMask::DELETE).union(EventMask::MOVED_FROM).union(EventMask::MOVED_TO);

/// A possible change of the manifest files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A component of a path may have changed: all files have to be listed again.
    Paths,
    /// This file may have changed. The path is the one under which the file is listed.
    File(PathBuf, FileChange),
}

/// The inotify watches for the manifest paths.
pub struct Watch {
    inotify: EventStream<[u8; BUFFER]>,
    paths: Vec<PathBuf>,
    interests: HashMap<WatchDescriptor, Interest>,
}

/// The reasons for which one directory or file is watched.
#[derive(Debug, Default)]
struct Interest {
    /// Names in this directory that are components of a manifest path.
    components: BTreeSet<OsString>,
    /// Manifest files in this directory by name, with the paths under which they are listed.
    files: BTreeMap<OsString, BTreeSet<PathBuf>>,
    /// The paths under which this directory is listed, if all its manifests are read.
    listed: BTreeSet<PathBuf>,
    /// The paths under which this file is listed. Empty for a directory.
    itself: BTreeSet<PathBuf>,
}

/// The target of a manifest path, as far as it can be followed.
enum Destination {
    /// A directory, with its path without symbolic links.
    Directory(PathBuf),
    /// A file, a missing target, or a path that cannot be followed to its end.
    Other,
}

impl Watch {
    /// Watches these paths. Standard input is skipped.
    pub fn start(paths: &[PathBuf]) -> Result<Self> {
        let inotify = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; BUFFER]));
        let inotify = inotify.context("failed to watch the manifest files (inotify)")?;
        let paths = paths.iter().filter(|path| *path != Path::new(STDIN)).cloned().collect();
        let mut watch = Self { inotify, paths, interests: HashMap::default() };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches the current targets of all paths, and removes all other watches. After an error, the former watches stay.
    pub fn renew(&mut self) -> Result<()> {
        let before = std::mem::take(&mut self.interests);
        let watched = self.paths.clone().iter().try_for_each(|path| self.watch_path(path));
        for (descriptor, interest) in before {
            if watched.is_err() {
                // The renewal failed: the former watches are kept.
                self.interests.entry(descriptor).or_insert(interest);
            } else if !self.interests.contains_key(&descriptor) {
                // Fails for a deleted file, whose watch the kernel has removed.
                self.inotify.watches().remove(descriptor).ok();
            }
        }
        watched
    }

    /// Waits for inotify events, and returns at least one notification.
    pub async fn next(&mut self) -> Result<Vec<Notification>> {
        loop {
            let mut notifications: Vec<Notification> = Vec::new();
            let mut next = Some(self.inotify.next().await);
            let mut taken = 0;
            while let Some(event) = next {
                let event = event
                    .context("the watch of the manifest files ended")?
                    .context("failed to read the events of the manifest files (inotify)")?;
                for notification in self.notifications(&event) {
                    if notifications.last() != Some(&notification) {
                        notifications.push(notification);
                    }
                }
                taken += 1;
                next = if taken < MAX_EVENTS { self.inotify.next().now_or_never() } else { None };
            }
            if !notifications.is_empty() {
                return Ok(notifications);
            }
        }
    }

    /// The notifications for an inotify event. Watches the target of a new name, too.
    fn notifications(&mut self, event: &EventOwned) -> Vec<Notification> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return vec![Notification::Paths];
        }
        if event.mask.contains(EventMask::IGNORED) {
            let ended = self.interests.remove(&event.wd);
            return if ended.is_some_and(|interest| interest.is_directory()) { vec![Notification::Paths] } else { Vec::new() };
        }
        let Some(interest) = self.interests.get(&event.wd) else { return Vec::new() };
        let Some(name) = &event.name else {
            let change = file_change(event.mask, None);
            return interest.itself.iter().filter_map(|path| Some(Notification::File(path.clone(), change?))).collect();
        };
        let mut notifications = Vec::new();
        if interest.components.contains(name) && event.mask.intersects(NAMES) {
            notifications.push(Notification::Paths);
        }
        for path in interest.files_of(name) {
            if let Some(change) = file_change(event.mask, Some(&path)) {
                notifications.push(Notification::File(path, change));
            }
        }
        if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
            for notification in notifications.clone() {
                // The name refers to another file or symbolic link now, which is not watched yet.
                if let Notification::File(path, _) = notification
                    && self.watch_components(&path).is_err()
                {
                    notifications.push(Notification::Paths);
                }
            }
        }
        notifications
    }

    /// Watches all directories on a path and, if the target is a file, the file.
    fn watch_components(&mut self, path: &Path) -> Result<Destination> {
        let start = std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))?;
        self.follow(PathBuf::from("/"), &start, path)
    }

    /// As [`Self::watch_components`]. If the target is a directory, watches all manifest files in it, too.
    fn watch_path(&mut self, path: &Path) -> Result<()> {
        let Destination::Directory(directory) = self.watch_components(path)? else { return Ok(()) };
        self.add_interest(&directory, |interest| interest.listed.extend([path.to_owned()]))?;
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("failed to list {}", path.display()))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to list {}", path.display()))?;
            let name = entry.file_name();
            let listed = path.join(&name);
            if !is_manifest(&listed) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                self.watch_file(&directory, &name, &listed)?;
            } else {
                self.follow(directory.clone(), Path::new(&name), &listed)?;
            }
        }
        Ok(())
    }

    /// Watches all directories on a path from `directory`, and the file at its end. Symbolic links are followed, also at the
    /// end; `directory` itself must be free of them. `listed`: the path under which the target is listed.
    fn follow(&mut self, mut directory: PathBuf, path: &Path, listed: &Path) -> Result<Destination> {
        let mut rest: VecDeque<OsString> = VecDeque::new();
        push_front(&mut rest, &mut directory, path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                directory.pop();
                continue;
            }
            // The watch starts before the file is examined, so that no change is missed.
            self.add_interest(&directory, |_| ())?;
            let here = directory.join(&name);
            let found = fs::symlink_metadata(&here);
            if rest.is_empty() && found.as_ref().is_ok_and(|found| !found.is_symlink() && !found.is_dir()) {
                self.watch_file(&directory, &name, listed)?;
                return Ok(Destination::Other);
            }
            self.add_interest(&directory, |interest| interest.components.extend([name.clone()]))?;
            match found {
                Ok(found) if found.is_symlink() && links < MAX_LINKS => {
                    links += 1;
                    let Ok(target) = fs::read_link(&here) else { return Ok(Destination::Other) };
                    push_front(&mut rest, &mut directory, &target);
                }
                Ok(found) if found.is_dir() => directory = here,
                Err(_) if rest.is_empty() => {
                    self.add_interest(&directory, |interest| interest.add_file(&name, listed))?;
                    return Ok(Destination::Other);
                }
                Ok(_) | Err(_) => return Ok(Destination::Other),
            }
        }
        Ok(Destination::Directory(directory))
    }

    /// Watches the content of a file, and its name in the directory. Skips the content if the file does not exist. `listed`:
    /// the path under which the file is listed.
    fn watch_file(&mut self, directory: &Path, name: &OsStr, listed: &Path) -> Result<()> {
        self.add_interest(directory, |interest| interest.add_file(name, listed))?;
        match self.watch(&directory.join(name), CONTENT) {
            Ok(interest) => drop(interest.itself.insert(listed.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // For example too many watches, or no permission to read the file: instead, its directory is watched for changes of
            // content of all its files.
            Err(_) => drop(self.watch(directory, DIRECTORY | CONTENT).with_context(|| cannot_watch(directory))?),
        }
        Ok(())
    }

    /// Watches a directory, and lets `change_interest` add the names to report. Skips a directory that does not exist or may
    /// not be read.
    fn add_interest(&mut self, directory: &Path, change_interest: impl FnOnce(&mut Interest)) -> Result<()> {
        match self.watch(directory, DIRECTORY) {
            Ok(interest) => change_interest(interest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Search permission is enough to follow a path through a directory.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!("no permission to watch {}: {error}", directory.display());
            }
            Err(error) => return Err(error).with_context(|| cannot_watch(directory)),
        }
        Ok(())
    }

    fn watch(&mut self, path: &Path, mask: WatchMask) -> io::Result<&mut Interest> {
        let descriptor = self.inotify.watches().add(path, mask | WatchMask::MASK_ADD)?;
        Ok(self.interests.entry(descriptor).or_default())
    }
}

impl Interest {
    fn is_directory(&self) -> bool {
        self.itself.is_empty()
    }

    fn add_file(&mut self, name: &OsStr, listed: &Path) {
        self.files.entry(name.to_owned()).or_default().insert(listed.to_owned());
    }

    /// The paths under which the manifest file with this name in the directory is listed.
    fn files_of(&self, name: &OsString) -> BTreeSet<PathBuf> {
        let named = self.files.get(name).into_iter().flatten().cloned();
        let listed = self.listed.iter().map(|directory| directory.join(name)).filter(|path| is_manifest(path));
        named.chain(listed).collect()
    }
}

fn cannot_watch(directory: &Path) -> String {
    format!("failed to watch {} (if no space is left: raise the sysctl fs.inotify.max_user_watches)", directory.display())
}

/// Prepends the components of a path to `rest`. An absolute path resets `directory` to the root.
fn push_front(rest: &mut VecDeque<OsString>, directory: &mut PathBuf, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir => *directory = PathBuf::from("/"),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// The change of a file that an inotify event reports; `None` for other events. `path`: the file that a directory's event
/// names.
fn file_change(mask: EventMask, path: Option<&Path>) -> Option<FileChange> {
    if mask.contains(EventMask::MOVED_TO) {
        Some(FileChange::Replaced)
    } else if mask.contains(EventMask::CREATE) {
        // A new file will be written, unless the name is a symbolic link or another hard link of an existing file.
        let metadata = path.and_then(|path| fs::symlink_metadata(path).ok());
        let is_new = metadata.is_none_or(|metadata| metadata.is_file() && metadata.nlink() == 1);
        Some(if is_new { FileChange::Written } else { FileChange::Replaced })
    } else if mask.contains(EventMask::CLOSE_WRITE) {
        Some(FileChange::Closed)
    } else if mask.contains(EventMask::MODIFY) {
        Some(FileChange::Written)
    } else if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        Some(FileChange::Removed)
    } else if mask.contains(EventMask::ATTRIB) {
        Some(FileChange::Touched)
    } else {
        None
    }
}
