//! The cgroups of a [`World`](super::World) in the cgroup v2 tree, and commands that run in them.
//!
//! Each [`World`](super::World) has one child of the root cgroup, with one child for each [`Group`]. They do not depend on this
//! process's own cgroup. The root cgroup is not changed otherwise.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::identity::Identity;
use super::namespace::Namespace;

/// Time limit for killed processes to end, after which a removal fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the two cgroups for the processes of a [`World`](super::World).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// For clients of Services. Agents attach portmap to this cgroup.
    Clients,
    /// For servers, the agent, and clients without portmap. No BPF program is attached to this cgroup.
    Clean,
}

impl Group {
    const ALL: [Self; 2] = [Self::Clients, Self::Clean];

    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Clean => "clean",
        }
    }
}

/// The parent cgroup of both groups of a [`World`](super::World). Dropping this kills their processes and removes all three
/// cgroups.
pub(super) struct Cgroups(PathBuf);

impl Cgroups {
    pub(super) fn create(identity: &Identity) -> Result<Self> {
        let cgroups = Self(mount()?.join(identity.to_string()));
        for directory in Group::ALL.map(|group| cgroups.directory(group)) {
            fs::create_dir_all(&directory).with_context(|| format!("failed to make the cgroup {}", directory.display()))?;
        }
        Ok(cgroups)
    }

    pub(super) fn directory(&self, group: Group) -> PathBuf {
        self.0.join(group.name())
    }

    /// A command that runs a program in the cgroup `group` and in the network namespace.
    ///
    /// `ip netns exec` would hide the cgroup mount, so `nsenter` is used. Each step uses `exec`: the child is the program
    /// itself.
    pub(super) fn command(&self, group: Group, namespace: &Namespace, program: &Path) -> Command {
        const STEPS: &str = r#"echo 0 > "$1" && shift && exec nsenter "$@""#;
        let mut net = std::ffi::OsString::from("--net=");
        net.push(namespace.path());
        let mut command = Command::new("sh");
        command.args(["-c", STEPS, "sh"]).arg(self.directory(group).join("cgroup.procs")).arg(net).arg("--").arg(program);
        command
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// The first mount point of a cgroup v2 tree.
pub(super) fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read the mount table")?;
    let path = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    path.context("no cgroup v2 is mounted: try `mount -t cgroup2 none /sys/fs/cgroup`")
}

/// Removes a cgroup with its descendants, and kills their processes. A missing cgroup is no error.
pub(super) fn remove(group: &Path) -> Result<()> {
    for child in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&child.path())?;
    }
    remove_one(group).with_context(|| format!("failed to remove the cgroup {}", group.display()))
}

fn remove_one(group: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => kill_all(group)?,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => return Ok(()),
        }
        if Instant::now() > deadline {
            bail!("its killed processes did not end within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the processes of a cgroup one by one. `cgroup.kill` needs 5.14, and the tests also run on older kernels.
fn kill_all(group: &Path) -> Result<()> {
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        let pid = pid.parse()?;
        if u32::try_from(pid) == Ok(process::id()) {
            bail!("this process is in the cgroup");
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("failed to kill process {pid}")),
        }
    }
    Ok(())
}
