//! A `portmap-pod` that works until its standard input ends, and then says what it saw.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::world::{Pod, program};

/// Works from its start on. Killed when dropped.
pub struct Worker {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `portmap-pod` in a pod with these arguments, and waits until it is at work.
    pub fn start(pod: &Pod, arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut command = pod.command(program::find("portmap-pod")?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start portmap-pod")?;
        let mut stdout = BufReader::new(child.stdout.take().context("failed to read what portmap-pod prints")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready).context("failed to read what portmap-pod prints")?;
        Ok(Self { child, stdout })
    }

    /// Has it end, and returns what it saw: a line of JSON each.
    pub fn finish<T: DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        drop(self.child.stdin.take());
        let lines = self.stdout.by_ref().lines();
        let found = lines.map(|line| serde_json::from_str(&line?).context("portmap-pod prints no JSON"));
        let found = found.collect::<Result<_>>()?;
        let status = self.child.wait().context("failed to wait for portmap-pod")?;
        ensure!(status.success(), "portmap-pod ended with {status}");
        Ok(found)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
