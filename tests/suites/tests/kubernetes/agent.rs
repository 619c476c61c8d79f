//! The agent as a process on the node's own network, where the API server is.

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

/// Logged once the agent is attached, for the first time or in the place of another.
const ATTACHED: [&str; 2] = ["attached to ", "took over "];

/// `portmap run`: killed when dropped, and by the kernel when the test's thread ends without dropping it.
pub struct Agent {
    child: Child,
    log: NamedTempFile,
    servers: Servers,
}

/// Where it answers. Its own ports are those of the machine: every agent has others here.
struct Servers {
    health: SocketAddr,
    metrics: SocketAddr,
}

impl Servers {
    /// Ports that are free now.
    fn choose() -> Result<Self> {
        let holders = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        Ok(Self { health: holders[0].local_addr()?, metrics: holders[1].local_addr()? })
    }
}

impl Agent {
    /// Starts one with the world's pins and the cgroup of its clients, and returns when the tables say that it is the agent.
    pub async fn start(world: &World, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("setpriv");
        run(&mut command, &[], world)?.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        Self::start_by(command, world).await
    }

    /// As [`Self::start`], one that goes by this clock. Returns at once: it may not get far.
    pub fn spawn_by_clock(world: &World, kubeconfig: &Path, clock: &Clock) -> Result<Self> {
        let mut command = Command::new("setpriv");
        run(&mut command, &clock.wrapper(), world)?.arg("--kubeconfig").arg(kubeconfig);
        Self::spawn_by(command, world)
    }

    /// As [`Self::start`], one whose own connections are translated like those of any process on the world's node, where it is.
    /// Returns at once: it may not get far.
    pub fn spawn_on_node(world: &World, kubeconfig: &Path) -> Result<Self> {
        let mut command = world.command_in(Group::Clients, "setpriv");
        run(&mut command, &[], world)?.arg("--kubeconfig").arg(kubeconfig);
        Self::spawn_by(command, world)
    }

    /// As [`Self::start`], as a pod of the service account that has this volume.
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
            .context("failed to make a log")?;
        let servers = Servers::choose()?;
        command.arg("--healthz-bind-address").arg(servers.health.to_string());
        command.arg("--metrics-bind-address").arg(servers.metrics.to_string());
        // Neither the proxy nor the log level of whoever runs the tests.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let stderr = log.reopen().context("failed to open the agent's log")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Ok(Self { child: child.context("failed to run the agent (by programs of util-linux)")?, log, servers })
    }

    /// Waits until the tables say that this is the agent: before, they say so of the one before.
    pub async fn await_start(&self, world: &World) -> Result<()> {
        self.await_log_of(|log| ATTACHED.iter().any(|text| log.contains(text))).await?;
        eventually(async || tables::status(world), |status| status.is_agent(self.child.id())).await?;
        Ok(())
    }

    /// Everything that this agent has said so far.
    pub fn log(&self) -> Result<Log> {
        fs::read_to_string(self.log.path()).map(Log).context("failed to read the agent's log")
    }

    /// Waits until the agent has said this.
    pub async fn await_log(&self, text: &str) -> Result<()> {
        self.await_log_of(|log| log.contains(text)).await.with_context(|| format!("the agent does not say `{text}`"))
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

    /// The value of a metric, labels and all.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = Answer::of(&format!("http://{}/metrics", self.servers.metrics))?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("there is no metric {name}:\n{text}"))
    }

    /// Fails if the agent has ended.
    pub fn check_alive(&self) -> Result<()> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("the agent is gone")?;
        // The state follows the name, which is in brackets. Nobody has collected this child: it would stay as a zombie.
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
            bail!("the agent ended");
        }
        Ok(())
    }

    /// Stops the agent in its tracks, so that it misses what happens.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen agent go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks the agent to end, and waits until it has, with success.
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

/// Has setpriv become the agent of a world, called behind the words of a wrapper.
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
        // Shown where the test fails.
        println!("an agent said:\n{}", self.log().unwrap_or_default());
    }
}

/// What an agent said. In errors too it is for reading, line by line.
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
