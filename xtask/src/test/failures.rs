//! What the test runner says of tests that failed, kept to be said again at the end: the start of a long log is soon out of sight.

/// Lines that are kept of one suite.
const MOST: usize = 80;

/// The details of a suite's failed tests.
#[derive(Debug, Default)]
pub struct Failures {
    lines: Vec<String>,
    is_inside: bool,
}

impl Failures {
    /// Takes in a line of the runner. What lies between `failures:` and the result is kept.
    pub fn take(&mut self, line: &str) {
        let line = line.trim_end();
        match line {
            "failures:" => self.is_inside = true,
            _ if line.starts_with("test result:") => self.is_inside = false,
            _ if self.is_inside && !line.is_empty() => self.lines.push(line.to_owned()),
            _ => {}
        }
    }

    /// The kept lines, a text below a heading.
    pub fn text(&self) -> String {
        let kept = self.lines.iter().take(MOST).map(|line| format!("\n    {line}"));
        let rest = self.lines.len().saturating_sub(MOST);
        let rest = (rest > 0).then(|| format!("\n    ({rest} more lines are above)"));
        kept.chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_failed_tests_is_kept() {
        let mut failures = Failures::default();
        for line in
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nbroken\n\nfailures:\n    b\n\
                     \ntest result: FAILED. 1 passed\nafter"
                .lines()
        {
            failures.take(line);
        }
        assert_eq!(failures.text(), "\n    ---- b stdout ----\n    broken\n        b");
    }

    #[test]
    fn not_all_of_very_much_is_said_again() {
        let mut failures = Failures::default();
        failures.take("failures:");
        (0..MOST + 3).for_each(|number| failures.take(&number.to_string()));
        assert!(failures.text().ends_with("(3 more lines are above)"), "{}", failures.text());
    }
}
