//! Counting what Rust's test runner reports.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that are ignored, and suites that cannot run here.
    pub skipped: usize,
}

impl Tally {
    /// What a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` counts; nothing for every other line.
    pub fn of_line(line: &str) -> Option<Self> {
        let result = line.trim_start().strip_prefix("test result: ")?;
        // The word before the counts may be in colour.
        let (_verdict, counts) = result.split_once(". ")?;
        let count = |what| counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
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
    fn the_closing_line_is_plain() {
        let mut total = TALLY;
        total += TALLY;
        assert_eq!(total.to_string(), "24 passed, 6 failed, 2 skipped");
    }
}
