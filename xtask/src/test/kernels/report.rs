//! What a machine said, as a tally.

use std::time::Duration;

use super::machine::End;
use crate::screen::Screen;
use crate::test::tally::Tally;

/// Lines of the end of a log that are shown when the machine did not say itself what failed.
const TAIL: usize = 60;

/// A machine's last line; `portmap_guest` writes it.
const CLOSING: &str = "portmap-guest: all suites have run";

/// A machine after its end.
pub struct Report {
    title: String,
    end: End,
    said: String,
    tally: Tally,
    is_complete: bool,
    took: Duration,
}

impl Report {
    /// Of a machine that was to run so many suites.
    pub fn new(title: String, end: End, said: String, suites: usize, took: Duration) -> Self {
        let tallies: Vec<Tally> = said.lines().filter_map(Tally::of_line).collect();
        let closed = said.lines().any(|line| line.trim_end() == CLOSING);
        let is_complete = closed && tallies.len() == suites && matches!(end, End::Passed | End::Failed);
        let mut tally = Tally::default();
        for counted in tallies {
            tally += counted;
        }
        tally = tally.with_skips(said.lines().filter_map(Tally::skip_of_line).count());
        // A machine that passed has counted no failure, and one that did not pass has failed at least once.
        let is_explained = is_complete && (tally.failed == 0) == (end == End::Passed);
        tally.failed += usize::from(!is_explained);
        Self { title, end, said, tally, is_complete, took }
    }

    /// Shows what it said, and returns its counts.
    pub fn show(&self) -> Tally {
        Screen::Stdout.title(&format!("\nkernel {}", self.title));
        let lines: Vec<&str> = self.said.lines().map(str::trim_end).collect();
        let from = if self.is_complete { 0 } else { lines.len().saturating_sub(TAIL) };
        for line in &lines[from..] {
            Screen::Stdout.line(line);
        }
        Screen::Stdout.line(&format!("kernel {}: {} in {:.0} s", self.title, self.tally, self.took.as_secs_f32()));
        self.tally
    }

    /// What is to be repeated at the end of everything.
    pub fn remark(&self) -> Option<String> {
        let Self { title, end, tally, .. } = self;
        let what = if self.is_complete { String::new() } else { format!(" did not run all of its suites: {end:?}") };
        (tally.failed > 0).then(|| format!("failed: kernel {title}{what} ({tally})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s\r\n";
    const FAIL: &str = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\r\n";

    fn counted(end: End, said: &str) -> (usize, usize, bool) {
        let report = Report::new("6.1".into(), end, said.into(), 2, Duration::ZERO);
        (report.tally.passed, report.tally.failed, report.remark().is_some())
    }

    #[test]
    fn all_suites_count() {
        assert_eq!(counted(End::Passed, &format!("{PASS}{PASS}{CLOSING}\r\n")), (6, 0, false));
        assert_eq!(counted(End::Failed, &format!("{PASS}{FAIL}{CLOSING}\r\n")), (5, 1, true));
    }

    #[test]
    fn what_a_test_skips_has_not_passed() {
        let said = format!("test odd::mptcp ... skipped: multipath TCP (not before 5.16)\r\nok\r\n{PASS}{PASS}{CLOSING}\r\n");
        let report = Report::new("5.10".into(), End::Passed, said, 2, Duration::ZERO);
        assert_eq!(report.tally, Tally { passed: 5, failed: 0, skipped: 3 });
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        assert_eq!(counted(End::Passed, &format!("{PASS}{CLOSING}\n")), (3, 1, true), "a suite");
        assert_eq!(counted(End::Passed, &format!("{PASS}{PASS}")), (6, 1, true), "the closing line");
        assert_eq!(counted(End::Crashed, PASS), (3, 1, true), "the end");
        assert_eq!(counted(End::Failed, &format!("{PASS}{PASS}{CLOSING}\n")), (6, 1, true), "a reason");
        assert_eq!(counted(End::Broken, ""), (0, 1, true), "everything");
    }
}
