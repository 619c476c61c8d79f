//! Runs the real agent as a child process of a test. By default the agent reads manifests from a directory of the test's
//! [`Machine`], a simulated node.
//!
//! [`crate::world`] makes the node and the pods, which exist before the agent. The tests inspect the agent's maps and its log.

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
use crate::world::{Group, Machine, program};

/// Time limit of [`Agent::wait_until`], before scaling by [`patience`].
const PATIENCE: Duration = Duration::from_secs(20);

/// Option of `portmap run` that makes the agent use another ABI version than this build's.
const ABI: &str = "--abi-version";

/// Pause between two checks of an awaited condition.
const PAUSE: Duration = Duration::from_millis(5);

/// The arguments with which an agent of the tests loads the programs for devices.
pub const ABOUT_DEVICES: [&str; 3] = ["--devices", "--device-attach", "--pod-devices"];

/// A running agent. Dropping this kills the process. The pinned maps and links stay until the [`Machine`] is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    log: PathBuf,
    program: PathBuf,
    bpffs: PathBuf,
    namespace: PathBuf,
    /// ABI version of the agent's maps; `None` for an agent of another build, which uses its own version.
    abi: Option<u32>,
}

impl Agent {
    /// The directory of the manifests for the agent of this [`Machine`]. Each function that starts an agent on it creates it.
    #[must_use]
    pub fn manifests(machine: &Machine) -> PathBuf {
        machine.directory().join("manifests")
    }

    /// Writes the manifest `file` for the agent of this [`Machine`]. A rename puts the file in place, so the agent never reads
    /// half of a file.
    pub fn write(machine: &Machine, file: &str, text: &str) -> Result<()> {
        let directory = Self::manifests(machine);
        fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
        let partial = directory.join(format!(".{file}"));
        fs::write(&partial, text).with_context(|| format!("failed to write {}", partial.display()))?;
        fs::rename(&partial, directory.join(file)).with_context(|| format!("failed to write {file}"))
    }

    /// Starts an agent on the manifests of this [`Machine`]. Waits until `portmap status` succeeds, which means that the maps
    /// match the manifests.
    ///
    /// The agent serves clients outside only if one of [`ABOUT_DEVICES`] is among the arguments. The programs for devices take most
    /// of the time of a start.
    pub fn start(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self::spawn(machine, arguments)?;
        agent.wait_until("`portmap status` succeeds", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
        Ok(agent)
    }

    /// Starts an agent on the manifests of this [`Machine`], and does not wait for the first synchronization.
    pub fn spawn(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        Self::spawn_in_cluster(machine, &[&["--manifests", &manifests_argument(machine)?], arguments].concat())
    }

    /// As [`Self::spawn`], but the agent does not read the manifests of the [`Machine`]. `arguments` select its source, for
    /// example `--kubeconfig`.
    pub fn spawn_in_cluster(machine: &Machine, arguments: &[&str]) -> Result<Self> {
        let program = program::find("portmap")?;
        Self::spawn_by(machine.command(&program), program, machine, arguments)
    }

    /// As [`Self::spawn`], but the agent has only these capabilities. The names are those of `setpriv`, for example `bpf` and
    /// `net_admin`.
    pub fn spawn_with(machine: &Machine, capabilities: &[&str], arguments: &[&str]) -> Result<Self> {
        let bounds: Vec<String> = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let mut command = machine.command("setpriv");
        command.arg("--bounding-set").arg(format!("-all{}", bounds.concat())).arg("--inh-caps=-all");
        let program = program::find("portmap")?;
        command.arg(&program);
        Self::spawn_by(command, program, machine, &[&["--manifests", &manifests_argument(machine)?], arguments].concat())
    }

    /// As [`Self::spawn`], with a limit of open file descriptors in the format of `prlimit` (`SOFT:HARD`).
    pub fn spawn_limited(machine: &Machine, descriptors: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = machine.command("prlimit");
        let program = program::find("portmap")?;
        command.arg(format!("--nofile={descriptors}")).arg(&program);
        Self::spawn_by(command, program, machine, &[&["--manifests", &manifests_argument(machine)?], arguments].concat())
    }

    /// As [`Self::spawn`], with the agent program at `build`. Only [`Self::portmap`], which runs that program, can read this
    /// agent's maps; [`Self::services`] fails.
    pub fn spawn_build(machine: &Machine, build: &Path, arguments: &[&str]) -> Result<Self> {
        let manifests = manifests_argument(machine)?;
        let arguments = [&["--manifests", &manifests], arguments].concat();
        let mut agent = Self::spawn_by(machine.command(build), build.to_owned(), machine, &arguments)?;
        agent.abi = None;
        Ok(agent)
    }

    fn spawn_by(mut command: Command, program: PathBuf, machine: &Machine, arguments: &[&str]) -> Result<Self> {
        let is_about_devices = arguments.iter().any(|argument| ABOUT_DEVICES.contains(argument));
        let devices: &[&str] = if is_about_devices { &[] } else { &["--devices", "none"] };
        let log = machine.directory().join("agent.log");
        let output = File::options().create(true).append(true).open(&log).context("failed to open the agent's log")?;
        let process = command
            .args(["run", "--node-name", machine.name()])
            .arg("--cgroup")
            .arg(machine.cgroup(Group::Clients))
            .arg("--bpffs")
            .arg(machine.bpffs())
            .args(devices)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("failed to start portmap run")?;
        let version = arguments.iter().skip_while(|argument| **argument != ABI).nth(1);
        let abi = version.map_or(Ok(ABI_VERSION), |version| version.parse()).context("the ABI version is not a number")?;
        let (bpffs, namespace) = (machine.bpffs().to_owned(), machine.namespace().to_owned());
        Ok(Self { process, log, program, bpffs, namespace, abi: Some(abi) })
    }

    /// Runs a subcommand of `portmap` on the agent's pinned maps, in the network namespace of the agent's machine.
    pub fn portmap(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("--").arg(&self.program);
        if let Some(abi) = self.abi {
            command.env("PORTMAP_ABI_VERSION", abi.to_string());
        }
        command.args(arguments).arg("--bpffs").arg(&self.bpffs).output().context("failed to run portmap")
    }

    /// The rows that `portmap services -o json` prints. Reads the maps in this process, without a child process. Fails for an
    /// agent of another build.
    pub fn services(&self) -> Result<Vec<serde_json::Value>> {
        let abi = self.abi.context("the maps belong to another build of the agent")?;
        let snapshot = BpfMaps::open(&Pins::of_version(&self.bpffs, abi))?.read()?;
        let rows = table::of_snapshot(&snapshot);
        rows.iter().map(|row| serde_json::to_value(row).context("failed to convert a row to JSON")).collect()
    }

    /// Waits until a frontend (`10.96.0.10:80/TCP`) has exactly these backends (`10.244.0.2:8080`), in this order.
    pub fn await_backends(&mut self, frontend: &str, backends: &[&str]) -> Result<()> {
        self.wait_until(&format!("{frontend} has the backends {backends:?}"), |agent| {
            let rows = agent.services()?;
            let row = rows.iter().find(|row| row["frontend"] == frontend);
            Ok(row.is_some_and(|row| row["backends"] == serde_json::json!(backends)))
        })
    }

    /// Waits until a condition holds. Fails with the agent's log if the time limit passes or the agent ends. Also fails if the
    /// check of the condition fails.
    ///
    /// `description` completes the sentence "the agent ended before …".
    pub fn wait_until(&mut self, description: &str, is_met: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let limit = patience(PATIENCE);
        let deadline = Instant::now() + limit;
        while !is_met(self)? {
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended ({status}) before {description}; its log:\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "not within {limit:?}: {description}; the agent's log:\n{}", self.log());
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The log so far, of this agent and of earlier agents of the same [`Machine`]. A short note if the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// The agent's process id, also after its end.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The agent's memory and processor time so far. Fails if the agent has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.id())
    }

    /// Sends a signal, and waits until the agent has ended.
    pub fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.stop(signal)
    }

    /// As [`Self::end`], but keeps the handle, so that the maps can still be read.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), signal).context("failed to signal the agent")?;
        self.process.wait().context("failed to wait for the agent")
    }
}

/// Returns [`Agent::manifests`] as a command-line argument. Creates the directory if needed.
fn manifests_argument(machine: &Machine) -> Result<String> {
    let directory = Agent::manifests(machine);
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    Ok(directory.to_str().context("the path of the manifests is not UTF-8")?.to_owned())
}

impl Drop for Agent {
    fn drop(&mut self) {
        // `drop` cannot return an error. Waiting removes the entry of the killed process (zombie).
        if self.process.kill().is_ok() {
            drop(self.process.wait());
        }
    }
}
