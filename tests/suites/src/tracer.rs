//! A running `portmap trace`.

use std::fs;
use std::io::{self, PipeWriter};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portmap_harness::patience::patience;
use portmap_harness::running::Running;
use portmap_harness::world::{Machine, program};
use serde_json::Value;

use crate::command;

/// A running command. Dropping it kills the process.
pub struct Tracer {
    child: Running,
    lines: Receiver<String>,
    messages: Receiver<String>,
}

/// The time limit of the wait for a line, before scaling by [`patience`].
const PATIENCE: Duration = Duration::from_secs(20);

impl Tracer {
    /// Starts tracing on a node with these arguments and JSON output. Returns when the programs write events.
    pub fn start(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        Self::start_plain(machine, &[&["-o", "json"], arguments].concat())
    }

    /// As [`Self::start`], without the option for JSON.
    pub fn start_plain(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        Self::start_by(machine.command(program::find("portmap")?), machine, arguments)
    }

    /// As [`Self::start`], outside the machine's network namespace.
    pub fn start_beside(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        Self::start_by(Command::new(program::find("portmap")?), machine, &[&["-o", "json"], arguments].concat())
    }

    fn start_by(portmap: Command, machine: &Machine, arguments: &[&str]) -> Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut tracer = Self::run(portmap, machine, arguments, writer)?;
        tracer.lines = command::lines(reader);
        Ok(tracer)
    }

    /// As [`Self::start_plain`], with this pipe for the output. [`Self::next`] then has no lines.
    pub fn start_into(machine: &Machine, arguments: &[&str], output: PipeWriter) -> Result<Self> {
        Self::run(machine.command(program::find("portmap")?), machine, arguments, output)
    }

    fn run(mut portmap: Command, machine: &Machine, arguments: &[&str], output: PipeWriter) -> Result<Self> {
        portmap.args(["trace"]).arg("--bpffs").arg(machine.bpffs()).args(arguments);
        let mut child = Running(portmap.stdout(output).stderr(Stdio::piped()).spawn().context("failed to run portmap")?);
        let messages = command::lines(child.stderr.take().context("no standard error")?);
        let tracer = Self { child, lines: command::lines(io::empty()), messages };
        let message = tracer.message()?;
        ensure!(message.contains("waiting for connections"), "{message}");
        Ok(tracer)
    }

    /// Whether a thread of the process waits in a write to a pipe.
    pub fn waits_for_reader(&self) -> Result<bool> {
        let mut threads = fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        Ok(threads.any(|thread| thread.is_ok_and(|thread| is_in_pipe(&thread.path().join("wchan")))))
    }

    /// The exit status; none while the process runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the next line of output.
    pub fn next(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(patience(PATIENCE)).context("no line of output")?;
        serde_json::from_str(&line).with_context(|| format!("expected JSON, but got {line:?}"))
    }

    /// Waits for the next line on standard error.
    pub fn message(&self) -> Result<String> {
        self.messages.recv_timeout(patience(PATIENCE)).context("no line on standard error")
    }

    /// Waits for the end of the process. Returns its status and the rest of its output.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let rest: String = self.lines.iter().map(|line| line + "\n").collect();
        Ok((self.child.wait()?, rest))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }
}

/// Whether the kernel function in which a thread sleeps is one of pipes.
fn is_in_pipe(wchan: &Path) -> bool {
    fs::read_to_string(wchan).is_ok_and(|function| function.contains("pipe"))
}

/// Fails unless the line has exactly these values; a field that is absent counts as null.
pub fn expect(line: &Value, fields: &[(&str, Value)]) -> Result<()> {
    for (name, value) in fields {
        ensure!(line[name] == *value, "the field {name} should be {value}: {line}");
    }
    Ok(())
}
