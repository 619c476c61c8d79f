//! Word from the kernel (inotify) of what may have changed.
//!
//! Directories are watched for names alone, and files for what is written to them: another file that grows beside them is not
//! heard of. A path is followed through symbolic links; the directories on that way are watched for the names that are on it.

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

use super::{STDIN, files::is_manifest, settle::Sign};
use crate::collections::HashMap;

/// As many bytes of events are read at once.
const BUFFER: usize = 4096;

/// As many events are taken in before something is done about them.
const MOST_EVENTS: usize = 1024;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// A name appeared in a directory, or is gone; somebody who wrote to a file there has closed it. No file that appears there is
/// closed unheard.
const DIRECTORY: WatchMask =
    WatchMask::CREATE.union(WatchMask::DELETE).union(WatchMask::MOVE).union(WatchMask::CLOSE_WRITE).union(WatchMask::ONLYDIR);

/// A file itself changed.
const CONTENT: WatchMask = WatchMask::MODIFY.union(WatchMask::CLOSE_WRITE).union(WatchMask::ATTRIB);

/// A name means something else.
const NAMES: EventMask = EventMask::CREATE.union(EventMask::DELETE).union(EventMask::MOVED_FROM).union(EventMask::MOVED_TO);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The way to some file: all paths are to be looked at.
    Way,
    /// A file.
    File(PathBuf, Sign),
}

/// The watch of some paths.
pub struct Watch {
    inotify: EventStream<[u8; BUFFER]>,
    paths: Vec<PathBuf>,
    interests: HashMap<WatchDescriptor, Interest>,
}

/// What is wanted of a watched directory or file.
#[derive(Debug, Default)]
struct Interest {
    /// Names in this directory that lead to a file.
    ways: BTreeSet<OsString>,
    /// Files in this directory by name, each as it is listed.
    files: BTreeMap<OsString, BTreeSet<PathBuf>>,
    /// This directory as it is listed, if all its manifests are read.
    listed: BTreeSet<PathBuf>,
    /// This file as it is listed.
    itself: BTreeSet<PathBuf>,
}

/// Where a path leads.
enum End {
    /// To a directory.
    Directory(PathBuf),
    /// To a file, or to nothing.
    Other,
}

impl Watch {
    /// Watches these paths.
    pub fn start(paths: &[PathBuf]) -> Result<Self> {
        let inotify = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; BUFFER]));
        let inotify = inotify.context("failed to watch files (inotify)")?;
        let paths = paths.iter().filter(|path| *path != Path::new(STDIN)).cloned().collect();
        let mut watch = Self { inotify, paths, interests: HashMap::default() };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches whatever the paths lead to now, and nothing else.
    pub fn renew(&mut self) -> Result<()> {
        let before = std::mem::take(&mut self.interests);
        let watched = self.paths.clone().iter().try_for_each(|path| self.watch_path(path));
        for (descriptor, interest) in before {
            if watched.is_err() {
                // What was watched still is.
                self.interests.entry(descriptor).or_insert(interest);
            } else if !self.interests.contains_key(&descriptor) {
                // One that is gone was removed by the kernel.
                self.inotify.watches().remove(descriptor).ok();
            }
        }
        watched
    }

    /// Returns once something may have changed.
    pub async fn next(&mut self) -> Result<Vec<Word>> {
        loop {
            let mut words: Vec<Word> = Vec::new();
            let mut next = Some(self.inotify.next().await);
            let mut taken = 0;
            while let Some(event) = next {
                let event = event.context("the watch of the files ended")?.context("failed to read changes of files")?;
                for word in self.words(&event) {
                    if words.last() != Some(&word) {
                        words.push(word);
                    }
                }
                taken += 1;
                next = if taken < MOST_EVENTS { self.inotify.next().now_or_never() } else { None };
            }
            if !words.is_empty() {
                return Ok(words);
            }
        }
    }

    fn words(&mut self, event: &EventOwned) -> Vec<Word> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return vec![Word::Way];
        }
        if event.mask.contains(EventMask::IGNORED) {
            let ended = self.interests.remove(&event.wd);
            return if ended.is_some_and(|interest| interest.is_directory()) { vec![Word::Way] } else { Vec::new() };
        }
        let Some(interest) = self.interests.get(&event.wd) else { return Vec::new() };
        let Some(name) = &event.name else {
            let sign = sign(event.mask, None);
            return interest.itself.iter().filter_map(|path| Some(Word::File(path.clone(), sign?))).collect();
        };
        let mut words = Vec::new();
        if interest.ways.contains(name) && event.mask.intersects(NAMES) {
            words.push(Word::Way);
        }
        for path in interest.files_of(name) {
            if let Some(sign) = sign(event.mask, Some(&path)) {
                words.push(Word::File(path, sign));
            }
        }
        if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
            for word in words.clone() {
                // Another file, or a link to one, is to be watched from now on.
                if let Word::File(path, _) = word
                    && self.watch_way(&path).is_err()
                {
                    words.push(Word::Way);
                }
            }
        }
        words
    }

    /// Watches the way to a file or directory, and the file.
    fn watch_way(&mut self, path: &Path) -> Result<End> {
        let start = std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))?;
        self.follow(PathBuf::from("/"), &start, path)
    }

    /// As [`Self::watch_way`], and all files of a directory.
    fn watch_path(&mut self, path: &Path) -> Result<()> {
        let End::Directory(directory) = self.watch_way(path)? else { return Ok(()) };
        self.want(&directory, |interest| interest.listed.extend([path.to_owned()]))?;
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

    /// Follows a path from a directory that is no link. `listed` is the file or directory that it leads to, as it is listed.
    fn follow(&mut self, mut directory: PathBuf, path: &Path, listed: &Path) -> Result<End> {
        let mut rest: VecDeque<OsString> = VecDeque::new();
        push_front(&mut rest, &mut directory, path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                directory.pop();
                continue;
            }
            // The watch first: no change after the look is missed.
            self.want(&directory, |_| ())?;
            let here = directory.join(&name);
            let found = fs::symlink_metadata(&here);
            if rest.is_empty() && found.as_ref().is_ok_and(|found| !found.is_symlink() && !found.is_dir()) {
                self.watch_file(&directory, &name, listed)?;
                return Ok(End::Other);
            }
            self.want(&directory, |interest| interest.ways.extend([name.clone()]))?;
            match found {
                Ok(found) if found.is_symlink() && links < MOST_LINKS => {
                    links += 1;
                    let Ok(target) = fs::read_link(&here) else { return Ok(End::Other) };
                    push_front(&mut rest, &mut directory, &target);
                }
                Ok(found) if found.is_dir() => directory = here,
                Err(_) if rest.is_empty() => {
                    self.want(&directory, |interest| interest.add_file(&name, listed))?;
                    return Ok(End::Other);
                }
                Ok(_) | Err(_) => return Ok(End::Other),
            }
        }
        Ok(End::Directory(directory))
    }

    /// Watches a file, and its name in its directory.
    fn watch_file(&mut self, directory: &Path, name: &OsStr, listed: &Path) -> Result<()> {
        self.want(directory, |interest| interest.add_file(name, listed))?;
        match self.watch(&directory.join(name), CONTENT) {
            Ok(interest) => drop(interest.itself.insert(listed.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // There may be no more watches for as many files, or this one may not be read: then all files beside are heard of.
            Err(_) => drop(self.watch(directory, DIRECTORY | CONTENT).with_context(|| cannot_watch(directory))?),
        }
        Ok(())
    }

    /// Watches a directory, and notes what is wanted of it.
    fn want(&mut self, directory: &Path, note: impl FnOnce(&mut Interest)) -> Result<()> {
        match self.watch(directory, DIRECTORY) {
            Ok(interest) => note(interest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // One may pass through a directory that one may not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!("may not watch {}: {error}", directory.display());
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

    /// The files of a name in this directory, as they are listed.
    fn files_of(&self, name: &OsString) -> BTreeSet<PathBuf> {
        let named = self.files.get(name).into_iter().flatten().cloned();
        let listed = self.listed.iter().map(|directory| directory.join(name)).filter(|path| is_manifest(path));
        named.chain(listed).collect()
    }
}

fn cannot_watch(directory: &Path) -> String {
    format!("failed to watch {} (if no space is left: raise the sysctl fs.inotify.max_user_watches)", directory.display())
}

/// Puts the parts of a path before what is left of another.
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

/// What an event says of a file.
fn sign(mask: EventMask, path: Option<&Path>) -> Option<Sign> {
    if mask.contains(EventMask::MOVED_TO) {
        Some(Sign::Replaced)
    } else if mask.contains(EventMask::CREATE) {
        // Somebody is going to write to it, unless it is another name of something that is there.
        let metadata = path.and_then(|path| fs::symlink_metadata(path).ok());
        let is_new = metadata.is_none_or(|metadata| metadata.is_file() && metadata.nlink() == 1);
        Some(if is_new { Sign::Written } else { Sign::Replaced })
    } else if mask.contains(EventMask::CLOSE_WRITE) {
        Some(Sign::Closed)
    } else if mask.contains(EventMask::MODIFY) {
        Some(Sign::Written)
    } else if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        Some(Sign::Gone)
    } else if mask.contains(EventMask::ATTRIB) {
        Some(Sign::Touched)
    } else {
        None
    }
}
