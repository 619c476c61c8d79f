//! An agent in a world (network namespaces and cgroups of one test), which reads a directory of manifests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portmap_harness::world::{Group, World};
use portmap_suites::command::{self, Outcome, PATIENCE};
use serde_json::Value;

const PAUSE: Duration = Duration::from_millis(10);

/// The manifest of a Service without endpoints.
pub fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
    )
}

/// A world with a directory of manifests.
pub struct Site {
    pub world: World,
    /// The agent's `--max-services`, by default 64 here.
    pub max_services: u32,
}

impl Site {
    pub fn new(name: &str) -> Result<Self> {
        let world = World::new(name)?;
        fs::create_dir(world.directory().join("manifests"))?;
        Ok(Self { world, max_services: 64 })
    }

    pub fn manifests(&self) -> PathBuf {
        self.world.directory().join("manifests")
    }

    /// Creates a manifest, or overwrites it in place.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.manifests().join(file), text)?)
    }

    /// A command for `portmap run` with these arguments, and with the cgroup and the pins of this world.
    pub fn run(&self, arguments: &[&str]) -> Result<Command> {
        Ok(self.complete(self.world.command(command::binary()?), arguments))
    }

    /// Runs `portmap run`. The agent ends by itself, or is killed after the time limit.
    pub fn run_in_time(&self, arguments: &[&str]) -> Result<Outcome> {
        command::finish(&mut self.complete(command::in_time(self.world.command("timeout"))?, arguments))
    }

    /// Adds the arguments of `portmap run`, among them the cgroup and the pins of this world.
    pub fn complete(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args([
            "run",
            "--node-name",
            "node-1",
            "--max-backends",
            "256",
            "--max-services",
            &self.max_services.to_string(),
        ]);
        command.arg("--cgroup").arg(self.world.cgroup(Group::Clients)).arg("--bpffs").arg(self.world.bpffs()).args(arguments);
        command
    }

    /// Starts an agent on the directory of manifests and waits until it has synced.
    pub fn start(&self) -> Result<Agent> {
        let mut agent = Agent::start(self.run(&["--manifests"])?.arg(self.manifests()))?;
        agent.await_log("synced: ")?;
        Ok(agent)
    }

    /// Runs a subcommand on the pins of this world, with the time limit of all commands.
    pub fn ask(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut command = command::in_time(self.world.command("timeout"))?;
        command::finish(command.args(arguments).arg("--bpffs").arg(self.world.bpffs()))
    }

    /// The Services in the kernel's tables: from the frontend, such as `10.96.0.10:80/TCP`, to `namespace/name`.
    pub fn services(&self) -> Result<BTreeMap<String, String>> {
        let outcome = self.ask(&["services", "-o", "json"])?.expect(0)?;
        let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(&outcome.stdout)?;
        let text = |row: &BTreeMap<String, Value>, field| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(rows.iter().map(|row| (text(row, "frontend"), text(row, "service"))).collect())
    }

    /// Waits until the kernel's tables hold exactly these frontends, of Services in the namespace `default`.
    pub fn await_services(&self, expected: &[(&str, &str)]) -> Result<()> {
        let expected = expected.iter().map(|(address, service)| (format!("{address}:80/TCP"), format!("default/{service}")));
        let expected: BTreeMap<String, String> = expected.collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let services = self.services()?;
            if services == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the tables should hold {expected:?}, but hold {services:?}");
            thread::sleep(PAUSE);
        }
    }
}

/// A running agent. Killed when dropped.
pub struct Agent {
    child: Child,
    log: Receiver<String>,
    seen: Vec<String>,
}

impl Agent {
    pub fn start(command: &mut Command) -> Result<Self> {
        command::clean(command).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to run {command:?}"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        Ok(Self { child, log: command::lines(stderr), seen: Vec::new() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the log that contains this text, among the lines not read before. Returns the line.
    pub fn await_log(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if line.contains(text) {
                return Ok(line);
            }
        }
        bail!("the log has no {text:?}, but:\n{}", self.seen.join("\n"))
    }

    /// Sends a signal. Returns the exit status and the whole log.
    pub fn stop(self, signal: Signal) -> Result<(ExitStatus, String)> {
        kill(Pid::from_raw(self.child.id().try_into()?), signal)?;
        self.await_end()
    }

    /// Waits for the end of the agent. Returns the exit status and the whole log.
    pub fn await_end(mut self) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok((self.child.wait()?, self.seen.join("\n"))),
                Err(RecvTimeoutError::Timeout) => bail!("the agent does not end; its log:\n{}", self.seen.join("\n")),
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An agent that has ended and was waited for needs no signal.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// Renames `new` to `old`. A file or symbolic link `old` is replaced atomically. A directory `old` must be empty or missing.
pub fn replace(new: &Path, old: &Path) -> Result<()> {
    fs::rename(new, old).with_context(|| format!("failed to rename {} to {}", new.display(), old.display()))
}
