//! Collects the test runner's report of failed tests. It is printed again at the end, because the output of all suites is long.

/// Largest number of lines per suite that are printed again.
const MAX_LINES: usize = 80;

/// The test runner's lines about a suite's failed tests.
#[derive(Debug, Default)]
pub struct Failures {
    lines: Vec<String>,
    /// Whether the next line is in the runner's section `failures:`.
    is_inside: bool,
}

impl Failures {
    /// Reads a line of the runner's output. Keeps the line if it is between `failures:` and `test result:` and not empty.
    pub fn add_line(&mut self, line: &str) {
        let line = line.trim_end();
        match line {
            "failures:" => self.is_inside = true,
            _ if line.starts_with("test result:") => self.is_inside = false,
            _ if self.is_inside && !line.is_empty() => self.lines.push(line.to_owned()),
            _ => {}
        }
    }

    /// The first [`MAX_LINES`] lines, indented, each after a line break. The number of the others follows.
    pub fn text(&self) -> String {
        let first = self.lines.iter().take(MAX_LINES).map(|line| format!("\n    {line}"));
        let rest = self.lines.len().saturating_sub(MAX_LINES);
        let rest = (rest > 0).then(|| format!("\n    ({rest} more lines are above)"));
        first.chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_failed_tests_are_kept() {
        let mut failures = Failures::default();
        for line in
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nbroken\n\nfailures:\n    b\n\
                     \ntest result: FAILED. 1 passed\nafter"
                .lines()
        {
            failures.add_line(line);
        }
        assert_eq!(failures.text(), "\n    ---- b stdout ----\n    broken\n        b");
    }

    #[test]
    fn a_long_report_is_cut() {
        let mut failures = Failures::default();
        failures.add_line("failures:");
        (0..MAX_LINES + 3).for_each(|number| failures.add_line(&number.to_string()));
        assert!(failures.text().ends_with("(3 more lines are above)"), "{}", failures.text());
    }
}
