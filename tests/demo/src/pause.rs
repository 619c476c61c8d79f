//! `--interactive`: waits for Enter before each step.

use std::io::{self, IsTerminal as _};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::interrupt::Interrupts;
use crate::screen::{self, Screen};

/// The pauses before the steps. After the end of standard input (Ctrl-D) there are none.
pub struct Pauses {
    /// A message for each line of standard input; `None` without pauses.
    lines: Option<UnboundedReceiver<()>>,
}

impl Pauses {
    /// No pauses.
    pub const NONE: Self = Self { lines: None };

    /// Starts to read lines from standard input.
    pub fn start() -> Result<Self> {
        let (sender, lines) = unbounded_channel();
        // The thread is never joined, because a read of the terminal cannot be cancelled.
        let read = move || io::stdin().lines().map_while(Result::ok).try_for_each(|_| sender.send(()));
        thread::Builder::new().spawn(read).context("failed to start a thread")?;
        Ok(Self { lines: Some(lines) })
    }

    /// Waits for Enter, for the end of standard input, or for a signal. Fails after a signal.
    pub fn wait(&mut self, screen: Screen, interrupts: &Interrupts) -> Result<()> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        screen.prompt("[Enter: next step · Ctrl-D: all other steps · Ctrl-C: stop] ")?;
        if interrupts.before_signal(lines.recv()).flatten().is_none() {
            self.lines = None;
            // Ctrl-D and Ctrl-C leave the cursor behind the question.
            screen::print("")?;
        }
        Ok(interrupts.check(&Ok(()))?)
    }
}

/// Fails unless standard input and standard output are terminals.
pub fn check_terminal() -> Result<()> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "--interactive needs a terminal as standard input and standard output: run it without pipes, or leave out the option"
    );
    Ok(())
}
