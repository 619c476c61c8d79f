//! Measures and prints the time of each suite, so that slow tests are noticed.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::tally::Tally;
use crate::screen::Screen;

/// The name, duration and counts of each suite that has run.
#[derive(Default)]
pub struct Times(Vec<(String, Duration, Tally)>);

impl Times {
    /// Runs a suite, and records its time. Records nothing if `run` returns an error.
    pub fn of(&mut self, suite: &str, run: impl FnOnce() -> Result<Tally>) -> Result<Tally> {
        let begin = Instant::now();
        let tally = run()?;
        self.0.push((suite.to_owned(), begin.elapsed(), tally));
        Ok(tally)
    }

    /// Prints the times, slowest suite first.
    pub fn show(mut self) {
        self.0.sort_by_key(|(_, time, _)| std::cmp::Reverse(*time));
        Screen::Stdout.title("\ntime of each suite, including its build");
        for (suite, time, tally) in &self.0 {
            Screen::Stdout.line(&format!("{suite:<16} {:>5} s   {tally}", time.as_secs()));
        }
        let sum: Duration = self.0.iter().map(|(_, time, _)| *time).sum();
        Screen::Stdout.line(&format!("{:<16} {:>5} s", "all", sum.as_secs()));
    }
}
