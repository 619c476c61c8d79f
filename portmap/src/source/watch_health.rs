//! The state of the watches of objects: which watches fail, and since when.
//!
//! `kube` reports successes and failures here, and `manifests` a missing Node. `agent` and `serve` publish them.

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

/// The time after which a failing watch is reported. An interrupted watch usually continues within seconds.
const REPORT_AFTER: Duration = Duration::from_secs(15);

/// The duration from which on a response delays events noticeably.
const SLOW: Duration = Duration::from_secs(1);

/// The time for a watch to catch up after a failure or delay: then all delayed events should have arrived.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The state of all watches of a source.
#[derive(Debug, Default)]
pub struct Watches {
    states: Mutex<States>,
    /// Whether the manifest files have Nodes, but not the Node of the agent.
    has_nodes_of_others: AtomicBool,
}

#[derive(Debug, Default)]
struct States {
    /// The watches that fail, with the time of the first failure since their last success.
    failing: BTreeMap<ObjectKind, Instant>,
    /// The watches that wait for a successful response, with the time of the first request since the last success.
    waiting: BTreeMap<ObjectKind, Instant>,
    /// The last time at which each watch worked again after a failure or delay.
    resumed: BTreeMap<ObjectKind, Instant>,
}

/// Watches that fail for at least 15 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The kinds of objects whose watches fail, in order.
    pub kinds: Vec<ObjectKind>,
    /// The time since the first failure of these watches.
    pub lasting: Duration,
}

/// The watches and the time, as a sentence for `/readyz`.
impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} s", failing_watches(&self.kinds), self.lasting.as_secs())
    }
}

/// A sentence about the kinds whose watches fail.
pub fn failing_watches(kinds: &[ObjectKind]) -> String {
    let names: Vec<String> = kinds.iter().map(ObjectKind::to_string).collect();
    format!("the watch of {} fails", names.join(", "))
}

impl Watches {
    /// Sets whether the manifest files have Nodes, but not the Node of the agent.
    pub fn set_nodes_of_others(&self, has_nodes_of_others: bool) {
        self.has_nodes_of_others.store(has_nodes_of_others, Ordering::Relaxed);
    }

    /// Whether the manifest files have Nodes, but not the Node of the agent. False for an API server.
    pub fn has_nodes_of_others(&self) -> bool {
        self.has_nodes_of_others.load(Ordering::Relaxed)
    }

    /// Records that a watch has sent a request, unless an earlier request waits for a successful response.
    pub fn requested(&self, kind: ObjectKind) {
        self.lock().waiting.entry(kind).or_insert_with(Instant::now);
    }

    /// Records that a watch failed. The time of an earlier failure stays until the watch succeeds.
    pub fn failed(&self, kind: ObjectKind) {
        self.lock().failing.entry(kind).or_insert_with(Instant::now);
    }

    /// Records that a watch works. Returns whether it failed since its last success.
    pub fn succeeded(&self, kind: ObjectKind) -> bool {
        let mut states = self.lock();
        let was_slow = states.waiting.remove(&kind).is_some_and(|since| since.elapsed() >= SLOW);
        let has_failed = states.failing.remove(&kind).is_some();
        if was_slow || has_failed {
            states.resumed.insert(kind, Instant::now());
        }
        has_failed
    }

    /// Whether the events of a kind are up to date: its watch neither fails nor waits for a late response, and has caught up
    /// after its last failure or delay.
    ///
    /// Own Services and Services of other proxies have separate watches. A Service whose label moves it from one to the other
    /// may be missing in both while one watch is late. Its ClusterIP must not count as unallocated then.
    pub fn is_current(&self, kind: ObjectKind) -> bool {
        let states = self.lock();
        let is_slow = states.waiting.get(&kind).is_some_and(|since| since.elapsed() >= SLOW);
        let is_behind = states.resumed.get(&kind).is_some_and(|since| since.elapsed() < CATCH_UP);
        !(is_slow || is_behind || states.failing.contains_key(&kind))
    }

    /// The watches that fail for at least 15 seconds; `None` if there is none.
    pub fn outage(&self) -> Option<Outage> {
        let states = self.lock();
        let lasting = states.failing.iter().filter(|(_, since)| since.elapsed() >= REPORT_AFTER);
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
    fn an_outage_is_reported_after_some_time() {
        let watches = Watches::default();
        watches.failed(ObjectKind::Slice);
        assert_eq!(watches.outage(), None, "the watch fails since a moment");

        watches.lock().failing.insert(ObjectKind::Slice, ago(20));
        watches.lock().failing.insert(ObjectKind::Node, ago(30));
        watches.failed(ObjectKind::Service);
        let outage = watches.outage().expect("an outage");
        assert_eq!(outage.kinds, [ObjectKind::Slice, ObjectKind::Node]);
        assert_eq!(outage.lasting.as_secs(), 30);
    }

    #[test]
    fn a_watch_that_works_again_has_no_outage() {
        let watches = Watches::default();
        watches.lock().failing.insert(ObjectKind::Slice, ago(20));
        watches.failed(ObjectKind::Slice);
        assert!(watches.outage().is_some(), "the time of the first failure counts");
        assert!(watches.succeeded(ObjectKind::Slice));
        assert!(!watches.succeeded(ObjectKind::Slice));
        assert_eq!(watches.outage(), None);
    }

    #[test]
    fn a_watch_is_up_to_date_some_time_after_a_delay() {
        let watches = Watches::default();
        watches.requested(ObjectKind::Slice);
        assert!(watches.is_current(ObjectKind::Slice), "the request is a moment old");
        assert!(!watches.succeeded(ObjectKind::Slice));
        assert!(watches.is_current(ObjectKind::Slice), "a quick response is no delay");

        watches.lock().waiting.insert(ObjectKind::Slice, ago(1));
        assert!(!watches.is_current(ObjectKind::Slice), "there is no response");
        watches.succeeded(ObjectKind::Slice);
        assert!(!watches.is_current(ObjectKind::Slice), "delayed events may still arrive");
        watches.lock().resumed.insert(ObjectKind::Slice, ago(2));
        assert!(watches.is_current(ObjectKind::Slice));

        watches.failed(ObjectKind::Slice);
        assert!(!watches.is_current(ObjectKind::Slice), "the watch fails");
        assert!(watches.is_current(ObjectKind::Service), "that is another watch");
    }
}
