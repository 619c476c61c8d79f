//! The processes that make the cluster's namespaces: a hidden subcommand of this program.
//!
//! An entrance process makes namespaces and starts the init process, the first one in them. If an init process ends, the kernel
//! kills all processes of its PID namespace. Each of these processes is killed if its parent ends. So no process outlives the
//! command, also if that is killed.

use std::env;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

use super::addresses::Node;
use super::{cgroups, enclosure, node};

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "cluster-process";
/// The line that the init process of the enclosure prints when its namespaces are complete.
pub const READY: &str = "ready";

/// Arguments of the subcommand.
#[derive(clap::Args)]
pub struct ProcessArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(clap::Subcommand)]
enum Role {
    /// The entrance to the namespaces around the whole cluster
    Enclosure,
    /// The init process of the namespaces around the whole cluster
    EnclosureInit,
    /// The entrance to a node
    Node { number: u8, nodes: u8, cgroup: String },
    /// The init process of a node
    NodeInit { number: u8 },
}

/// Runs the process, which ends only with an error or with its parent.
pub fn run(args: &ProcessArgs) -> Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("failed to bind this process to its parent")?;
    let enclosed = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    match &args.role {
        Role::Enclosure => {
            make(enclosed)?;
            start_init(&["enclosure-init"])
        }
        Role::EnclosureInit => {
            let reaper = Reaper::new()?;
            enclosure::init::run()?;
            print(READY)?;
            reaper.run(|_, _| Ok(()))
        }
        Role::Node { number, nodes, cgroup } => {
            let node = Node(*number);
            cgroups::join(cgroup, node)?;
            make(enclosed | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP)?;
            cgroups::join_programs(cgroup, node)?;
            sethostname(node.name()).context("failed to set the host name")?;
            node::network::connect(node, *nodes)?;
            start_init(&["node-init", &number.to_string()])
        }
        Role::NodeInit { number } => {
            let reaper = Reaper::new()?;
            let programs = node::init::start(Node(*number))?;
            reaper.run(|pid, status| match programs.iter().find(|(_, program)| *program == pid) {
                Some((name, _)) => bail!("{name} ended ({status:?})"),
                None => Ok(()),
            })
        }
    }
}

/// Moves this process to new namespaces.
fn make(namespaces: CloneFlags) -> Result<()> {
    unshare(namespaces).context("failed to make namespaces")
}

/// Makes a PID namespace, starts its init process, prints the process id, and waits for the end.
fn start_init(role: &[&str]) -> Result<ExitCode> {
    // This is the last namespace, because the next child process becomes its init process.
    make(CloneFlags::CLONE_NEWPID)?;
    let program = env::current_exe().context("failed to get the path of this program")?;
    let mut init = Command::new(program).arg(SUBCOMMAND).args(role).spawn().context("failed to start the init process")?;
    print(&init.id().to_string())?;
    let status = init.wait().context("failed to wait for the init process")?;
    // The removal of the cluster kills it.
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "the init process ended ({status})");
    Ok(ExitCode::FAILURE)
}

/// Prints a line. The reader may wait for it, so unlike elsewhere a failure is an error.
fn print(line: &str) -> Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("failed to write to standard output")
}

/// Waits for ended processes, as the init process of a PID namespace must do for all orphans.
struct Reaper(Signals);

impl Reaper {
    /// Begins to count ended processes.
    fn new() -> Result<Self> {
        Signals::new([SIGCHLD]).map(Self).context("failed to catch a signal")
    }

    /// Calls `on_end` for each ended process. Returns its first error.
    fn run(mut self, mut on_end: impl FnMut(Pid, WaitStatus) -> Result<()>) -> Result<ExitCode> {
        for _ in self.0.forever() {
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    Ok(status) => status.pid().map_or(Ok(()), |pid| on_end(pid, status))?,
                    Err(error) => return Err(error).context("failed to wait for processes"),
                }
            }
        }
        bail!("no more signals arrive");
    }
}
