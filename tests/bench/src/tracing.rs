//! A `portmap trace` that runs while calls are measured, and the events that it lost.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStderr, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portmap_harness::running::Running;
use portmap_harness::world::{World, program};

use crate::figures::Figures;
use crate::report::{Row, Section};

/// A running trace. Dropping it kills the process.
pub struct Tracing {
    child: Running,
    messages: BufReader<ChildStderr>,
}

/// The events of one measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// The connections to Services.
    pub all: u64,
    /// The connections without a line, because they came too fast.
    pub lost: u64,
    /// The time in which they were made, with the other arms of the measurement.
    pub time: Duration,
}

impl Tracing {
    /// Starts the trace. Returns when the programs write events.
    pub fn start(world: &World) -> Result<Self> {
        let mut command = world.command(program::find("portmap")?);
        command.args(["trace", "-o", "json", "--bpffs"]).arg(world.bpffs());
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("failed to run portmap trace")?;
        let mut child = Running(child);
        let mut messages = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut line = String::new();
        messages.read_line(&mut line)?;
        ensure!(line.contains("waiting for connections"), "portmap trace failed: {line}");
        Ok(Self { child, messages })
    }

    /// Ends the trace after a measurement of `all` connections since `began`.
    pub fn end(mut self, all: u64, began: Instant) -> Result<Events> {
        let time = began.elapsed();
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let mut lost = 0;
        for line in self.messages.by_ref().lines() {
            let line = line?;
            let count =
                line.split_once(" connections are missing").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
            let count: Option<u64> = count;
            lost += count.with_context(|| format!("portmap trace: {line}"))?;
        }
        ensure!(self.child.wait()?.success(), "portmap trace failed");
        Ok(Events { all, lost, time })
    }
}

/// The section of the report.
pub fn section(events: &[Events]) -> Section {
    let row = |name, value: fn(&Events) -> f64| Row { name, figures: Figures::of(events.iter().map(value).collect()) };
    Section {
        name: "trace",
        title: "Events of a running portmap trace, of each kind of call".to_owned(),
        unit: "connections",
        rows: vec![
            row("traced in a second", |events| float(events.all) / events.time.as_secs_f64()),
            row("all", |events| float(events.all)),
            row("lost", |events| float(events.lost)),
        ],
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
