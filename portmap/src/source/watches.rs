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

use super::Kind;

/// A watch that fails for less is nothing to tell anybody: it was broken off, and is being taken up again.
const PATIENCE: Duration = Duration::from_secs(15);

/// The watches that fail now.
#[derive(Debug, Default)]
pub struct Watches {
    /// When each failed first.
    failing: Mutex<BTreeMap<Kind, Instant>>,
    /// Whether files give Nodes, but not the own one.
    has_nodes_of_others: AtomicBool,
}

/// What is not heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The kinds of objects.
    pub kinds: Vec<Kind>,
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
pub fn nothing_heard_of(kinds: &[Kind]) -> String {
    let names: Vec<String> = kinds.iter().map(Kind::to_string).collect();
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

    /// A watch failed.
    pub fn fails(&self, kind: Kind) {
        self.lock().entry(kind).or_insert_with(Instant::now);
    }

    /// A watch works. True if it failed before.
    pub fn works(&self, kind: Kind) -> bool {
        self.lock().remove(&kind).is_some()
    }

    /// What has not been heard of for too long.
    pub fn outage(&self) -> Option<Outage> {
        let failing = self.lock();
        let lasting = failing.iter().filter(|(_, since)| since.elapsed() >= PATIENCE);
        let (kinds, all): (Vec<Kind>, Vec<Instant>) = lasting.unzip();
        Some(Outage { kinds, lasting: all.iter().min()?.elapsed() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Instant>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
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
        watches.fails(Kind::Slice);
        assert_eq!(watches.outage(), None, "it has only just begun");

        watches.lock().insert(Kind::Slice, ago(20));
        watches.lock().insert(Kind::Node, ago(30));
        watches.fails(Kind::Service);
        let outage = watches.outage().expect("an outage");
        assert_eq!(outage.kinds, [Kind::Slice, Kind::Node]);
        assert_eq!(outage.lasting.as_secs(), 30);
    }

    #[test]
    fn what_works_again_did_not_fail_for_long() {
        let watches = Watches::default();
        watches.lock().insert(Kind::Slice, ago(20));
        watches.fails(Kind::Slice);
        assert!(watches.outage().is_some(), "it fails since the first time");
        assert!(watches.works(Kind::Slice));
        assert!(!watches.works(Kind::Slice));
        assert_eq!(watches.outage(), None);
    }
}
