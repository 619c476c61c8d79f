//! Which watches fail, and since when: a source says so, the loop and the servers pass it on.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::model::event::ObjectKind;

/// A watch that fails for less is nothing to tell anybody: it was broken off, and is being taken up again.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request that is answered later than this has left a gap in what is heard.
const SILENCE: Duration = Duration::from_secs(1);

/// What happened during a gap has been told this long after it.
const CATCHING_UP: Duration = Duration::from_secs(2);

/// What is known of the watches.
#[derive(Debug, Default)]
pub struct Watches {
    states: Mutex<States>,
    /// Whether files give Nodes, but not the own one.
    has_nodes_of_others: AtomicBool,
}

#[derive(Debug, Default)]
struct States {
    /// When each of those that fail now failed first.
    failing: BTreeMap<ObjectKind, Instant>,
    /// Since when each of those that wait for an answer does.
    asking: BTreeMap<ObjectKind, Instant>,
    /// When each worked again after a gap.
    resumed: BTreeMap<ObjectKind, Instant>,
}

/// What is not heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The kinds of objects.
    pub kinds: Vec<ObjectKind>,
    /// How long ago the first of them failed.
    pub lasting: Duration,
}

/// As a sentence.
impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} s", nothing_heard_of(&self.kinds), self.lasting.as_secs())
    }
}

/// What is said of kinds whose watches fail.
pub fn nothing_heard_of(kinds: &[ObjectKind]) -> String {
    let names: Vec<String> = kinds.iter().map(ObjectKind::to_string).collect();
    format!("nothing is heard of {}", names.join(", "))
}

impl Watches {
    /// Says whether files give Nodes, but not the own one.
    pub fn set_nodes_of_others(&self, are_all: bool) {
        self.has_nodes_of_others.store(are_all, Ordering::Relaxed);
    }

    /// Whether files give Nodes, but not the own one.
    pub fn has_nodes_of_others(&self) -> bool {
        self.has_nodes_of_others.load(Ordering::Relaxed)
    }

    /// A watch has sent a request.
    pub fn asks(&self, kind: ObjectKind) {
        self.lock().asking.entry(kind).or_insert_with(Instant::now);
    }

    /// A watch failed.
    pub fn fails(&self, kind: ObjectKind) {
        self.lock().failing.entry(kind).or_insert_with(Instant::now);
    }

    /// A watch works. True if it failed before.
    pub fn works(&self, kind: ObjectKind) -> bool {
        let mut states = self.lock();
        let was_silent = states.asking.remove(&kind).is_some_and(|since| since.elapsed() >= SILENCE);
        let has_failed = states.failing.remove(&kind).is_some();
        if was_silent || has_failed {
            states.resumed.insert(kind, Instant::now());
        }
        has_failed
    }

    /// Whether a change is heard of within moments, and all those before have been. Of two watches one may hear of a change of an
    /// object, and the other may not.
    pub fn hears(&self, kind: ObjectKind) -> bool {
        let states = self.lock();
        let is_silent = states.asking.get(&kind).is_some_and(|since| since.elapsed() >= SILENCE);
        let is_behind = states.resumed.get(&kind).is_some_and(|since| since.elapsed() < CATCHING_UP);
        !(is_silent || is_behind || states.failing.contains_key(&kind))
    }

    /// What has not been heard of for too long.
    pub fn outage(&self) -> Option<Outage> {
        let states = self.lock();
        let lasting = states.failing.iter().filter(|(_, since)| since.elapsed() >= PATIENCE);
        let (kinds, all): (Vec<ObjectKind>, Vec<Instant>) = lasting.unzip();
        Some(Outage { kinds, lasting: all.iter().min()?.elapsed() })
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(seconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine is up")
    }

    #[test]
    fn an_outage_is_told_when_it_lasts() {
        let watches = Watches::default();
        watches.fails(ObjectKind::Slice);
        assert_eq!(watches.outage(), None, "it has only just begun");

        watches.lock().failing.insert(ObjectKind::Slice, ago(20));
        watches.lock().failing.insert(ObjectKind::Node, ago(30));
        watches.fails(ObjectKind::Service);
        let outage = watches.outage().expect("an outage");
        assert_eq!(outage.kinds, [ObjectKind::Slice, ObjectKind::Node]);
        assert_eq!(outage.lasting.as_secs(), 30);
    }

    #[test]
    fn what_works_again_did_not_fail_for_long() {
        let watches = Watches::default();
        watches.lock().failing.insert(ObjectKind::Slice, ago(20));
        watches.fails(ObjectKind::Slice);
        assert!(watches.outage().is_some(), "it fails since the first time");
        assert!(watches.works(ObjectKind::Slice));
        assert!(!watches.works(ObjectKind::Slice));
        assert_eq!(watches.outage(), None);
    }

    #[test]
    fn what_was_not_heard_of_is_told_some_time_after_the_gap() {
        let watches = Watches::default();
        watches.asks(ObjectKind::Slice);
        assert!(watches.hears(ObjectKind::Slice), "it has only just asked");
        assert!(!watches.works(ObjectKind::Slice));
        assert!(watches.hears(ObjectKind::Slice), "a watch that is taken up at once leaves no gap");

        watches.lock().asking.insert(ObjectKind::Slice, ago(1));
        assert!(!watches.hears(ObjectKind::Slice), "there is no answer");
        watches.works(ObjectKind::Slice);
        assert!(!watches.hears(ObjectKind::Slice), "what happened meanwhile is on its way");
        watches.lock().resumed.insert(ObjectKind::Slice, ago(2));
        assert!(watches.hears(ObjectKind::Slice));

        watches.fails(ObjectKind::Slice);
        assert!(!watches.hears(ObjectKind::Slice), "it fails");
        assert!(watches.hears(ObjectKind::Service), "that is another's");
    }
}
