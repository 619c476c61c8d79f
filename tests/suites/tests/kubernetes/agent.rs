//! The agent as a process in the machine's network namespace, where the API server listens, or on the node of a world.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portmap_harness::clock::Clock;
use portmap_harness::control_plane::volume::Volume;
use portmap_harness::world::{Group, World, program};
use tempfile::NamedTempFile;

use crate::answer::Answer;
use crate::cluster::NODE;
use crate::tables;
use crate::wait::eventually;

/// The agent logs one of these when its programs are attached, for the first time or in a take-over.
const ATTACHED: [&str; 2] = ["attached to ", "took over "];

/// A running `portmap run`. Killed when dropped, and by the kernel when the thread of the test ends without a drop.
pub struct Agent {
    child: Child,
    log: NamedTempFile,
    servers: Servers,
}

/// The addresses of the agent's servers. Agents share the machine's network, so each gets its own ports.
struct Servers {
    health: SocketAddr,
    metrics: SocketAddr,
}

impl Servers {
    /// Chooses two ports that are free now.
    fn choose() -> Result<Self> {
        let holders = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        Ok(Self { health: holders[0].local_addr()?, metrics: holders[1].local_addr()? })
    }
}

impl Agent {
    /// Starts an agent with the pins of the world and the cgroup of its clients. Returns when `portmap status` shows its
    /// process id.
    pub async fn start(world: &World, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("setpriv");
        run(&mut command, &[], world)?.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        Self::start_by(command, world).await
    }

    /// As [`Self::start`], with this clock. Returns at once, because the agent may fail before it attaches.
    pub fn spawn_by_clock(world: &World, kubeconfig: &Path, clock: &Clock) -> Result<Self> {
        let mut command = Command::new("setpriv");
        run(&mut command, &clock.wrapper(), world)?.arg("--kubeconfig").arg(kubeconfig);
        Self::spawn_by(command, world)
    }

    /// As [`Self::start`], on the world's node, where the agent's own connections are translated like those of other processes.
    /// Returns at once, because the agent may fail before it attaches.
    pub fn spawn_on_node(world: &World, kubeconfig: &Path) -> Result<Self> {
        let mut command = world.command_in(Group::Clients, "setpriv");
        run(&mut command, &[], world)?.arg("--kubeconfig").arg(kubeconfig);
        Self::spawn_by(command, world)
    }

    /// As [`Self::start`], in the environment of a pod with this volume of a service account.
    pub async fn start_in_pod(world: &World, volume: &Volume) -> Result<Self> {
        let mut command = volume.command("setpriv");
        run(&mut command, &[], world)?;
        Self::start_by(command, world).await
    }

    async fn start_by(command: Command, world: &World) -> Result<Self> {
        let agent = Self::spawn_by(command, world)?;
        agent.await_start(world).await.context("the agent does not start")?;
        Ok(agent)
    }

    fn spawn_by(mut command: Command, world: &World) -> Result<Self> {
        let log = tempfile::Builder::new()
            .prefix("agent-")
            .suffix(".log")
            .tempfile_in(world.directory())
            .context("failed to create a log file")?;
        let servers = Servers::choose()?;
        command.arg("--healthz-bind-address").arg(servers.health.to_string());
        command.arg("--metrics-bind-address").arg(servers.metrics.to_string());
        // The agent must not get the proxy settings and the log level of the tests' own environment.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let stderr = log.reopen().context("failed to open the agent's log")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Ok(Self { child: child.context("failed to run the agent (by programs of util-linux)")?, log, servers })
    }

    /// Waits until `portmap status` shows this agent's process id, not that of a previous agent.
    pub async fn await_start(&self, world: &World) -> Result<()> {
        self.await_log_of(|log| ATTACHED.iter().any(|text| log.contains(text))).await?;
        eventually(async || tables::status(world), |status| status.is_agent(self.child.id())).await?;
        Ok(())
    }

    /// The whole log of this agent.
    pub fn log(&self) -> Result<Log> {
        fs::read_to_string(self.log.path()).map(Log).context("failed to read the agent's log")
    }

    /// Waits until the agent's log contains this text.
    pub async fn await_log(&self, text: &str) -> Result<()> {
        self.await_log_of(|log| log.contains(text)).await.with_context(|| format!("the agent's log has no `{text}`"))
    }

    async fn await_log_of(&self, expected: impl Fn(&str) -> bool) -> Result<()> {
        let look = async || {
            self.check_alive()?;
            self.log()
        };
        eventually(look, |log| expected(&log.0)).await?;
        Ok(())
    }

    /// The answer of `/healthz`, `/livez` or `/readyz`.
    pub fn health(&self, path: &str) -> Result<Answer> {
        Answer::of(&format!("http://{}/{path}", self.servers.health))
    }

    /// The value of a metric. `name` includes the labels, as in the answer of `/metrics`.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = Answer::of(&format!("http://{}/metrics", self.servers.metrics))?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("there is no metric {name}:\n{text}"))
    }

    /// Fails if the agent has ended.
    pub fn check_alive(&self) -> Result<()> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("the agent has no process")?;
        // The state follows the name, which is in brackets. An ended child is a zombie (`Z`), because nothing has waited for
        // it.
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
            bail!("the agent ended");
        }
        Ok(())
    }

    /// Stops the process by SIGSTOP, so that it misses events.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues an agent after [`Self::freeze`], by SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Stops the agent by a signal, waits for its end, and fails unless its exit status is 0.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.child.wait().context("failed to wait for the agent")?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.check_alive()?;
        let pid = i32::try_from(self.child.id()).context("a process id beyond the kernel's range")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("failed to send {signal} to the agent"))
    }
}

/// Adds a wrapper, `portmap run` and the arguments of a world to a `setpriv` command.
fn run<'a>(setpriv: &'a mut Command, wrapper: &[String], world: &World) -> Result<&'a mut Command> {
    setpriv.args(["--pdeathsig", "KILL", "--"]).args(wrapper).arg(program::find("portmap")?);
    setpriv.args(["run", "--node-name", NODE]);
    Ok(setpriv.arg("--cgroup").arg(world.cgroup(Group::Clients)).arg("--bpffs").arg(world.bpffs()))
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("warning: failed to end the agent: {error}");
        }
        // The test runner shows this text if the test fails.
        println!("the log of an agent:\n{}", self.log().unwrap_or_default());
    }
}

/// The log of an agent. Its `Debug` format is the plain text, so that errors show lines.
#[derive(Default)]
pub struct Log(pub String);

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}
