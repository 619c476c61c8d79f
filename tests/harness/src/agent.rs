//! The real agent as a process of a test, reading manifests from the world's directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use portmap::{
    inspect::table,
    maps::{Maps as _, bpf::BpfMaps, pin::Pins},
};
use portmap_common::ABI_VERSION;

use crate::patience::patience;
use crate::usage::Usage;
use crate::world::{Group, World, program};

/// How long the agent may take for anything that is awaited.
const PATIENCE: Duration = Duration::from_secs(20);

/// The argument that stands for a build of another ABI version.
const ABI: &str = "--abi-version";

/// Between two looks at what is awaited.
const PAUSE: Duration = Duration::from_millis(5);

/// A running agent. It is killed when dropped; what it pinned stays until the world is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    log: PathBuf,
    program: PathBuf,
    bpffs: PathBuf,
    /// None of another build, which knows its own.
    abi: Option<u32>,
}

impl Agent {
    /// The directory that the agent of a world reads.
    #[must_use]
    pub fn manifests(world: &World) -> PathBuf {
        world.directory().join("manifests")
    }

    /// Writes a manifest file for the agent of a world. It appears whole: nobody reads half of it.
    pub fn write(world: &World, file: &str, text: &str) -> Result<()> {
        let directory = Self::manifests(world);
        fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
        let partial = directory.join(format!(".{file}"));
        fs::write(&partial, text).with_context(|| format!("failed to write {}", partial.display()))?;
        fs::rename(&partial, directory.join(file)).with_context(|| format!("failed to write {file}"))
    }

    /// Starts the agent of a world on its manifests, with further arguments, and waits until the tables agree with them.
    pub fn start(world: &World, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self::spawn(world, arguments)?;
        agent.wait_until("it is synced", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
        Ok(agent)
    }

    /// Starts the agent of a world without waiting.
    pub fn spawn(world: &World, arguments: &[&str]) -> Result<Self> {
        Self::spawn_in_cluster(world, &[&["--manifests", &manifests_argument(world)?], arguments].concat())
    }

    /// As [`Self::spawn`], an agent that does not read the world's manifests.
    pub fn spawn_in_cluster(world: &World, arguments: &[&str]) -> Result<Self> {
        let program = program::find("portmap")?;
        Self::spawn_by(world.command(&program), program, world, arguments)
    }

    /// As [`Self::spawn`], an agent that has no capabilities but these, in the words of `setpriv` (`bpf`, `net_admin`).
    pub fn spawn_with(world: &World, capabilities: &[&str], arguments: &[&str]) -> Result<Self> {
        let bounds: Vec<String> = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let mut command = world.command("setpriv");
        command.arg("--bounding-set").arg(format!("-all{}", bounds.concat())).arg("--inh-caps=-all");
        let program = program::find("portmap")?;
        command.arg(&program);
        Self::spawn_by(command, program, world, &[&["--manifests", &manifests_argument(world)?], arguments].concat())
    }

    /// As [`Self::spawn`], an agent that may open so many descriptors, in the words of `prlimit` (`SOFT:HARD`).
    pub fn spawn_limited(world: &World, descriptors: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = world.command("prlimit");
        let program = program::find("portmap")?;
        command.arg(format!("--nofile={descriptors}")).arg(&program);
        Self::spawn_by(command, program, world, &[&["--manifests", &manifests_argument(world)?], arguments].concat())
    }

    /// As [`Self::spawn`], an agent of another build. Only that build can read its tables.
    pub fn spawn_build(world: &World, build: &Path, arguments: &[&str]) -> Result<Self> {
        let manifests = manifests_argument(world)?;
        let arguments = [&["--manifests", &manifests], arguments].concat();
        let mut agent = Self::spawn_by(world.command(build), build.to_owned(), world, &arguments)?;
        agent.abi = None;
        Ok(agent)
    }

    fn spawn_by(mut command: Command, program: PathBuf, world: &World, arguments: &[&str]) -> Result<Self> {
        let log = world.directory().join("agent.log");
        let output = File::options().create(true).append(true).open(&log).context("failed to open the agent's log")?;
        let process = command
            .args(["run", "--node-name", "node"])
            .arg("--cgroup")
            .arg(world.cgroup(Group::Clients))
            .arg("--bpffs")
            .arg(world.bpffs())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("failed to start portmap run")?;
        let version = arguments.iter().skip_while(|argument| **argument != ABI).nth(1);
        let abi = version.map_or(Ok(ABI_VERSION), |version| version.parse()).context("the ABI version is no number")?;
        Ok(Self { process, log, program, bpffs: world.bpffs().to_owned(), abi: Some(abi) })
    }

    /// Runs a subcommand on the agent's pins.
    pub fn portmap(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(&self.program);
        if let Some(abi) = self.abi {
            command.env("PORTMAP_ABI_VERSION", abi.to_string());
        }
        command.args(arguments).arg("--bpffs").arg(&self.bpffs).output().context("failed to run portmap")
    }

    /// What the kernel's tables hold, as `portmap services -o json` prints it; read at once, without a process for it.
    pub fn services(&self) -> Result<Vec<serde_json::Value>> {
        let abi = self.abi.context("the tables are another build's")?;
        let snapshot = BpfMaps::open(&Pins::of_version(&self.bpffs, abi))?.read()?;
        let rows = table::of_snapshot(&snapshot);
        rows.iter().map(|row| serde_json::to_value(row).context("failed to make JSON of a row")).collect()
    }

    /// Waits until a frontend has these backends.
    pub fn await_backends(&mut self, frontend: &str, backends: &[&str]) -> Result<()> {
        self.wait_until(&format!("{frontend} leads to {backends:?}"), |agent| {
            let rows = agent.services()?;
            let row = rows.iter().find(|row| row["frontend"] == frontend);
            Ok(row.is_some_and(|row| row["backends"] == serde_json::json!(backends)))
        })
    }

    /// Waits until something is so; fails with the agent's log when it takes too long, or the agent ends.
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let patience = patience(PATIENCE);
        let until = Instant::now() + patience;
        while !is_so(self)? {
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended ({status}) before {what}; its log:\n{}", self.log());
            }
            ensure!(Instant::now() < until, "not within {patience:?}: {what}; the agent's log:\n{}", self.log());
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Everything that agents of this world have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// The agent's process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has used of the machine.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.id())
    }

    /// Sends a signal, and waits for the end.
    pub fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.stop(signal)
    }

    /// As [`Self::end`], and keeps the handle: to its tables, and for the next agent to take its place.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), signal).context("failed to signal the agent")?;
        self.process.wait().context("failed to wait for the agent")
    }
}

/// The directory that the agent of a world reads, made if there is none, as an argument.
fn manifests_argument(world: &World) -> Result<String> {
    let directory = Agent::manifests(world);
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    Ok(directory.to_str().context("the path of the manifests is not UTF-8")?.to_owned())
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        if self.process.kill().is_ok() {
            drop(self.process.wait());
        }
    }
}
