//! Files as a source: the same objects as the API server has, in YAML or JSON, for a machine without a cluster.
//!
//! A Service with a selector and without an EndpointSlice gets its endpoints from the Pods that are given.

mod files;
mod parse;
mod pods;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Event, Events, Kind, Object, Wanted};
use crate::{
    exhaustion::{self, is_exhausted},
    object::{self, HEADLESS_LABEL, is_labelled},
};
pub use files::STDIN;
use parse::Objects;

/// Where objects are read from.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    wanted: Wanted,
    /// The last good content of each file.
    files: BTreeMap<PathBuf, File>,
    stdin: Option<Objects>,
}

/// A file as last read.
#[derive(Debug)]
struct File {
    stamp: files::Stamp,
    objects: Objects,
}

/// What a reading of the files brought.
#[derive(Debug)]
pub struct Reading {
    /// All objects that count, slices made from Pods included.
    pub objects: Vec<Object>,
    /// What is wrong, each with the file or object it is about.
    pub warnings: Vec<String>,
}

impl Manifests {
    /// These files, directories of files (`*.yaml`, `*.yml`, `*.json`, not those below), or `-` for standard input.
    pub fn new(paths: Vec<PathBuf>, wanted: Wanted) -> Self {
        Self { paths, wanted, files: BTreeMap::new(), stdin: None }
    }

    /// Reads what is new or changed. A file that no longer parses keeps its last good content; only one that is gone takes
    /// its objects away. Fails only if a path that was never there cannot be read, or for want of descriptors or memory.
    pub fn read(&mut self) -> Result<Reading> {
        let mut warnings = Vec::new();
        let found = files::list(&self.paths, !self.files.is_empty(), &mut warnings)?;
        self.files.retain(|path, _| found.contains_key(path));
        for (path, stamp) in found {
            if self.files.get(&path).is_none_or(|file| file.stamp != stamp) {
                self.read_file(path, stamp, &mut warnings)?;
            }
        }
        if self.stdin.is_none() && self.paths.iter().any(|path| path == Path::new(STDIN)) {
            self.stdin = Some(parse::parse(&files::read_stdin()?, STDIN, &mut warnings)?);
        }
        let all = self.files.values().map(|file| &file.objects).chain(&self.stdin);
        let objects = select(Objects::merge(all, &mut warnings), &self.wanted);
        Ok(Reading { objects, warnings })
    }

    /// Fails only for want of descriptors or memory.
    fn read_file(&mut self, path: PathBuf, stamp: files::Stamp, warnings: &mut Vec<String>) -> Result<()> {
        let name = path.display().to_string();
        let has_content = self.files.contains_key(&path);
        let parsed = files::read(&path).and_then(|text| {
            // A file that is being written is empty at first.
            ensure!(!(has_content && text.trim().is_empty()), "{name} is empty now");
            parse::parse(&text, &name, warnings)
        });
        match parsed {
            Ok(objects) => {
                self.files.insert(path, File { stamp, objects });
            }
            Err(error) if is_exhausted(&error) => return Err(error),
            Err(error) => {
                let file = self.files.get_mut(&path);
                let rest = if file.is_some() { "; its last good content stays" } else { "; the file is left out" };
                warnings.push(format!("{error:#}{rest}"));
                match file {
                    Some(file) => file.stamp = stamp,
                    None => drop(self.files.insert(path, File { stamp, objects: Objects::default() })),
                }
            }
        }
        Ok(())
    }
}

/// What the API server would be asked for, of all that the files hold.
fn select(mut objects: Objects, wanted: &Wanted) -> Vec<Object> {
    let services = std::mem::take(&mut objects.services);
    let (ours, others) = services.into_iter().partition(|(_, service)| wanted.is_ours(&service.metadata));
    let mut all = pods::slices(&ours, &objects, &wanted.node);
    let Objects { services: _, slices, pods: _, nodes, cidrs } = objects;
    all.extend(ours.into_values().map(Object::service));
    all.extend(others.into_values().map(Object::other_service));
    let slices = slices.into_values().filter(|slice| !is_labelled(&slice.metadata, HEADLESS_LABEL));
    all.extend(slices.map(|slice| Object::slice(slice, &wanted.node)));
    let own = nodes.into_iter().filter(|(name, _)| *name.name() == *wanted.node);
    all.extend(own.map(|(_, node)| Object::node(node)));
    all.extend(cidrs.into_iter().map(|(name, cidr)| Object::ServiceCidr(name, object::cidrs(cidr.spec.unwrap_or_default()))));
    all
}

/// Files that are read again whenever one changes.
pub struct Watched {
    manifests: Manifests,
    changes: watch::Changes,
    first: Reading,
}

impl Watched {
    /// Reads the files for the first time. Fails if a path cannot be read at all: that is no change to wait for.
    pub fn start(paths: Vec<PathBuf>, wanted: Wanted) -> Result<Self> {
        // In this order, so that no change is missed between the two.
        let changes = watch::changes(&paths)?;
        let mut manifests = Manifests::new(paths, wanted);
        let first = manifests.read()?;
        Ok(Self { manifests, changes, first })
    }

    /// Sends what the files say, now and after each change, until the agent's loop ends.
    pub async fn run(self, events: Events) -> Result<()> {
        let Self { mut manifests, mut changes, first } = self;
        let mut said = first.warnings.clone();
        send(first, &events).await?;
        let mut is_unread = false;
        loop {
            tokio::select! {
                changed = changes.next() => changed?,
                () = sleep(exhaustion::PAUSE), if is_unread => {}
            }
            is_unread = false;
            match manifests.read() {
                Ok(mut reading) => {
                    // What is still so need not be said again.
                    let warnings = reading.warnings.clone();
                    reading.warnings.retain(|warning| !said.contains(warning));
                    said = warnings;
                    send(reading, &events).await?;
                }
                Err(error) if is_exhausted(&error) => {
                    is_unread = true;
                    exhaustion::report(&error);
                }
                Err(error) => tracing::warn!("{error:#}; the tables stay as they are"),
            }
        }
    }
}

async fn send(reading: Reading, events: &Events) -> Result<()> {
    for warning in reading.warnings {
        tracing::warn!("{warning}");
    }
    for event in listed(reading.objects) {
        events.send(event).await?;
    }
    Ok(())
}

/// Objects as complete lists of every kind.
pub fn listed(objects: Vec<Object>) -> impl Iterator<Item = Event> {
    let mut kinds: BTreeMap<Kind, Vec<Object>> = Kind::ALL.iter().map(|kind| (*kind, Vec::new())).collect();
    for object in objects {
        kinds.entry(object.kind()).or_default().push(object);
    }
    kinds.into_iter().map(|(kind, objects)| Event::Listed(kind, objects))
}
