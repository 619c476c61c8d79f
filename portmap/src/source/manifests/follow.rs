//! Files that are read again when they change, by an agent.

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
    settle::Settling,
    watch::{Watch, Word},
};
use crate::{
    model::event::{Event, Object, ObjectKind, Wanted},
    source::{Events, Watches},
};

/// Links and directories often change together.
const COALESCE: Duration = Duration::from_millis(50);

/// What could not be looked at is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// A look is followed by this many times its length of rest: files that change all the time take a part of a processor.
const REST: u32 = 3;

/// With more changes a kind is sent as a list: it is taken in at once.
const MANY: usize = 100;

/// Files that are read again when they change.
pub struct Watched {
    manifests: Manifests,
    watch: Watch,
    settling: Settling,
    watches: Arc<Watches>,
    /// When the paths are to be looked at.
    find_at: Option<Instant>,
    /// No look before.
    rest_until: Instant,
    sent: Selection,
    said: BTreeSet<String>,
}

impl Watched {
    /// Reads the files for the first time. Fails if a path cannot be read at all: that is no change to wait for.
    pub fn start(paths: Vec<PathBuf>, wanted: Wanted, watches: Arc<Watches>) -> Result<Self> {
        // In this order, so that no change is missed between the two.
        let watch = Watch::start(&paths)?;
        let mut manifests = Manifests::new(paths, wanted);
        let now = Instant::now();
        let settling = Settling::default();
        // A list without these files would take their objects out of the tables.
        if let Some(path) = manifests.read_all()?.first() {
            bail!("failed to read {} for want of descriptors or memory; start the agent again", path.display());
        }
        let (sent, said) = (Selection::new(), BTreeSet::new());
        Ok(Self { manifests, watch, settling, watches, find_at: None, rest_until: now, sent, said })
    }

    /// Sends what the files say, now and after each change, until the agent's loop ends.
    pub async fn run(mut self, events: Events) -> Result<()> {
        // Complete lists at first, also of what there is none of.
        let selection = self.select();
        let objects = selection.values().map(|object| Object::clone(object)).collect();
        self.sent = selection;
        for event in super::listed(objects) {
            events.send(event).await?;
        }
        loop {
            let due = self.due();
            tokio::select! {
                words = self.watch.next() => self.hear(words?),
                () = sleep_until(due) => {}
            }
            if self.rest_until <= Instant::now() && self.look() {
                let selection = self.select();
                for event in changes(&self.sent, &selection) {
                    events.send(event).await?;
                }
                self.sent = selection;
            }
        }
    }

    /// When there is something to look at.
    fn due(&self) -> Option<Instant> {
        let due = [self.find_at, self.settling.due()].into_iter().flatten().min()?;
        Some(due.max(self.rest_until))
    }

    fn hear(&mut self, words: Vec<Word>) {
        let now = Instant::now();
        for word in words {
            match word {
                Word::Way => drop(self.find_at.get_or_insert(now + COALESCE)),
                Word::File(path, sign) => self.settling.note(path, sign, now),
            }
        }
    }

    /// Looks at what is due. True if anything of the objects may have changed, or of what is wrong.
    fn look(&mut self) -> bool {
        let start = Instant::now();
        let is_looked_for = self.find_at.is_some_and(|at| at <= start);
        if is_looked_for {
            self.find(start);
        }
        let mut has_changed = is_looked_for;
        for (path, patience) in self.settling.take(start) {
            match self.manifests.update(&path, patience) {
                ReadOutcome::Same => {}
                ReadOutcome::Changed => has_changed = true,
                ReadOutcome::Moved => {
                    has_changed = true;
                    self.find_at.get_or_insert(start + COALESCE);
                }
                ReadOutcome::Doubtful => self.settling.doubt(path, start),
                ReadOutcome::Failed => {
                    has_changed = true;
                    self.settling.retry(path, start);
                }
            }
        }
        let now = Instant::now();
        self.rest_until = now + REST * now.duration_since(start);
        has_changed
    }

    /// Looks which files there are now.
    fn find(&mut self, now: Instant) {
        self.find_at = None;
        // In this order, so that no change is missed between the two.
        let found = self.watch.renew().and_then(|()| self.manifests.find());
        match found {
            Ok(paths) => paths.into_iter().for_each(|path| self.settling.found(path, now)),
            Err(error) => {
                tracing::warn!("{error:#}; trying again, and the tables stay as they are");
                self.find_at = Some(now + RETRY);
            }
        }
    }

    /// All objects that count. Says what is wrong with them, and has not been said.
    fn select(&mut self) -> Selection {
        let (selection, warnings) = self.manifests.select();
        let warnings: BTreeSet<String> = warnings.into_iter().collect();
        for warning in warnings.difference(&self.said) {
            tracing::warn!("{warning}");
        }
        self.said = warnings;
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

/// What makes one selection of another. Endpoints come before their Service and go after it, so that nobody is refused
/// meanwhile.
fn changes(before: &Selection, after: &Selection) -> Vec<Event> {
    let is_same = |key: &(ObjectKind, _), object: &Arc<Object>| {
        before.get(key).is_some_and(|before| Arc::ptr_eq(before, object) || before == object)
    };
    let changed: Vec<_> = after.iter().filter(|(key, object)| !is_same(key, object)).collect();
    let removed: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
    if changed.len() + removed.len() > MANY {
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
    use crate::source::manifests::settle::Patience;

    fn service(name: &str, last: u8) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: 10.96.0.{last}, ports: [{{port: 80}}]}}}}\n"
        )
    }

    fn words(events: &[Event]) -> Vec<String> {
        let word = |event: &Event| match event {
            Event::Changed(object) => format!("+{}", object.name().name()),
            Event::Removed(_, name) => format!("-{}", name.name()),
            Event::Listed(kind, objects) => format!("{} {kind}", objects.len()),
        };
        events.iter().map(word).collect()
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
        let mut step = |expected: ReadOutcome, words_expected: &[&str]| {
            assert_eq!(manifests.update(&path, Patience::None), expected);
            let (next, _) = manifests.select();
            assert_eq!(words(&changes(&last, &next)), words_expected);
            last = next;
        };
        step(ReadOutcome::Same, &[]);
        // The same text in another file.
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
        step(ReadOutcome::Moved, &["0 Services"]);
    }

    #[test]
    fn what_is_missing_in_a_file_that_is_written_in_place_is_doubted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("all.yaml");
        let write = |text: &str| fs::write(&path, text).expect("a file");
        write(&format!("{}---\n{}", service("a", 1), service("b", 2)));
        let mut manifests = Manifests::new(vec![path.clone()], Wanted::default());
        manifests.read_all().expect("reads");
        let before = manifests.select().0;
        for cut in ["", "a: [1, 2", &service("a", 1)] {
            write(cut);
            assert_eq!(manifests.update(&path, Patience::Some), ReadOutcome::Doubtful, "{cut:?}");
            assert_eq!(manifests.select().0, before);
        }
        write(&service("a", 1));
        assert_eq!(manifests.update(&path, Patience::None), ReadOutcome::Changed);
        assert_eq!(words(&changes(&before, &manifests.select().0)), ["-b"]);
    }
}
