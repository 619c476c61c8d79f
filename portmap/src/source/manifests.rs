//! Manifest files as a source: Kubernetes objects in YAML or JSON, for a machine without a cluster.
//!
//! This module keeps the last valid content of each file. [`parse`] converts text to objects, [`objects`] selects the objects
//! to send, and [`follow`] reads changed files again. A served Service without an EndpointSlice gets endpoints from its Pods if
//! it has a selector, else from its Endpoints.

mod beta;
mod faults;
mod few;
pub mod files;
mod follow;
mod kinds;
mod mirror;
mod objects;
mod parse;
mod pods;
mod schedule;
mod watch;

use std::{
    collections::BTreeMap,
    hash::BuildHasher as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::model::{
    ObjectName,
    event::{Event, Object, ObjectKind, Wanted},
};
use anyhow::{Error, Result, anyhow};
pub use files::STDIN;
use files::Stamp;
pub use follow::Watched;
pub use objects::Service;
use objects::{Objects, Selection};
use parse::Filter;
use schedule::ReadMode;

/// The manifest files of the given paths, with their last valid content.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    wanted: Wanted,
    /// Warnings about the paths.
    warnings: Vec<String>,
    files: BTreeMap<PathBuf, File>,
    /// Standard input, of which only `objects` and `warnings` are set. `None` if it is not read.
    stdin: Option<File>,
    hasher: foldhash::fast::RandomState,
}

/// The state of a file after its last read.
#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// The hash of the last text; `None` if the file was not read, or the last read failed.
    hash: Option<u64>,
    /// Whether the file ever had valid content.
    has_content: bool,
    /// The objects of the last valid content.
    objects: Objects,
    /// Warnings about the current content.
    warnings: Vec<String>,
}

/// The objects and warnings of all files.
#[derive(Debug)]
pub struct Reading {
    /// The selected objects, including EndpointSlices that are derived from Pods and Endpoints.
    pub objects: Vec<Object>,
    /// Warnings for users, each with its file or object.
    pub warnings: Vec<String>,
}

/// The result of reading a file that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    /// The content has not changed, or the file neither exists nor was known.
    Same,
    /// The objects or the warnings of the file may have changed, also by a lasting error.
    Changed,
    /// The file is new, or was removed.
    AddedOrRemoved,
    /// The content may be incomplete, because a process still writes the file. The former objects stay.
    Incomplete,
    /// A temporary error. The file has to be read again later.
    Failed,
}

impl Manifests {
    /// The manifests of these paths: files, directories with `*.yaml`, `*.yml` and `*.json` files (without subdirectories), or
    /// `-` for standard input. Reads nothing.
    pub fn new(paths: Vec<PathBuf>, wanted: Wanted) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { paths, wanted, warnings: Vec::new(), files: BTreeMap::new(), stdin: None, hasher }
    }

    /// Reads all files for the first time. Invalid files are reported as warnings.
    ///
    /// # Errors
    ///
    /// A path does not exist or its metadata cannot be read, a directory cannot be listed, or standard input cannot be read or
    /// is invalid.
    pub fn read(&mut self) -> Result<Reading> {
        self.read_all()?;
        Ok(self.reading())
    }

    /// As [`Self::read`], and keeps nothing, so that no object is copied.
    ///
    /// # Errors
    ///
    /// As for [`Self::read`].
    pub fn read_once(mut self) -> Result<Reading> {
        self.read_all()?;
        let (selection, warnings) = self.select();
        drop(self);
        Ok(Reading::new(selection, warnings))
    }

    fn reading(&self) -> Reading {
        let (selection, warnings) = self.select();
        Reading::new(selection, warnings)
    }

    /// The Services of all files as they are written. The last file with a Service counts.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Service)> {
        let files = self.files.values().chain(&self.stdin);
        let all: BTreeMap<&ObjectName, &Service> =
            files.flat_map(|file| &file.objects.services).map(|(name, service)| (name, &**service)).collect();
        all.into_iter()
    }

    /// The addresses of all Pods of the files, each with the Pod's name.
    pub fn pods(&self) -> impl Iterator<Item = (IpAddr, &ObjectName)> {
        let pods = self.files.values().chain(&self.stdin).flat_map(|file| &file.objects.pods);
        pods.flat_map(|(name, pod)| {
            let status = pod.status.iter();
            let addresses = status.flat_map(|status| {
                let several = status.pod_ips.iter().flatten().map(|address| &address.ip);
                status.pod_ip.iter().chain(several)
            });
            addresses.filter_map(move |address| Some((address.parse().ok()?, name)))
        })
    }

    /// As [`Self::read`], but returns no objects, only the files that failed with a temporary error.
    fn read_all(&mut self) -> Result<Vec<PathBuf>> {
        let mut warnings = Vec::new();
        let found = files::list(&self.paths, false, &mut warnings)?;
        self.warnings = warnings;
        let failed = found.into_keys().filter(|path| self.update(path, ReadMode::Final) == ReadOutcome::Failed).collect();
        if self.paths.iter().any(|path| path == Path::new(STDIN)) {
            let (objects, faults) = parse::parse(&files::read_stdin()?, STDIN, Filter { wanted: &self.wanted, only: None })?;
            self.stdin = Some(File { objects, warnings: faults.into_warnings(STDIN), ..File::default() });
        }
        Ok(failed)
    }

    /// Lists all files again, and returns the paths of files that are new, changed or removed. Reads none of them.
    fn find(&mut self) -> Result<Vec<PathBuf>> {
        let mut warnings = Vec::new();
        let found = files::list(&self.paths, true, &mut warnings)?;
        self.warnings = warnings;
        let gone = self.files.keys().filter(|path| !found.contains_key(*path)).cloned();
        let is_known = |path: &PathBuf, stamp| self.files.get(path).is_some_and(|file| file.stamp == Some(stamp));
        let changed = found.iter().filter(|(path, stamp)| !is_known(path, **stamp)).map(|(path, _)| path.clone());
        Ok(gone.chain(changed).collect())
    }

    /// Reads a file if its stamp has changed. An invalid file keeps the objects of its last valid content; a removed file
    /// removes its objects.
    fn update(&mut self, path: &Path, mode: ReadMode) -> ReadOutcome {
        let stamp = match files::look(path) {
            Ok(Some(stamp)) if self.files.get(path).is_some_and(|file| file.stamp == Some(stamp)) => return ReadOutcome::Same,
            Ok(Some(stamp)) => Ok(stamp),
            Ok(None) => return if self.files.remove(path).is_some() { ReadOutcome::AddedOrRemoved } else { ReadOutcome::Same },
            Err(error) => Err(error),
        };
        let is_new = !self.files.contains_key(path);
        let filter = Filter { wanted: &self.wanted, only: None };
        let file = self.files.entry(path.to_owned()).or_default();
        let (stamp, text) = match stamp {
            Ok(stamp) => (Some(stamp), files::read(path)),
            Err(error) => (None, Err(error)),
        };
        // A replaced file is taken as complete. Only a file that is written in place is expected to be incomplete at times.
        let is_in_place = stamp.zip(file.stamp).is_some_and(|(new, old)| new.is_same_file(&old));
        let outcome = match text {
            Ok(text) => {
                let hash = self.hasher.hash_one(&text);
                file.take(&text, hash, path, filter, if is_in_place { mode } else { ReadMode::Final })
            }
            Err(error) => file.fail(&error),
        };
        if !matches!(outcome, ReadOutcome::Incomplete | ReadOutcome::Failed) {
            file.stamp = stamp;
        }
        if is_new && outcome != ReadOutcome::Failed { ReadOutcome::AddedOrRemoved } else { outcome }
    }

    /// Whether the files have Nodes, but not the Node of the agent.
    fn lacks_own_node(&self) -> bool {
        let mut nodes = self.files.values().chain(&self.stdin).flat_map(|file| file.objects.nodes.keys()).peekable();
        nodes.peek().is_some() && nodes.all(|name| *name.name() != *self.wanted.node)
    }

    /// The objects of all files that the agent needs, and all warnings.
    fn select(&self) -> (Selection, Vec<String>) {
        let files = || self.files.values().chain(&self.stdin);
        let mut warnings = self.warnings.clone();
        warnings.extend(files().flat_map(|file| &file.warnings).cloned());
        let all = Objects::merge(files().map(|file| &file.objects), &mut warnings);
        (all.select(&self.wanted, &mut warnings), warnings)
    }
}

impl File {
    /// Takes over the objects of a new text, or keeps the former objects if the text is invalid. `hash`: the hash of the text.
    /// Changes nothing if the text is the last one again. The same holds if `mode` is tentative, and the text is invalid or
    /// lacks former objects.
    fn take(&mut self, text: &str, hash: u64, path: &Path, filter: Filter, mode: ReadMode) -> ReadOutcome {
        if self.hash == Some(hash) {
            return ReadOutcome::Same;
        }
        let name = path.display().to_string();
        let parsed = if self.has_content && text.trim().is_empty() {
            // Shells and some editors truncate a file before they write it.
            Err(anyhow!("{name} is empty"))
        } else {
            parse::parse(text, &name, filter)
        };
        let is_less = parsed.as_ref().map_or(true, |(objects, _)| objects.lacks_any_of(&self.objects));
        if is_less && mode == ReadMode::Tentative {
            return ReadOutcome::Incomplete;
        }
        self.hash = Some(hash);
        match parsed {
            Ok((mut objects, mut faults)) => {
                objects.keep_former(&self.objects, &mut faults);
                self.objects = objects;
                self.warnings = faults.into_warnings(&name);
                self.has_content = true;
            }
            Err(error) => self.warn(&error),
        }
        ReadOutcome::Changed
    }

    /// Records a failed read as a warning. The objects of the last valid content stay.
    fn fail(&mut self, error: &Error) -> ReadOutcome {
        self.hash = None;
        self.warn(error);
        if files::is_transient(error) { ReadOutcome::Failed } else { ReadOutcome::Changed }
    }

    fn warn(&mut self, error: &Error) {
        let rest = if self.has_content { "its last valid content stays" } else { "the file is left out" };
        self.warnings = vec![format!("{error:#}; {rest}")];
    }
}

impl Reading {
    fn new(selection: Selection, warnings: Vec<String>) -> Self {
        Self { objects: selection.into_values().map(Arc::unwrap_or_clone).collect(), warnings }
    }
}

/// Groups objects into one `Listed` event per kind, including kinds without objects.
pub fn listed(objects: Vec<Object>) -> impl Iterator<Item = Event> {
    let mut kinds: BTreeMap<ObjectKind, Vec<Object>> = ObjectKind::ALL.iter().map(|kind| (*kind, Vec::new())).collect();
    for object in objects {
        kinds.entry(object.kind()).or_default().push(object);
    }
    kinds.into_iter().map(|(kind, objects)| Event::Listed(kind, objects))
}
