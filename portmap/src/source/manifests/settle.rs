//! When a file that changed is to be read: not while somebody writes to it. Pure.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A file that was closed by its writer, or is gone, may be opened again, or replaced.
const QUIET: Duration = Duration::from_millis(100);

/// A file of which much is missing suddenly.
const DOUBT: Duration = Duration::from_secs(1);

/// A file whose writer does not close it.
const OPEN: Duration = Duration::from_secs(5);

/// A file that is written all the time is read when its writer closes it, if it had no quiet for so long.
const BUSY: Duration = Duration::from_secs(2);

/// A file that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// What is heard of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Another file has its name now: it appeared whole.
    Replaced,
    /// Somebody writes to it, and has not closed it.
    Written,
    /// Its writer closed it.
    Closed,
    /// Its owner or mode changed, or how many names it has.
    Touched,
    /// Nothing has its name any more.
    Gone,
}

/// The files that are to be read.
#[derive(Debug, Default)]
pub struct Settling(BTreeMap<PathBuf, Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    last: Instant,
    wait: Duration,
    patience: Patience,
}

/// Whether what a file says now is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// If much is missing, it may be in the middle of being written.
    Some,
    /// It was quiet for long enough.
    None,
}

impl Settling {
    /// Something was heard of a file.
    pub fn note(&mut self, path: PathBuf, sign: Sign, now: Instant) {
        let (wait, patience) = match sign {
            Sign::Replaced => (Duration::ZERO, Patience::None),
            Sign::Written => (OPEN, Patience::None),
            Sign::Closed | Sign::Touched => (QUIET, Patience::Some),
            Sign::Gone => (QUIET, Patience::None),
        };
        let first = self.0.get(&path).map_or(now, |pending| pending.first);
        let is_busy = sign == Sign::Closed && now.duration_since(first) >= BUSY;
        let wait = if is_busy { Duration::ZERO } else { wait };
        let pending = Pending { first, last: now, wait, patience };
        if sign == Sign::Touched {
            self.0.entry(path).or_insert(pending);
        } else {
            self.0.insert(path, pending);
        }
    }

    /// A file was found to have changed, of which nothing may have been heard.
    pub fn found(&mut self, path: PathBuf, now: Instant) {
        self.note(path, Sign::Touched, now);
    }

    /// What a file says is not believed yet.
    pub fn doubt(&mut self, path: PathBuf, now: Instant) {
        self.0.insert(path, Pending { first: now, last: now, wait: DOUBT, patience: Patience::None });
    }

    /// A file could not be read.
    pub fn retry(&mut self, path: PathBuf, now: Instant) {
        self.0.insert(path, Pending { first: now, last: now, wait: RETRY, patience: Patience::None });
    }

    /// When the next file is to be read.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().map(Pending::due).min()
    }

    /// The files that are to be read now.
    pub fn take(&mut self, now: Instant) -> Vec<(PathBuf, Patience)> {
        let due = self.0.extract_if(.., |_, pending| pending.due() <= now);
        due.map(|(path, pending)| (path, pending.patience)).collect()
    }
}

impl Pending {
    fn due(&self) -> Instant {
        self.last + self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When a file is read of which these signs are heard, each so many milliseconds after the start.
    fn read_at(signs: &[(u32, Sign)]) -> Duration {
        let start = Instant::now();
        let mut settling = Settling::default();
        for (at, sign) in signs {
            let now = start + *at * MS;
            assert!(settling.take(now).is_empty(), "it is read before {sign:?} at {at} ms");
            settling.note("web.yaml".into(), *sign, now);
        }
        let due = settling.due().expect("it is read some time");
        assert_eq!(settling.take(due).len(), 1);
        assert_eq!(settling.due(), None);
        due.duration_since(start)
    }

    #[test]
    fn a_file_that_appears_whole_is_read_at_once() {
        assert_eq!(read_at(&[(7, Sign::Replaced)]), 7 * MS);
    }

    #[test]
    fn a_file_is_not_read_while_somebody_writes_to_it() {
        let slow = [(0, Sign::Written), (900, Sign::Written), (4_000, Sign::Written), (8_000, Sign::Closed)];
        assert_eq!(read_at(&slow), 8_000 * MS);
        // A chmod is no end of it.
        assert_eq!(read_at(&[(0, Sign::Written), (500, Sign::Touched)]), OPEN);
        // One line after the other, by a writer that opens it each time.
        let lines = [(0, Sign::Written), (1, Sign::Closed), (60, Sign::Written), (61, Sign::Closed), (120, Sign::Closed)];
        assert_eq!(read_at(&lines), 120 * MS + QUIET);
    }

    #[test]
    fn a_writer_that_does_not_close_its_file_is_waited_for_only_so_long() {
        assert_eq!(read_at(&[(0, Sign::Written), (300, Sign::Written)]), 300 * MS + OPEN);
    }

    #[test]
    fn a_file_that_is_written_all_the_time_is_read_when_it_is_closed() {
        let mut signs = Vec::new();
        for at in (0..2_000).step_by(50) {
            signs.extend([(at, Sign::Written), (at + 40, Sign::Closed)]);
        }
        signs.extend([(2_010, Sign::Written), (2_030, Sign::Closed)]);
        assert_eq!(read_at(&signs), 2_030 * MS);
    }

    /// As editors save: the old file away, a new one in its place.
    #[test]
    fn a_file_that_comes_back_was_never_gone() {
        assert_eq!(read_at(&[(0, Sign::Gone), (20, Sign::Written), (30, Sign::Closed)]), 30 * MS + QUIET);
        assert_eq!(read_at(&[(0, Sign::Gone)]), QUIET);
    }

    #[test]
    fn a_file_in_doubt_is_read_later() {
        let now = Instant::now();
        let mut settling = Settling::default();
        settling.note("web.yaml".into(), Sign::Closed, now);
        assert_eq!(settling.take(now + QUIET), [("web.yaml".into(), Patience::Some)]);
        settling.doubt("web.yaml".into(), now + QUIET);
        settling.note("web.yaml".into(), Sign::Touched, now + QUIET);
        assert_eq!(settling.take(now + 2 * QUIET), []);
        assert_eq!(settling.take(now + QUIET + DOUBT), [("web.yaml".into(), Patience::None)]);
    }
}
