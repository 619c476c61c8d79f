//! Reads changed manifest files again, and sends the changes of their objects.
//!
//! [`super::watch`] reports changes of files, [`super::schedule`] decides when to read them, and [`super::Manifests`] reads
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    Manifests, ReadOutcome,
    objects::Selection,
    schedule::ReadSchedule,
    watch::{Notification, Watch},
};
use crate::{
    model::event::{Event, Object, ObjectKind, Wanted},
    source::{Events, Watches},
};

/// Delay of the next list of all files, because symbolic links and directories often change together.
const COALESCE: Duration = Duration::from_millis(50);

/// Delay before all files are listed again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Pause after a read, as a multiple of the read's duration. It limits the CPU time for files that change all the time.
const REST: u32 = 3;

/// With more changes than this, whole kinds of objects are sent as lists. The agent applies a list at once.
const MAX_SINGLE_EVENTS: usize = 100;

/// Manifest files that are read again when they change.
pub struct Watched {
    manifests: Manifests,
    watch: Watch,
    schedule: ReadSchedule,
    watches: Arc<Watches>,
    /// The time at which all files are listed again; none if nothing requires it.
    find_at: Option<Instant>,
    /// No read starts before this time.
    rest_until: Instant,
    /// The objects that were sent to the agent.
    sent: Selection,
    /// The current warnings, all of them logged.
    logged: BTreeSet<String>,
}

impl Watched {
    /// Reads all files for the first time.
    ///
    /// # Errors
    ///
    /// A path is missing or cannot be watched, a file fails with a temporary error, or standard input is invalid.
    pub fn start(paths: Vec<PathBuf>, wanted: Wanted, watches: Arc<Watches>) -> Result<Self> {
        // The watch starts before the read, so that no change is missed.
        let watch = Watch::start(&paths)?;
        let mut manifests = Manifests::new(paths, wanted);
        let now = Instant::now();
        let schedule = ReadSchedule::default();
        // A list without the objects of these files would remove them from the table.
        if let Some(path) = manifests.read_all()?.first() {
            bail!(
                "failed to read {} (no file descriptor or memory, or another temporary error); start the agent again",
                path.display()
            );
        }
        let (sent, logged) = (Selection::new(), BTreeSet::new());
        Ok(Self { manifests, watch, schedule, watches, find_at: None, rest_until: now, sent, logged })
    }

    /// Sends all objects of the files, then their changes.
    ///
    /// # Errors
    ///
    /// The agent's loop has ended, or the watch fails.
    pub async fn run(mut self, events: Events) -> Result<()> {
        // The first events are complete lists of all kinds, including kinds without objects.
        let selection = self.select();
        let objects = selection.values().map(|object| Object::clone(object)).collect();
        self.sent = selection;
        for event in super::listed(objects) {
            events.send(event).await?;
        }
        loop {
            let due = self.due();
            tokio::select! {
                notifications = self.watch.next() => self.take_in(notifications?),
                () = sleep_until(due) => {}
            }
            if self.rest_until <= Instant::now() && self.read_due() {
                let selection = self.select();
                for event in changes(&self.sent, &selection) {
                    events.send(event).await?;
                }
                self.sent = selection;
            }
        }
    }

    /// The time of the next list of files or read; `None` if none is scheduled.
    fn due(&self) -> Option<Instant> {
        let due = [self.find_at, self.schedule.due()].into_iter().flatten().min()?;
        Some(due.max(self.rest_until))
    }

    /// Schedules reads for the notifications of the watch.
    fn take_in(&mut self, notifications: Vec<Notification>) {
        let now = Instant::now();
        for notification in notifications {
            match notification {
                Notification::Paths => drop(self.find_at.get_or_insert(now + COALESCE)),
                Notification::File(path, change) => self.schedule.changed(path, change, now),
            }
        }
    }

    /// Lists the files if that is due, and reads the files that are due. Returns whether the objects or warnings may have
    /// changed.
    fn read_due(&mut self) -> bool {
        let start = Instant::now();
        let lists_files = self.find_at.is_some_and(|at| at <= start);
        if lists_files {
            self.find(start);
        }
        let mut has_changed = lists_files;
        for (path, mode) in self.schedule.take(start) {
            match self.manifests.update(&path, mode) {
                ReadOutcome::Same => {}
                ReadOutcome::Changed => has_changed = true,
                ReadOutcome::AddedOrRemoved => {
                    has_changed = true;
                    self.find_at.get_or_insert(start + COALESCE);
                }
                ReadOutcome::Incomplete => self.schedule.read_again(path, start),
                ReadOutcome::Failed => {
                    has_changed = true;
                    self.schedule.retry(path, start);
                }
            }
        }
        let now = Instant::now();
        self.rest_until = now + REST * now.duration_since(start);
        has_changed
    }

    /// Lists all files, and schedules a read of each changed file. After a failure, lists them again after [`RETRY`].
    fn find(&mut self, now: Instant) {
        self.find_at = None;
        // The watch is renewed before the list, so that no change is missed.
        let found = self.watch.renew().and_then(|()| self.manifests.find());
        match found {
            Ok(paths) => paths.into_iter().for_each(|path| self.schedule.found(path, now)),
            Err(error) => {
                tracing::warn!("{error:#}; trying again, and the tables stay as they are");
                self.find_at = Some(now + RETRY);
            }
        }
    }

    /// The objects that the agent should have now. Logs new warnings.
    fn select(&mut self) -> Selection {
        let (selection, warnings) = self.manifests.select();
        let warnings: BTreeSet<String> = warnings.into_iter().collect();
        for warning in warnings.difference(&self.logged) {
            tracing::warn!("{warning}");
        }
        self.logged = warnings;
        self.watches.set_nodes_of_others(self.manifests.lacks_own_node());
        selection
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The events from one selection to the next: single events, or lists of whole kinds for more than [`MAX_SINGLE_EVENTS`].
/// Single events add EndpointSlices before their Service and remove them after it, so that no client is refused in between.
fn changes(before: &Selection, after: &Selection) -> Vec<Event> {
    let is_same = |key: &(ObjectKind, _), object: &Arc<Object>| {
        before.get(key).is_some_and(|before| Arc::ptr_eq(before, object) || before == object)
    };
    let changed: Vec<_> = after.iter().filter(|(key, object)| !is_same(key, object)).collect();
    let removed: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
    if changed.len() + removed.len() > MAX_SINGLE_EVENTS {
        let kinds: BTreeSet<ObjectKind> =
            changed.iter().map(|((kind, _), _)| *kind).chain(removed.iter().map(|(kind, _)| *kind)).collect();
        let mut lists: BTreeMap<ObjectKind, Vec<Object>> = kinds.into_iter().map(|kind| (kind, Vec::new())).collect();
        for ((kind, _), object) in after {
            if let Some(list) = lists.get_mut(kind) {
                list.push(Object::clone(object));
            }
        }
        return lists.into_iter().rev().map(|(kind, objects)| Event::Listed(kind, objects)).collect();
    }
    let changed = changed.into_iter().rev().map(|(_, object)| Event::Changed(Object::clone(object)));
    changed.chain(removed.into_iter().map(|(kind, name)| Event::Removed(*kind, name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::manifests::schedule::ReadMode;

    fn service(name: &str, last: u8) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: 10.96.0.{last}, ports: [{{port: 80}}]}}}}\n"
        )
    }

    fn texts(events: &[Event]) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Changed(object) => format!("+{}", object.name().name()),
            Event::Removed(_, name) => format!("-{}", name.name()),
            Event::Listed(kind, objects) => format!("{} {kind}", objects.len()),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn only_what_changed_is_sent() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("all.yaml");
        let write = |services: &[(&str, u8)]| {
            let texts: Vec<String> = services.iter().map(|(name, last)| service(name, *last)).collect();
            fs::write(&path, texts.join("---\n")).expect("a file");
        };
        write(&[("a", 1), ("b", 2), ("c", 3)]);
        let wanted = Wanted { node: "node".into(), ..Wanted::default() };
        let mut manifests = Manifests::new(vec![directory.path().to_owned()], wanted);
        manifests.read_all().expect("reads");
        let (mut last, warnings) = manifests.select();
        assert_eq!(warnings, Vec::<String>::new());
        let mut step = |expected: ReadOutcome, expected_events: &[&str]| {
            assert_eq!(manifests.update(&path, ReadMode::Final), expected);
            let (next, _) = manifests.select();
            assert_eq!(texts(&changes(&last, &next)), expected_events);
            last = next;
        };
        step(ReadOutcome::Same, &[]);
        // The same text, written again.
        write(&[("a", 1), ("b", 2), ("c", 3)]);
        step(ReadOutcome::Same, &[]);
        write(&[("a", 1), ("b", 9), ("c", 3)]);
        step(ReadOutcome::Changed, &["+b"]);
        write(&[("a", 1), ("d", 4)]);
        step(ReadOutcome::Changed, &["+d", "-b", "-c"]);
        let many: Vec<(String, u8)> = (0..200).map(|last| (format!("s{last}"), last)).collect();
        write(&many.iter().map(|(name, last)| (name.as_str(), *last)).collect::<Vec<_>>());
        step(ReadOutcome::Changed, &["200 Services"]);
        fs::remove_file(&path).expect("a file");
        step(ReadOutcome::AddedOrRemoved, &["0 Services"]);
    }

    #[test]
    fn missing_objects_in_a_file_that_is_written_in_place_are_doubted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("all.yaml");
        let write = |text: &str| fs::write(&path, text).expect("a file");
        write(&format!("{}---\n{}", service("a", 1), service("b", 2)));
        let mut manifests = Manifests::new(vec![path.clone()], Wanted::default());
        manifests.read_all().expect("reads");
        let before = manifests.select().0;
        for cut in ["", "a: [1, 2", &service("a", 1)] {
            write(cut);
            assert_eq!(manifests.update(&path, ReadMode::Tentative), ReadOutcome::Incomplete, "{cut:?}");
            assert_eq!(manifests.select().0, before);
        }
        write(&service("a", 1));
        assert_eq!(manifests.update(&path, ReadMode::Final), ReadOutcome::Changed);
        assert_eq!(texts(&changes(&before, &manifests.select().0)), ["-b"]);
    }
}
