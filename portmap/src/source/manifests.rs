//! Files as a source: the same objects as the API server has, in YAML or JSON, for a machine without a cluster.
//!
//! A Service without an EndpointSlice gets its endpoints from the Pods that are given, if it has a selector, else from
//! Endpoints.

mod beta;
mod faults;
mod files;
mod follow;
mod kinds;
mod mirror;
mod objects;
mod parse;
mod pods;
mod settle;
mod watch;

use std::{
    collections::BTreeMap,
    hash::BuildHasher as _,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result, anyhow};

use crate::model::event::{Event, Object, ObjectKind, Wanted};
pub use files::STDIN;
use files::Stamp;
pub use follow::Watched;
use objects::{Objects, Selection};
use settle::Patience;

/// Where objects are read from.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    wanted: Wanted,
    /// What is wrong with the paths.
    warnings: Vec<String>,
    files: BTreeMap<PathBuf, File>,
    stdin: Option<File>,
    hasher: foldhash::fast::RandomState,
}

/// A file as last read.
#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// Of the text that was last read.
    hash: Option<u64>,
    /// Whether it was ever good.
    has_content: bool,
    /// The last good content.
    objects: Objects,
    /// What is wrong with it now.
    warnings: Vec<String>,
}

/// What a reading of the files brought.
#[derive(Debug)]
pub struct Reading {
    /// All objects that count, slices made from Pods and Endpoints included.
    pub objects: Vec<Object>,
    /// What is wrong, each with the file or object it is about.
    pub warnings: Vec<String>,
}

/// What became of a file that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    /// It says the same.
    Same,
    /// Its objects changed, or what is wrong with it.
    Changed,
    /// It appeared, or is gone.
    Moved,
    /// It may be in the middle of being written.
    Doubtful,
    /// It could not be read now.
    Failed,
}

impl Manifests {
    /// These files, directories of files (`*.yaml`, `*.yml`, `*.json`, not those below), or `-` for standard input.
    pub fn new(paths: Vec<PathBuf>, wanted: Wanted) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { paths, wanted, warnings: Vec::new(), files: BTreeMap::new(), stdin: None, hasher }
    }

    /// Reads all files for the first time. Fails only if a path cannot be read.
    pub fn read(&mut self) -> Result<Reading> {
        self.read_all()?;
        let (selection, warnings) = self.select();
        Ok(Reading { objects: selection.into_values().map(std::sync::Arc::unwrap_or_clone).collect(), warnings })
    }

    /// As [`Self::read`], without a look at the objects. Returns the files that are to be tried again.
    fn read_all(&mut self) -> Result<Vec<PathBuf>> {
        let mut warnings = Vec::new();
        let found = files::list(&self.paths, false, &mut warnings)?;
        self.warnings = warnings;
        let failed = found.into_keys().filter(|path| self.update(path, Patience::None) == ReadOutcome::Failed).collect();
        if self.paths.iter().any(|path| path == Path::new(STDIN)) {
            let (objects, faults) = parse::parse(&files::read_stdin()?, STDIN, &self.wanted)?;
            self.stdin = Some(File { objects, warnings: faults.into_warnings(STDIN), ..File::default() });
        }
        Ok(failed)
    }

    /// Lists the files anew, and returns those that are not as they were.
    fn find(&mut self) -> Result<Vec<PathBuf>> {
        let mut warnings = Vec::new();
        let found = files::list(&self.paths, true, &mut warnings)?;
        self.warnings = warnings;
        let gone = self.files.keys().filter(|path| !found.contains_key(*path)).cloned();
        let is_known = |path: &PathBuf, stamp| self.files.get(path).is_some_and(|file| file.stamp == Some(stamp));
        let changed = found.iter().filter(|(path, stamp)| !is_known(path, **stamp)).map(|(path, _)| path.clone());
        Ok(gone.chain(changed).collect())
    }

    /// Reads a file, if it is new or changed. One that no longer parses keeps its last good content; only one that is gone
    /// takes its objects away.
    fn update(&mut self, path: &Path, patience: Patience) -> ReadOutcome {
        let stamp = match files::look(path) {
            Ok(Some(stamp)) if self.files.get(path).is_some_and(|file| file.stamp == Some(stamp)) => return ReadOutcome::Same,
            Ok(Some(stamp)) => Ok(stamp),
            Ok(None) => return if self.files.remove(path).is_some() { ReadOutcome::Moved } else { ReadOutcome::Same },
            Err(error) => Err(error),
        };
        let is_new = !self.files.contains_key(path);
        let file = self.files.entry(path.to_owned()).or_default();
        let (stamp, text) = match stamp {
            Ok(stamp) => (Some(stamp), files::read(path)),
            Err(error) => (None, Err(error)),
        };
        // A file that was replaced is whole, whatever it lacks.
        let is_in_place = stamp.zip(file.stamp).is_some_and(|(new, old)| new.is_same_file(&old));
        let outcome = match text {
            Ok(text) => {
                let hash = self.hasher.hash_one(&text);
                file.take(&text, hash, path, &self.wanted, if is_in_place { patience } else { Patience::None })
            }
            Err(error) => file.fail(&error),
        };
        if !matches!(outcome, ReadOutcome::Doubtful | ReadOutcome::Failed) {
            file.stamp = stamp;
        }
        if is_new && outcome != ReadOutcome::Failed { ReadOutcome::Moved } else { outcome }
    }

    /// Whether there are Nodes, but not the own one.
    fn lacks_own_node(&self) -> bool {
        let mut nodes = self.files.values().chain(&self.stdin).flat_map(|file| file.objects.nodes.keys()).peekable();
        nodes.peek().is_some() && nodes.all(|name| *name.name() != *self.wanted.node)
    }

    /// All objects that count, and all that is wrong.
    fn select(&self) -> (Selection, Vec<String>) {
        let files = || self.files.values().chain(&self.stdin);
        let mut warnings = self.warnings.clone();
        warnings.extend(files().flat_map(|file| &file.warnings).cloned());
        let all = Objects::merge(files().map(|file| &file.objects), &mut warnings);
        (all.select(&self.wanted, &mut warnings), warnings)
    }
}

impl File {
    fn take(&mut self, text: &str, hash: u64, path: &Path, wanted: &Wanted, patience: Patience) -> ReadOutcome {
        if self.hash == Some(hash) {
            return ReadOutcome::Same;
        }
        let name = path.display().to_string();
        let parsed = if self.has_content && text.trim().is_empty() {
            // A file that is being written is empty at first.
            Err(anyhow!("{name} is empty now"))
        } else {
            parse::parse(text, &name, wanted)
        };
        let is_less = parsed.as_ref().map_or(true, |(objects, _)| objects.lacks_any_of(&self.objects));
        if is_less && patience == Patience::Some {
            return ReadOutcome::Doubtful;
        }
        self.hash = Some(hash);
        match parsed {
            Ok((mut objects, mut faults)) => {
                objects.succeed(&self.objects, &mut faults);
                self.objects = objects;
                self.warnings = faults.into_warnings(&name);
                self.has_content = true;
            }
            Err(error) => self.warn(&error),
        }
        ReadOutcome::Changed
    }

    fn fail(&mut self, error: &Error) -> ReadOutcome {
        self.hash = None;
        self.warn(error);
        if files::is_passing(error) { ReadOutcome::Failed } else { ReadOutcome::Changed }
    }

    fn warn(&mut self, error: &Error) {
        let rest = if self.has_content { "its last good content stays" } else { "the file is left out" };
        self.warnings = vec![format!("{error:#}; {rest}")];
    }
}

/// Objects as complete lists of every kind.
pub fn listed(objects: Vec<Object>) -> impl Iterator<Item = Event> {
    let mut kinds: BTreeMap<ObjectKind, Vec<Object>> = ObjectKind::ALL.iter().map(|kind| (*kind, Vec::new())).collect();
    for object in objects {
        kinds.entry(object.kind()).or_default().push(object);
    }
    kinds.into_iter().map(|(kind, objects)| Event::Listed(kind, objects))
}
