//! Checks the requirements on the user and the running kernel. As root, a missing bpffs is mounted; in all other cases, the
//! error has the instructions.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Purpose, Step};
use crate::program;

const BPFFS: &str = "/sys/fs/bpf";
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The step that checks for root.
pub struct RootUser;

impl Step for RootUser {
    fn name(&self) -> &'static str {
        "root"
    }

    fn why(&self) -> &'static str {
        "only root can load BPF programs and make network namespaces"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        if !program::is_root() {
            bail!("the user is not root");
        }
        Ok("root".into())
    }

    fn install(&self) -> Result<()> {
        bail!("run the command as root: the demo and many tests load BPF programs")
    }
}

/// The step that checks for a cgroup v2 mount.
pub struct CgroupV2;

impl Step for CgroupV2 {
    fn name(&self) -> &'static str {
        "cgroup v2"
    }

    fn why(&self) -> &'static str {
        "BPF programs are attached to a cgroup"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        let mounts = mounts()?;
        let (path, _) = parse_mounts(&mounts).find(|(_, kind)| *kind == "cgroup2").context("not mounted")?;
        Ok(format!("cgroup v2 at {path}"))
    }

    fn install(&self) -> Result<()> {
        bail!("not mounted; run: mount -t cgroup2 none DIR")
    }
}

/// The step that checks for the kernel's type information (BTF).
pub struct Btf;

impl Step for Btf {
    fn name(&self) -> &'static str {
        "kernel BTF"
    }

    fn why(&self) -> &'static str {
        "the loader adapts BPF programs to the running kernel with it"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        if !Path::new(VMLINUX_BTF).exists() {
            bail!("{VMLINUX_BTF} does not exist");
        }
        Ok(format!("kernel BTF at {VMLINUX_BTF}"))
    }

    fn install(&self) -> Result<()> {
        bail!("{VMLINUX_BTF} does not exist; boot a kernel with CONFIG_DEBUG_INFO_BTF=y, which distributions set")
    }
}

/// The step that mounts the bpffs.
pub struct Bpffs;

impl Step for Bpffs {
    fn name(&self) -> &'static str {
        "bpffs"
    }

    fn why(&self) -> &'static str {
        "the agent pins maps and links there"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        let mounts = mounts()?;
        if !parse_mounts(&mounts).any(|mount| mount == (BPFFS, "bpf")) {
            bail!("not mounted at {BPFFS}");
        }
        Ok(format!("bpffs at {BPFFS}"))
    }

    fn install(&self) -> Result<()> {
        if !program::is_root() {
            bail!("run: sudo mount -t bpf bpf {BPFFS}");
        }
        program::run(program::command("mount").args(["-t", "bpf", "bpf", BPFFS]))
    }
}

fn mounts() -> Result<String> {
    fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")
}

/// The mount points and file system types in the text of `/proc/self/mounts`.
fn parse_mounts(mounts: &str) -> impl Iterator<Item = (&str, &str)> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_by_column() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found: Vec<_> = parse_mounts(mounts).collect();
        assert_eq!(found, [("/sys/fs/cgroup", "tmpfs"), ("/sys/fs/cgroup/unified", "cgroup2")]);
    }
}
