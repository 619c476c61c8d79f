//! A running `portmap cleanup --drain`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The process. Dropping this kills it.
pub struct Drain {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Drain {
    /// Starts the command. Returns when portmap opens no flow any more.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("failed to run portmap cleanup")?;
        let mut stdout = BufReader::new(child.stdout.take().context("portmap cleanup has no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line).context("failed to read the output of portmap cleanup")?;
        ensure!(line.starts_with("new connections are left to another proxy"), "portmap cleanup printed {line:?}");
        Ok(Self { child, stdout })
    }

    /// Whether it waits.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("failed to look at portmap cleanup")?.is_none())
    }

    /// Waits for its end. Fails unless everything was removed.
    pub fn finish(mut self) -> Result<()> {
        let mut output = String::new();
        self.stdout.read_to_string(&mut output).context("failed to read the output of portmap cleanup")?;
        let status = self.child.wait().context("failed to wait for portmap cleanup")?;
        ensure!(status.success() && output.contains("removed "), "portmap cleanup ended with {status}: {output}");
        Ok(())
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
