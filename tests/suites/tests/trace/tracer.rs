//! A running `portmap trace`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portmap_harness::world::{Machine, program};
use serde_json::Value;

/// A running command. Dropping it kills the process.
pub struct Tracer {
    child: Child,
    lines: BufReader<ChildStdout>,
    messages: BufReader<ChildStderr>,
}

impl Tracer {
    /// Starts tracing on a node with these arguments and JSON output. Returns when the programs write events.
    pub fn start(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        Self::start_plain(machine, &[&["-o", "json"], arguments].concat())
    }

    /// As [`Self::start`], without the option for JSON.
    pub fn start_plain(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        let mut command = machine.command(program::find("portmap")?);
        command.args(["trace"]).arg("--bpffs").arg(machine.bpffs()).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("failed to run portmap")?;
        let lines = BufReader::new(child.stdout.take().context("no standard output")?);
        let messages = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut tracer = Self { child, lines, messages };
        let message = tracer.message()?;
        ensure!(message.contains("waiting for connections"), "{message}");
        Ok(tracer)
    }

    /// Waits for the next line of output.
    pub fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("expected JSON, but got {line:?}"))
    }

    /// Waits for the next line on standard error.
    pub fn message(&mut self) -> Result<String> {
        let mut line = String::new();
        self.messages.read_line(&mut line)?;
        Ok(line)
    }

    /// Waits for the end of the process. Returns its status and the rest of its output.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        Ok((self.child.wait()?, rest))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Fails unless the line has exactly these values; a field that is absent counts as null.
pub fn expect(line: &Value, fields: &[(&str, Value)]) -> Result<()> {
    for (name, value) in fields {
        ensure!(line[name] == *value, "the field {name} should be {value}: {line}");
    }
    Ok(())
}
