//! Counts the tests in the output of a virtual machine, and prints the output.

use std::time::Duration;

use super::machine::End;
use crate::screen::Screen;
use crate::test::tally::Tally;

/// Number of lines at the end of a log that are shown if the machine did not run all suites.
const TAIL: usize = 60;

/// The line that portmap-guest prints after all suites have run, passed or failed.
const CLOSING: &str = "portmap-guest: all suites have run";

/// The result of one virtual machine.
pub struct Report {
    title: String,
    end: End,
    output: String,
    tally: Tally,
    /// Whether the output has the results of all suites and [`CLOSING`], and portmap-guest reported the end.
    is_complete: bool,
    took: Duration,
}

impl Report {
    /// Counts the tests in `output`. `suites` is the number of suites that the machine should run.
    pub fn new(title: String, end: End, output: String, suites: usize, took: Duration) -> Self {
        let tallies: Vec<Tally> = output.lines().filter_map(Tally::of_line).collect();
        let closed = output.lines().any(|line| line.trim_end() == CLOSING);
        let is_complete = closed && tallies.len() == suites && matches!(end, End::Passed | End::Failed);
        let mut tally = Tally::default();
        for counted in tallies {
            tally += counted;
        }
        tally = tally.with_skips(output.lines().filter_map(Tally::skip_of_line).count());
        // One failure is added if the output is incomplete, or if it contradicts the exit code: a failed test in a machine that
        // passed, or no failed test in a machine that failed.
        let is_consistent = is_complete && (tally.failed == 0) == (end == End::Passed);
        tally.failed += usize::from(!is_consistent);
        Self { title, end, output, tally, is_complete, took }
    }

    /// Prints the output of the machine, or only its last lines if not all suites have run. Returns the counts of tests.
    pub fn show(&self) -> Tally {
        Screen::Stdout.title(&format!("\nkernel {}", self.title));
        let lines: Vec<&str> = self.output.lines().map(str::trim_end).collect();
        let from = if self.is_complete { 0 } else { lines.len().saturating_sub(TAIL) };
        for line in &lines[from..] {
            Screen::Stdout.line(line);
        }
        Screen::Stdout.line(&format!("kernel {}: {} in {:.0} s", self.title, self.tally, self.took.as_secs_f32()));
        self.tally
    }

    /// The line for the summary at the end of the test run; `None` if the machine has no failure.
    pub fn remark(&self) -> Option<String> {
        let Self { title, end, tally, .. } = self;
        let reason = if self.is_complete { String::new() } else { format!(" did not run all of its suites: {end:?}") };
        (tally.failed > 0).then(|| format!("failed: kernel {title}{reason} ({tally})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s\r\n";
    const FAIL: &str = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\r\n";

    fn counted(end: End, output: &str) -> (usize, usize, bool) {
        let report = Report::new("6.1".into(), end, output.into(), 2, Duration::ZERO);
        (report.tally.passed, report.tally.failed, report.remark().is_some())
    }

    #[test]
    fn all_suites_count() {
        assert_eq!(counted(End::Passed, &format!("{PASS}{PASS}{CLOSING}\r\n")), (6, 0, false));
        assert_eq!(counted(End::Failed, &format!("{PASS}{FAIL}{CLOSING}\r\n")), (5, 1, true));
    }

    #[test]
    fn a_test_that_skips_a_part_does_not_count_as_passed() {
        let output = format!("test odd::mptcp ... skipped: multipath TCP (not before 5.16)\r\nok\r\n{PASS}{PASS}{CLOSING}\r\n");
        let report = Report::new("5.10".into(), End::Passed, output, 2, Duration::ZERO);
        assert_eq!(report.tally, Tally { passed: 5, failed: 0, skipped: 3 });
    }

    #[test]
    fn missing_output_is_a_failure() {
        assert_eq!(counted(End::Passed, &format!("{PASS}{CLOSING}\n")), (3, 1, true), "a suite");
        assert_eq!(counted(End::Passed, &format!("{PASS}{PASS}")), (6, 1, true), "the closing line");
        assert_eq!(counted(End::Crashed, PASS), (3, 1, true), "the end");
        assert_eq!(counted(End::Failed, &format!("{PASS}{PASS}{CLOSING}\n")), (6, 1, true), "a reason");
        assert_eq!(counted(End::Broken, ""), (0, 1, true), "everything");
    }
}
