//! A `portmap-pod` that runs until its standard input ends, and then prints its results, such as `hammer` and `share`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::world::{Group, Pod, program};

/// A running `portmap-pod`; dropping this kills the process.
pub struct Worker {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// As [`Self::start_in`], in the cgroup that portmap is attached to.
    pub fn start(pod: &Pod, arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        Self::start_in(pod, Group::Clients, arguments)
    }

    /// Starts `portmap-pod` in a pod with these arguments. Waits for its first line, which reports that it is ready, or for its
    /// end.
    pub fn start_in(pod: &Pod, group: Group, arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut command = pod.command_in(group, program::find("portmap-pod")?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start portmap-pod")?;
        let mut stdout = BufReader::new(child.stdout.take().context("portmap-pod has no standard output")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready).context("failed to read the output of portmap-pod")?;
        Ok(Self { child, stdout })
    }

    /// Writes a line to standard input, and reads the next line of output.
    pub fn request(&mut self, line: &str) -> Result<String> {
        let stdin = self.child.stdin.as_mut().context("portmap-pod has no standard input")?;
        writeln!(stdin, "{line}").context("failed to write to portmap-pod")?;
        let mut reply = String::new();
        self.stdout.read_line(&mut reply).context("failed to read the output of portmap-pod")?;
        Ok(reply.trim_end().to_owned())
    }

    /// Closes standard input, waits for the end of the process and returns its results, one per line of JSON. Fails unless its
    /// exit code is 0.
    pub fn finish<T: DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        drop(self.child.stdin.take());
        let lines = self.stdout.by_ref().lines();
        let results = lines.map(|line| serde_json::from_str(&line?).context("portmap-pod printed invalid JSON"));
        let results = results.collect::<Result<_>>()?;
        let status = self.child.wait().context("failed to wait for portmap-pod")?;
        ensure!(status.success(), "portmap-pod ended with {status}");
        Ok(results)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
