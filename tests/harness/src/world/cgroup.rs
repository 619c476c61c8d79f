//! The world's own part of the cgroup v2 tree, and programs started in it.
//!
//! It lies directly below the root of the mount, wherever this process may be itself. The root gets a child and nothing else.

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

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The groups of processes of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Portmap may be attached to it: whoever connects to Services.
    Clients,
    /// Nothing is ever attached to it: servers, the agent, and clients to compare with.
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

/// Removed when dropped, with every process in it.
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

    /// A program that starts in the group and in the network namespace.
    ///
    /// `ip netns exec` would hide the cgroups from it. Each step replaces the one before: the child is the program itself.
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

/// The root of the cgroup v2 tree as this machine mounts it.
pub(super) fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read the mount table")?;
    let path = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    path.context("no cgroup v2 is mounted: `mount -t cgroup2 none /sys/fs/cgroup` does it on most machines")
}

/// Removes a group with those below it, killing what runs there. One that is gone already is fine.
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
            bail!("its processes do not go away");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// `cgroup.kill` would do it from 5.14 on.
fn kill_all(group: &Path) -> Result<()> {
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        let pid = pid.parse()?;
        if u32::try_from(pid) == Ok(process::id()) {
            bail!("this process is in it");
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("failed to kill process {pid}")),
        }
    }
    Ok(())
}
