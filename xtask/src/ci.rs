//! `cargo xtask ci`: everything that must hold before a change is accepted, in one command.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::audit::{self, AuditArgs};
use crate::lint;
use crate::msrv;
use crate::screen::Screen;
use crate::setup::{self, SetupArgs};
use crate::test::{self, TestArgs};

/// Run everything that must hold before a change is accepted: setup, lint and test
///
/// Stops at the first stage that fails. The last lines have the time of each stage.
#[derive(clap::Args)]
pub struct CiArgs {
    /// Also run `msrv` and `audit`, which compile everything once more, or their own tools
    #[arg(long)]
    all: bool,
}

/// The name of a stage, and its command.
type Stage = (&'static str, fn() -> Result<ExitCode>);

const STAGES: [Stage; 3] = [
    ("setup", || setup::run(&SetupArgs::default())),
    ("lint", || lint::run(&lint::Args::default())),
    ("test", || test::run(&TestArgs::default())),
];

/// The stages of `--all` only.
const LONG: [Stage; 2] = [("msrv", || msrv::run(&msrv::Args::default())), ("audit", || audit::run(&AuditArgs::default()))];

/// Runs the stages in order until one fails, and prints the time of each. Returns the exit code of the last one.
pub fn run(args: &CiArgs) -> Result<ExitCode> {
    let (result, times) = run_stages(STAGES.into_iter().chain(LONG.into_iter().filter(|_| args.all)));
    Screen::Stdout.title("\ntime of each stage");
    for (name, time) in &times {
        Screen::Stdout.line(&format!("{name:<8} {:>5} s", time.as_secs()));
    }
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    Screen::Stdout.line(&format!("{:<8} {:>5} s", "all", sum.as_secs()));
    result
}

fn run_stages(stages: impl Iterator<Item = Stage>) -> (Result<ExitCode>, Vec<(&'static str, Duration)>) {
    let mut times = Vec::new();
    for (name, stage) in stages {
        Screen::Stderr.title(&format!("\nstage {name}"));
        let begin = Instant::now();
        let result = stage();
        times.push((name, begin.elapsed()));
        if !matches!(result, Ok(ExitCode::SUCCESS)) {
            return (result, times);
        }
    }
    (Ok(ExitCode::SUCCESS), times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(times: &[(&'static str, Duration)]) -> Vec<&'static str> {
        times.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn a_failed_stage_is_the_last() {
        let good: Stage = ("good", || Ok(ExitCode::SUCCESS));
        let bad: Stage = ("bad", || Ok(ExitCode::FAILURE));
        let broken: Stage = ("broken", || anyhow::bail!("no"));
        let (result, times) = run_stages([good, good].into_iter());
        assert!(result.is_ok_and(|code| code == ExitCode::SUCCESS));
        assert_eq!(names(&times), ["good", "good"]);
        let (result, times) = run_stages([good, bad, good].into_iter());
        assert!(result.is_ok_and(|code| code == ExitCode::FAILURE));
        assert_eq!(names(&times), ["good", "bad"]);
        let (result, times) = run_stages([broken, good].into_iter());
        assert!(result.is_err());
        assert_eq!(names(&times), ["broken"]);
    }
}
