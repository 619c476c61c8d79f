//! Pauses, signals, and output without a terminal.

use std::fs::File;
use std::io::Read as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{INTERRUPTED, demo};

/// A part of the question that ends in each pause.
const QUESTION: &str = "[Enter: next step";

fn interrupt(demo: &Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(demo.id())?), Signal::SIGINT).context("failed to signal the demo")
}

#[test]
fn a_pause_ends_with_enter_or_with_a_signal() -> Result<()> {
    let OpenptyResult { master, slave } = openpty(None, None)?;
    let mut command = demo()?;
    command.arg("--interactive").stdin(slave.try_clone()?).stdout(slave).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    drop(command);
    let mut terminal = Terminal { file: File::from(master), shown: String::new() };
    terminal.await_questions(1)?;
    assert!(!terminal.shown.contains('✓'), "no step runs before the first Enter: {}", terminal.shown);
    terminal.file.write_all(b"\n")?;
    terminal.await_questions(2)?;
    assert_eq!(terminal.shown.matches('✓').count(), 1, "one step for each Enter: {}", terminal.shown);
    interrupt(&child)?;
    let mut errors = String::new();
    child.stderr.take().context("no standard error")?.read_to_string(&mut errors)?;
    assert_eq!(child.wait()?.code(), Some(INTERRUPTED), "{errors}");
    assert_eq!(errors, "interrupted; the demo has removed everything that it made\n");
    Ok(())
}

#[test]
fn output_to_a_pipe_is_plain() -> Result<()> {
    let mut child = demo()?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut lines = Vec::new();
    for line in output.lines() {
        lines.push(line?);
        // The first conclusion of a step.
        if lines.iter().filter(|line| line.contains('✓')).count() == 1 && lines.last().is_some_and(|line| line.contains('✓'))
        {
            interrupt(&child)?;
        }
    }
    assert!(lines.iter().all(|line| !line.contains('\x1b') && !line.contains(QUESTION)), "{lines:#?}");
    assert_eq!(child.wait()?.code(), Some(INTERRUPTED));
    Ok(())
}

/// The test's end of a pseudo terminal.
struct Terminal {
    file: File,
    /// All output so far.
    shown: String,
}

impl Terminal {
    /// Reads until the demo has asked this number of questions. Fails if the demo ends before.
    fn await_questions(&mut self, count: usize) -> Result<()> {
        let mut bytes = [0; 4096];
        while self.shown.matches(QUESTION).count() < count {
            let length = self.file.read(&mut bytes).with_context(|| format!("the demo ended: {}", self.shown))?;
            ensure!(length > 0, "the demo ended: {}", self.shown);
            self.shown += &String::from_utf8_lossy(&bytes[..length]);
        }
        Ok(())
    }
}
