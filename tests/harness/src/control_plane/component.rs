//! A program of the control plane as a child process that ends with this process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout};

use crate::go_program::tail;

/// Time limit until a program is ready. A busy machine with two processors needed 20 s.
const START_DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// A running program. Dropping this kills it; if this process dies first, the kernel kills it (parent-death signal).
#[derive(Debug)]
pub(super) struct Component {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts `program` with its output appended to `<name>.log` in `directory`.
    pub(super) fn spawn(name: &'static str, program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let log = directory.join(name).with_extension("log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("failed to open {}", log.display()))?;
        let errors = output.try_clone().context("failed to duplicate a log's descriptor")?;

        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child =
            spawn_from_lasting_thread(command).with_context(|| format!("failed to start {name} with setpriv (util-linux)"))?;
        Ok(Self { name, child, log })
    }

    /// Repeats `probe` until it succeeds. Fails with the end of the program's log after the time limit, or if the program ends.
    pub(super) async fn ready<T>(&mut self, probe: impl AsyncFn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            self.check_alive()?;
            let result = timeout(PROBE_DEADLINE, probe()).await.unwrap_or_else(|_| Err(anyhow!("no response in time")));
            match result {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{} is not ready in time; {}", self.name, self.log_tail())));
                }
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Fails with the end of the program's log if the program has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let exit = self.child.try_wait().with_context(|| format!("failed to get the status of {}", self.name))?;
        if let Some(status) = exit {
            bail!("{} ended ({status}); {}", self.name, self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        format!("its log ends with:\n{}", tail(&String::from_utf8_lossy(&log)))
    }

    /// Sends a signal to the running program. Only this handle waits for the child, so no other process can have its process
    /// id.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.check_alive()?;
        let pid = i32::try_from(self.child.id()).context("the process id does not fit into 32 bits")?;
        signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("failed to send {signal} to {}", self.name))
    }

    /// Kills the program, also if SIGSTOP has stopped it, and waits for its end.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
        self.child.wait().with_context(|| format!("failed to wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// A command to start, the network namespace for it, and the channel for the child.
type SpawnRequest = (Command, File, Sender<io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process, in the network namespace of the caller.
///
/// The kernel sends the parent-death signal when the *thread* that started the child ends, and a test's thread ends early.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = mpsc::channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, namespace, reply) in queue {
                let entered = setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                // If nobody waits for the child any more, it runs until this process ends.
                reply.send(entered.and_then(|()| command.spawn())).ok();
            }
        });
        requests
    });
    let namespace = File::open("/proc/thread-self/ns/net").context("failed to open the network namespace of this thread")?;
    let (reply, child) = mpsc::channel();
    spawner.send((command, namespace, reply)).context("the thread that starts processes has ended")?;
    Ok(child.recv().context("the thread that starts processes has ended")??)
}
