//! Makes the ramdisk of the virtual machines: the suites, portmap, and the programs of this machine that they call. Shared
//! libraries keep their paths.

mod go_client;
mod python;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::binaries::SuiteBinary;
use super::fetch::{self, Kernel};
use crate::{libraries, program, workspace};

/// This workspace's programs that the suites start.
const OWN: [&str; 2] = ["portmap", "portmap-pod"];
/// This workspace's program that runs as PID 1 in the virtual machine.
const GUEST: &str = "portmap-guest";

/// Programs that the suites, the harness, portmap-guest and the kernel call.
const PROGRAMS: [&str; 24] = [
    "bash", "bpftool", "cat", "chmod", "curl", "dig", "getent", "ip", "kmod", "mount", "nft", "nsenter", "prlimit", "readlink",
    "rm", "setpriv", "sh", "sleep", "sysctl", "tc", "timeout", "touch", "true", "unshare",
];

/// Files that the programs read. The Kubernetes client needs some certificate authorities, even without a TLS connection.
const FILES: [&str; 7] = [
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// Directories that are symbolic links to directories in /usr, as in Debian.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The kernel modules that the tests need: bridge, VLANs, bonds (with `net/tls`), tunnels, veth, tun, filters of tc, protocols,
/// packet filters (with checksums of `lib` and `crypto`), and socket diagnostics (parts of `net/ipv4`).
const MODULES: [&str; 20] = [
    "net/802",
    "net/8021q",
    "net/tls",
    "net/llc",
    "net/bridge",
    "net/ipv4",
    "net/ipv6",
    "net/mptcp",
    "net/netfilter",
    "net/sched",
    "drivers/net/bonding/bonding.ko",
    "drivers/net/bonding/bonding.ko.xz",
    "drivers/net/tun.ko",
    "drivers/net/tun.ko.xz",
    "drivers/net/veth.ko",
    "drivers/net/veth.ko.xz",
    "lib/libcrc32c.ko",
    "lib/libcrc32c.ko.xz",
    "crypto/crc32c_generic.ko",
    "crypto/crc32c_generic.ko.xz",
];

/// Makes the ramdisk with these suites and the modules of these kernels. Returns its path.
pub fn pack(kernels: &[Kernel], suites: &[SuiteBinary]) -> Result<PathBuf> {
    let directory = fetch::directory()?;
    let root = RootDirectory(directory.join("ramdisk"));
    fs::remove_dir_all(&root.0).ok();
    root.lay_out()?;
    root.add_programs(suites)?;
    for kernel in kernels {
        root.add_modules(kernel)?;
    }
    let ramdisk = directory.join("ramdisk.cpio");
    root.archive(&ramdisk)?;
    fs::remove_dir_all(&root.0)?;
    Ok(ramdisk)
}

/// The root directory of the ramdisk, as a directory of this machine.
struct RootDirectory(PathBuf);

impl RootDirectory {
    fn lay_out(&self) -> Result<()> {
        for name in MERGED {
            fs::create_dir_all(self.0.join("usr").join(name))?;
            symlink(format!("usr/{name}"), self.0.join(name))?;
        }
        for name in ["etc", "root", "portmap/deps"] {
            fs::create_dir_all(self.0.join(name))?;
        }
        for file in FILES.map(Path::new).into_iter().filter(|file| file.exists()) {
            self.copy(file, file)?;
        }
        // Some suites mount their own file over /etc/resolv.conf, so it must exist.
        self.write(Path::new("/etc/resolv.conf"), "")
    }

    fn add_programs(&self, suites: &[SuiteBinary]) -> Result<()> {
        let built = workspace::target_dir()?.join("release");
        self.add_program(&built.join(GUEST), Path::new("/init"))?;
        for name in OWN {
            self.add_program(&built.join(name), &Path::new("/portmap").join(name))?;
        }
        for suite in suites {
            self.add_program(&suite.path, &Path::new("/portmap/deps").join(&suite.name))?;
        }
        for name in PROGRAMS {
            let path = program::find(name).with_context(|| format!("the program {name} is not installed"))?;
            self.add_program(&path, &Path::new("/usr/bin").join(name))?;
        }
        // The kernel starts this program to load a module.
        self.link(Path::new("/usr/bin/kmod"), Path::new("/usr/sbin/modprobe"))?;
        python::add(self)?;
        go_client::add(self)
    }

    /// Copies a program and its shared libraries. `destination` is a path in the ramdisk.
    fn add_program(&self, path: &Path, destination: &Path) -> Result<()> {
        self.copy(path, destination)?;
        libraries::of(path)?.iter().try_for_each(|library| self.copy(library, library))
    }

    /// Copies a file with its permissions, and follows symbolic links. Does nothing if the destination exists.
    fn copy(&self, path: &Path, destination: &Path) -> Result<()> {
        let to = self.inside(destination);
        if to.exists() {
            return Ok(());
        }
        create_parent(&to)?;
        fs::copy(path, &to).with_context(|| format!("failed to copy {} to {}", path.display(), to.display()))?;
        Ok(())
    }

    fn link(&self, to: &Path, destination: &Path) -> Result<()> {
        let link = self.inside(destination);
        symlink(to, &link).with_context(|| format!("failed to link {}", link.display()))
    }

    /// Copies a directory recursively. Leaves out files and directories for which `is_wanted` is false.
    fn copy_tree(&self, path: &Path, destination: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        let entries = fs::read_dir(path).with_context(|| format!("failed to list {}", path.display()))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_wanted(path)) {
            let destination = destination.join(path.file_name().unwrap_or_default());
            if path.is_dir() { self.copy_tree(&path, &destination, is_wanted)? } else { self.copy(&path, &destination)? }
        }
        Ok(())
    }

    fn add_modules(&self, kernel: &Kernel) -> Result<()> {
        let modules = Path::new("/lib/modules").join(&kernel.release);
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let file = kernel.modules.join(name);
            if file.exists() { self.copy(&file, &modules.join(name))? } else { self.write(&modules.join(name), "")? }
        }
        for part in MODULES {
            let (from, to) = (kernel.modules.join("kernel").join(part), modules.join("kernel").join(part));
            if from.is_dir() {
                self.copy_tree(&from, &to, &|_| true)?;
            } else if from.exists() {
                self.copy(&from, &to)?;
            }
        }
        program::run(program::command("depmod").arg("-b").arg(&self.0).arg(&kernel.release))
    }

    fn write(&self, destination: &Path, text: &str) -> Result<()> {
        let to = self.inside(destination);
        create_parent(&to)?;
        fs::write(&to, text).with_context(|| format!("failed to write {}", to.display()))
    }

    /// The path on this machine for an absolute path in the ramdisk.
    fn inside(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn archive(&self, ramdisk: &Path) -> Result<()> {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755))?;
        let file = fs::File::create(ramdisk).with_context(|| format!("failed to create {}", ramdisk.display()))?;
        let mut pack = program::command("sh");
        pack.args(["-c", "find . -print0 | cpio --null --create --format=newc --quiet"]).current_dir(&self.0);
        let status = pack.stdin(Stdio::null()).stdout(file).status().context("failed to start cpio")?;
        ensure!(status.success(), "cpio failed ({status})");
        Ok(())
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))
}
