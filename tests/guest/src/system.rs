//! Makes a machine out of a kernel and a ramdisk: what an init system would have done by now.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};

/// File systems, and where they belong.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// What a world is made of. The kernel asks for the rest itself, and finds it with the same program.
const MODULES: [&str; 2] = ["bridge", "veth"];

pub(super) fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("failed to create {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount {kind} on {place}"))?;
    }
    run("ip", &["link", "set", "lo", "up"])?;
    run("modprobe", &[&["-a"], MODULES.as_slice()].concat())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| format!("failed to start {program}"))?;
    ensure!(status.success(), "`{program} {}` failed ({status})", arguments.join(" "));
    Ok(())
}
