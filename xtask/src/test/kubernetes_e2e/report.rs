//! Reads the JSON report of Kubernetes' tests, and prints the results.

use std::cmp::Reverse;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::screen::Screen;
use crate::test::tally::Tally;

/// Number of characters of a failure's message that are printed.
const MESSAGE_LENGTH: usize = 200;

/// The result of one test.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    state: State,
    name: String,
    time: Duration,
    /// The reason for a failure or skip, in one line.
    message: String,
}

/// The result of a test, in the order in which results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Passed,
    Skipped,
    Failed,
}

/// The results of all tests that were selected.
#[derive(Debug)]
pub struct Report(Vec<Outcome>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

/// A test in the report of ginkgo.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    /// Nanoseconds.
    run_time: u64,
    #[serde(default)]
    failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Report {
    /// Reads the report from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("failed to parse {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let suites: Vec<Suite> = serde_json::from_str(text)?;
        let specs = suites.into_iter().filter_map(|suite| suite.spec_reports).flatten();
        let mut outcomes: Vec<_> = specs.filter_map(Spec::outcome).collect();
        outcomes.sort_by(|one, other| (one.state, &one.name).cmp(&(other.state, &other.name)));
        Ok(Self(outcomes))
    }

    /// Prints a line for each test, and then the counts.
    pub fn show(&self) {
        Screen::Stdout.line("");
        for outcome in &self.0 {
            let word = match outcome.state {
                State::Passed => "passed",
                State::Skipped => "skipped",
                State::Failed => "FAILED",
            };
            Screen::Stdout.line(&format!("{word:<8} {:>6.1} s  {}", outcome.time.as_secs_f32(), outcome.name));
            if !outcome.message.is_empty() {
                Screen::Stdout.line(&format!("{:19}{}", "", outcome.message));
            }
        }
        self.show_slowest();
        Screen::Stdout.line(&self.tally().to_string());
    }

    /// The numbers of passed, failed and skipped tests.
    pub fn tally(&self) -> Tally {
        let count = |state| self.0.iter().filter(|outcome| outcome.state == state).count();
        Tally { passed: count(State::Passed), failed: count(State::Failed), skipped: count(State::Skipped) }
    }

    fn show_slowest(&self) {
        if let Some(slowest) = self.0.iter().min_by_key(|outcome| Reverse(outcome.time)) {
            Screen::Stdout.line(&format!("\nslowest: {} ({} s)", slowest.name, slowest.time.as_secs()));
        }
    }
}

impl Spec {
    /// The outcome of a test; `None` for tests that were not selected, and for steps of the suite that passed.
    fn outcome(self) -> Option<Outcome> {
        let message = &self.failure.message;
        let state = match self.state.as_str() {
            "passed" => State::Passed,
            // Tests that were not selected have no message.
            "skipped" | "pending" if message.is_empty() => return None,
            "skipped" => State::Skipped,
            _ => State::Failed,
        };
        if self.leaf_node_type != "It" && state != State::Failed {
            return None;
        }
        let mut words = self.container_hierarchy_texts.unwrap_or_default();
        words.push(self.leaf_node_text);
        words.retain(|word| !word.is_empty());
        let name = if self.leaf_node_type == "It" { words.join(" ") } else { format!("[{}]", self.leaf_node_type) };
        Some(Outcome { state, name, time: Duration::from_nanos(self.run_time), message: shorten(message) })
    }
}

/// The beginning of a message, in one line.
fn shorten(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MESSAGE_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"[{"SuitePath": "/x", "SpecReports": [
        {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed",
         "RunTime": 5},
        {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "b", "State": "failed",
         "RunTime": 2000000000, "Failure": {"Message": "timed\n  out", "Location": {}}},
        {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "a", "State": "passed",
         "RunTime": 1500000000},
        {"ContainerHierarchyTexts": ["x"], "LeafNodeType": "It", "LeafNodeText": "not selected", "State": "skipped", "RunTime": 0},
        {"ContainerHierarchyTexts": ["x"], "LeafNodeType": "It", "LeafNodeText": "c", "State": "skipped", "RunTime": 0,
         "Failure": {"Message": "needs SCTP"}},
        {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedAfterSuite", "LeafNodeText": "", "State": "timedout",
         "RunTime": 5}
    ]}]"#;

    #[test]
    fn selected_tests_are_read_and_failures_come_last() -> Result<()> {
        let report = Report::parse(REPORT)?;
        let rows: Vec<_> =
            report.0.iter().map(|outcome| (outcome.state, outcome.name.as_str(), outcome.message.as_str())).collect();
        assert_eq!(
            rows,
            [
                (State::Passed, "[sig-network] Services a", ""),
                (State::Skipped, "x c", "needs SCTP"),
                (State::Failed, "[SynchronizedAfterSuite]", ""),
                (State::Failed, "[sig-network] Services b", "timed out"),
            ]
        );
        assert_eq!(report.tally(), Tally { passed: 1, failed: 2, skipped: 1 });
        Ok(())
    }
}
