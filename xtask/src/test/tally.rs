//! Counts tests from the output of Rust's test runner.

use std::fmt;
use std::ops::AddAssign;

/// The numbers of passed, failed and skipped tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that are ignored or skip something, and suites that cannot run here.
    pub skipped: usize,
}

impl Tally {
    /// The counts of a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; `None` for other lines.
    pub fn of_line(line: &str) -> Option<Self> {
        let result = line.trim_start().strip_prefix("test result: ")?;
        // The result before the counts may have colour codes.
        let (_result, counts) = result.split_once(". ")?;
        let count = |name| counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }

    /// The text from `skipped: ` on; `None` for other lines. `portmap_harness::say::skipped` prints it for a test that skips a
    /// part. The runner may have written the test's name before it.
    pub fn skip_of_line(line: &str) -> Option<&str> {
        line.find("skipped: ").map(|start| line[start..].trim_end())
    }

    /// Counts this number of passed tests, at most all, as skipped. The runner counts tests that skip a part as passed.
    pub fn with_skips(self, count: usize) -> Self {
        let count = count.min(self.passed);
        Self { passed: self.passed - count, skipped: self.skipped + count, ..self }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLY: Tally = Tally { passed: 12, failed: 3, skipped: 1 };

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.52s\n";
        assert_eq!(Tally::of_line(line), Some(TALLY));
    }

    #[test]
    fn coloured_result_lines_are_counted() {
        let line = "test result: \x1b[31mFAILED\x1b[m. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.52s\r\n";
        assert_eq!(Tally::of_line(line), Some(TALLY));
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "test tests::it ... ok",
            "running 3 tests",
            "test result: ok",
            "12 passed; 3 failed; 1 ignored",
            "test result: ok. x",
        ] {
            assert_eq!(Tally::of_line(line), None, "{line}");
        }
    }

    #[test]
    fn skips_are_found_and_counted() {
        let skip = "skipped: multipath TCP (not before 5.16)";
        assert_eq!(Tally::skip_of_line(&format!("{skip}\n")), Some(skip));
        assert_eq!(Tally::skip_of_line(&format!("test odd::mptcp ... {skip}\r\n")), Some(skip));
        assert_eq!(Tally::skip_of_line("test odd::mptcp ... ok\n"), None);
        assert_eq!(TALLY.with_skips(2), Tally { passed: 10, failed: 3, skipped: 3 });
        assert_eq!(TALLY.with_skips(13), Tally { passed: 0, failed: 3, skipped: 13 });
    }

    #[test]
    fn the_closing_line_is_plain() {
        let mut total = TALLY;
        total += TALLY;
        assert_eq!(total.to_string(), "24 passed, 6 failed, 2 skipped");
    }
}
