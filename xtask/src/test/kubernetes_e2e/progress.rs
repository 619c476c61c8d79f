//! Copies the output of Kubernetes' tests to a log, and prints a line for each ended test.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result};

use crate::screen::{Mark, Screen};

/// Reads the output of ginkgo with `-v` until its end.
pub fn follow(mut output: impl BufRead, mut log: impl Write) -> Result<()> {
    let (mut progress, mut line) = (Progress::default(), Vec::new());
    while output.read_until(b'\n', &mut line).context("failed to read the output of the tests")? > 0 {
        log.write_all(&line).context("failed to write the log of the tests")?;
        if let Some(ended) = progress.add_line(&String::from_utf8_lossy(&line)) {
            let mark = if ended.is_failure { Mark::Missing } else { Mark::Done };
            Screen::Stderr.marked(mark, &ended.name, &ended.note);
        }
        line.clear();
    }
    Ok(())
}

/// A test that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    is_failure: bool,
    name: String,
    /// Result, time, and the number of ended and of all tests.
    note: String,
}

/// The state of reading.
#[derive(Default)]
struct Progress {
    ended: usize,
    /// Number of selected tests, as text.
    all: String,
    /// The result and time of the test whose name is in the next line.
    result: Option<String>,
}

impl Progress {
    /// Reads a line. A test's result such as `• [FAILED] [12.345 seconds]` comes before the line with its name.
    fn add_line(&mut self, line: &str) -> Option<Ended> {
        let line = line.trim_end();
        if let Some(result) = self.result.take() {
            self.ended += 1;
            let note = format!("{result}, {} of {}", self.ended, self.all);
            let is_failure = !result.starts_with("passed") && !result.starts_with("skipped");
            return Some(Ended { is_failure, name: without_labels(line).to_owned(), note });
        }
        if let Some(numbers) = line.strip_prefix("Will run ") {
            numbers.split(' ').next().unwrap_or_default().clone_into(&mut self.all);
        }
        self.result = result(line);
        None
    }
}

/// Parses `• [1.234 seconds]`, `• [FAILED] [1.234 seconds]` and `S [SKIPPED] [1.234 seconds]`.
fn result(line: &str) -> Option<String> {
    let time = line.strip_prefix("• [").or_else(|| line.strip_prefix("S [SKIPPED] ["))?;
    let seconds = time.rsplit_once('[').map_or(time, |(_, seconds)| seconds).strip_suffix(" seconds]")?;
    let seconds = seconds.split('.').next().unwrap_or_default();
    let word = match time.split_once(']') {
        _ if line.starts_with('S') => "skipped",
        Some((word, rest)) if !rest.is_empty() => word,
        _ => "passed",
    };
    Some(format!("{word} in {seconds} s"))
}

/// The name of a test without the list of its labels, which the runner appends.
fn without_labels(name: &str) -> &str {
    name.rfind(" [").filter(|_| name.ends_with(']')).map_or(name, |start| &name[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_is_joined_with_its_name() {
        let output = "Will run 3 of 3206 specs\n[SynchronizedBeforeSuite] PASSED [0.020 seconds]\n[SynchronizedBeforeSuite]\n\
                      • [15.001 seconds]\n[sig-network] Services a [Conformance] [sig-network, Conformance]\n  text\n\
                      • [FAILED] [130.5 seconds]\n[sig-network] Services [It] b [sig-network]\nS [SKIPPED] [0.1 seconds]\nc\n";
        let mut progress = Progress::default();
        let ended: Vec<_> = output.lines().filter_map(|line| progress.add_line(line)).collect();
        let rows: Vec<_> = ended.iter().map(|ended| (ended.is_failure, ended.name.as_str(), ended.note.as_str())).collect();
        assert_eq!(
            rows,
            [
                (false, "[sig-network] Services a [Conformance]", "passed in 15 s, 1 of 3"),
                (true, "[sig-network] Services [It] b", "FAILED in 130 s, 2 of 3"),
                (false, "c", "skipped in 0 s, 3 of 3"),
            ]
        );
    }
}
