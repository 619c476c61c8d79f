//! What the kernel and the way it was booted must offer. All but one of these can only be reported.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Purpose, Step};
use crate::program;

const BPFFS: &str = "/sys/fs/bpf";
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The user who runs this.
pub struct RootUser;

impl Step for RootUser {
    fn name(&self) -> &'static str {
        "root"
    }

    fn why(&self) -> &'static str {
        "BPF programs are loaded and network namespaces made"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        if !program::is_root() {
            bail!("this is not root");
        }
        Ok("root".into())
    }

    fn install(&self) -> Result<()> {
        bail!("run it as root for everything that touches the kernel")
    }
}

/// Where the programs are attached.
pub struct CgroupV2;

impl Step for CgroupV2 {
    fn name(&self) -> &'static str {
        "cgroup v2"
    }

    fn why(&self) -> &'static str {
        "the programs are attached to a cgroup"
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
        bail!("not mounted; mount it with: mount -t cgroup2 none DIR")
    }
}

/// The kernel's description of its types.
pub struct Btf;

impl Step for Btf {
    fn name(&self) -> &'static str {
        "kernel BTF"
    }

    fn why(&self) -> &'static str {
        "the programs are adapted to the running kernel with it"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Kernel
    }

    fn check(&self) -> Result<String> {
        if !Path::new(VMLINUX_BTF).exists() {
            bail!("no {VMLINUX_BTF}");
        }
        Ok(format!("kernel BTF at {VMLINUX_BTF}"))
    }

    fn install(&self) -> Result<()> {
        bail!("no {VMLINUX_BTF}; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are")
    }
}

/// Where maps and links are pinned.
pub struct Bpffs;

impl Step for Bpffs {
    fn name(&self) -> &'static str {
        "bpffs"
    }

    fn why(&self) -> &'static str {
        "maps and links are pinned there"
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
            bail!("type: sudo mount -t bpf bpf {BPFFS}");
        }
        program::run(program::command("mount").args(["-t", "bpf", "bpf", BPFFS]))
    }
}

fn mounts() -> Result<String> {
    fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")
}

/// Mount points and their kinds of file system.
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
