//! Prepares the virtual machine, as an init system does: mounts file systems, starts loopback and loads kernel modules.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};

/// Types and mount points of the file systems.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// Kernel modules for the network namespaces of the tests: `tun` makes `/dev/net/tun`. The kernel loads other modules itself, with
/// `modprobe`.
const MODULES: [&str; 3] = ["bridge", "tun", "veth"];

pub(super) fn prepare() -> Result<()> {
    for (kind, directory) in MOUNTS {
        fs::create_dir_all(directory).with_context(|| format!("failed to create {directory}"))?;
        mount(Some(kind), directory, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount {kind} on {directory}"))?;
    }
    run("ip", &["link", "set", "lo", "up"])?;
    run("modprobe", &[&["-a"], MODULES.as_slice()].concat())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| format!("failed to start {program}"))?;
    ensure!(status.success(), "`{program} {}` failed ({status})", arguments.join(" "));
    Ok(())
}
