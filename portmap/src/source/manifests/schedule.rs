//! Schedules reads of changed files, so that a file is usually read after its writer has closed it. A file that is not closed
//! within [`OPEN`] after the last write is read nevertheless. Pure.
//!
//! [`super::watch`] reports the changes, and [`super::follow`] reads the files that are due.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Delay after a file was closed by its writer, removed or touched, because it may be opened again or replaced.
const QUIET: Duration = Duration::from_millis(100);

/// Delay before an incomplete file is read again.
const DOUBT: Duration = Duration::from_secs(1);

/// Delay after the last write to a file, if its writer does not close it.
const OPEN: Duration = Duration::from_secs(5);

/// If the first change since the last read is at least this old, the file is read at once when its writer closes it.
const BUSY: Duration = Duration::from_secs(2);

/// Delay after a failed read.
const RETRY: Duration = Duration::from_secs(1);

/// A change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// A complete file was moved or linked to the name.
    Replaced,
    /// A process has created the file or written to it, and not closed it.
    Written,
    /// The writer has closed the file.
    Closed,
    /// The metadata of the file has changed (for example owner, mode or link count), or a list of the files showed a change.
    Touched,
    /// The file was deleted or moved away.
    Removed,
}

/// The changed files, with the time of their next read.
#[derive(Debug, Default)]
pub struct ReadSchedule(BTreeMap<PathBuf, Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    /// The time of the first change since the last read, or of that read if it failed or found an incomplete file.
    first: Instant,
    /// The time from which `wait` counts: the last change that moved the read, or the last failed or incomplete read.
    last: Instant,
    /// The time from `last` to the read.
    wait: Duration,
    mode: ReadMode,
}

/// Whether a read accepts a file that lacks objects of its former content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// A text that is invalid or lacks former objects is not accepted, because a process may still write the file.
    Tentative,
    /// Any text is accepted. An invalid text becomes a warning, and the former objects stay.
    Final,
}

impl ReadSchedule {
    /// Schedules a read after a change of a file. A change of metadata does not move a read that is already scheduled.
    pub fn changed(&mut self, path: PathBuf, change: FileChange, now: Instant) {
        let (wait, mode) = match change {
            FileChange::Replaced => (Duration::ZERO, ReadMode::Final),
            FileChange::Written => (OPEN, ReadMode::Final),
            FileChange::Closed | FileChange::Touched => (QUIET, ReadMode::Tentative),
            FileChange::Removed => (QUIET, ReadMode::Final),
        };
        let first = self.0.get(&path).map_or(now, |pending| pending.first);
        let is_busy = change == FileChange::Closed && now.duration_since(first) >= BUSY;
        let wait = if is_busy { Duration::ZERO } else { wait };
        let pending = Pending { first, last: now, wait, mode };
        if change == FileChange::Touched {
            self.0.entry(path).or_insert(pending);
        } else {
            self.0.insert(path, pending);
        }
    }

    /// Schedules a read of a file that a list of the files showed as changed.
    pub fn found(&mut self, path: PathBuf, now: Instant) {
        self.changed(path, FileChange::Touched, now);
    }

    /// Schedules another read of an incomplete file. That read accepts any text.
    pub fn read_again(&mut self, path: PathBuf, now: Instant) {
        self.0.insert(path, Pending { first: now, last: now, wait: DOUBT, mode: ReadMode::Final });
    }

    /// Schedules another read of a file whose read failed.
    pub fn retry(&mut self, path: PathBuf, now: Instant) {
        self.0.insert(path, Pending { first: now, last: now, wait: RETRY, mode: ReadMode::Final });
    }

    /// The time of the next read; `None` if no read is scheduled.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().map(Pending::due).min()
    }

    /// Removes and returns the files whose read is due.
    pub fn take(&mut self, now: Instant) -> Vec<(PathBuf, ReadMode)> {
        let due = self.0.extract_if(.., |_, pending| pending.due() <= now);
        due.map(|(path, pending)| (path, pending.mode)).collect()
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

    /// The time of the read after these changes, each with its time in milliseconds.
    fn read_at(changes: &[(u32, FileChange)]) -> Duration {
        let start = Instant::now();
        let mut schedule = ReadSchedule::default();
        for (at, change) in changes {
            let now = start + *at * MS;
            assert!(schedule.take(now).is_empty(), "a read is due before {change:?} at {at} ms");
            schedule.changed("web.yaml".into(), *change, now);
        }
        let due = schedule.due().expect("a read is scheduled");
        assert_eq!(schedule.take(due).len(), 1);
        assert_eq!(schedule.due(), None);
        due.duration_since(start)
    }

    #[test]
    fn a_replaced_file_is_read_at_once() {
        assert_eq!(read_at(&[(7, FileChange::Replaced)]), 7 * MS);
    }

    #[test]
    fn a_file_is_not_read_while_it_is_written() {
        let slow =
            [(0, FileChange::Written), (900, FileChange::Written), (4_000, FileChange::Written), (8_000, FileChange::Closed)];
        assert_eq!(read_at(&slow), 8_000 * MS);
        // A chmod does not end the wait for the writer.
        assert_eq!(read_at(&[(0, FileChange::Written), (500, FileChange::Touched)]), OPEN);
        // The writer opens and closes the file for each line.
        let lines = [
            (0, FileChange::Written),
            (1, FileChange::Closed),
            (60, FileChange::Written),
            (61, FileChange::Closed),
            (120, FileChange::Closed),
        ];
        assert_eq!(read_at(&lines), 120 * MS + QUIET);
    }

    #[test]
    fn a_file_that_is_not_closed_is_read_after_some_time() {
        assert_eq!(read_at(&[(0, FileChange::Written), (300, FileChange::Written)]), 300 * MS + OPEN);
    }

    #[test]
    fn a_file_that_is_written_all_the_time_is_read_when_it_is_closed() {
        let mut changes = Vec::new();
        for at in (0..2_000).step_by(50) {
            changes.extend([(at, FileChange::Written), (at + 40, FileChange::Closed)]);
        }
        changes.extend([(2_010, FileChange::Written), (2_030, FileChange::Closed)]);
        assert_eq!(read_at(&changes), 2_030 * MS);
    }

    /// The case of editors that move the old file away and create a new one.
    #[test]
    fn a_file_that_is_created_again_counts_as_changed() {
        assert_eq!(read_at(&[(0, FileChange::Removed), (20, FileChange::Written), (30, FileChange::Closed)]), 30 * MS + QUIET);
        assert_eq!(read_at(&[(0, FileChange::Removed)]), QUIET);
    }

    #[test]
    fn a_file_in_doubt_is_read_later() {
        let now = Instant::now();
        let mut schedule = ReadSchedule::default();
        schedule.changed("web.yaml".into(), FileChange::Closed, now);
        assert_eq!(schedule.take(now + QUIET), [("web.yaml".into(), ReadMode::Tentative)]);
        schedule.read_again("web.yaml".into(), now + QUIET);
        schedule.changed("web.yaml".into(), FileChange::Touched, now + QUIET);
        assert_eq!(schedule.take(now + 2 * QUIET), []);
        assert_eq!(schedule.take(now + QUIET + DOUBT), [("web.yaml".into(), ReadMode::Final)]);
    }
}
