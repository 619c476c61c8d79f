//! One program of the control plane as a child process that cannot outlive the harness.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout};

/// Generous: a busy machine with two processors has taken 20 s.
const START_DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
const TAIL_LINES: usize = 25;

/// A running program: killed when dropped, and by the kernel when this process dies without dropping it.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, which writes what it says to `<name>.log` in `directory`, after what an earlier one wrote there.
    pub(super) fn spawn(name: &'static str, program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let log = directory.join(name).with_extension("log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("failed to open {}", log.display()))?;
        let errors = output.try_clone().context("failed to duplicate a log's descriptor")?;

        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child =
            spawn_for_good(command).with_context(|| format!("failed to start {name} through setpriv (from util-linux)"))?;
        Ok(Self { name, child, log })
    }

    /// Asks `probe` until it succeeds; the error of one that never does carries the end of the program's log.
    pub(super) async fn ready<T>(&mut self, probe: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            self.check_alive()?;
            let answer = timeout(PROBE_DEADLINE, probe()).await.unwrap_or_else(|_| Err(anyhow!("no answer in time")));
            match answer {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{} is not ready in time; {}", self.name, self.last_words())));
                }
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Fails with the end of the program's log if it has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let exit = self.child.try_wait().with_context(|| format!("failed to look after {}", self.name))?;
        if let Some(status) = exit {
            bail!("{} ended ({status}); {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        format!("its log ends with:\n{}", tail(&String::from_utf8_lossy(&log)))
    }

    /// Sends a signal. Only a child that was seen alive can get it: nobody else collects it, so its number is still its own.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.check_alive()?;
        let pid = i32::try_from(self.child.id()).context("a process id beyond the kernel's range")?;
        signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("failed to send {signal} to {}", self.name))
    }

    /// Kills the program, stopped or not, and waits until it is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
        self.child.wait().with_context(|| format!("failed to wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// A command to start, and where to send the child.
type Order = (Command, Sender<io::Result<Child>>);

/// Starts a command from a thread that lives as long as the process: the kernel sends the parent-death signal when the
/// *thread* that started the child ends, and a test's thread ends before the process does. The thread is in the network
/// namespace of its first caller, and so are all children.
fn spawn_for_good(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Nobody waits any more: the child is dropped, and stays until the process ends.
                answer.send(command.spawn()).ok();
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).context("the thread that starts processes is gone")?;
    Ok(child.recv().context("the thread that starts processes is gone")??)
}
