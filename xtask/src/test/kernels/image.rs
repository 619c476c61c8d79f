//! The ramdisk that all machines boot with: the suites, portmap, and the programs of this machine that they call, each with its
//! shared libraries and at its own place.

mod go_client;
mod libraries;
mod python;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::binaries::SuiteBinary;
use super::fetch::{self, Kernel};
use crate::{program, workspace};

/// This workspace's programs.
const OWN: [&str; 2] = ["portmap", "portmap-pod"];
/// The first process.
const GUEST: &str = "portmap-guest";

/// What suites call, what the harness calls, and what the kernel and the first process call.
const PROGRAMS: [&str; 22] = [
    "bash", "bpftool", "cat", "chmod", "curl", "dig", "getent", "ip", "kmod", "mount", "nsenter", "prlimit", "readlink", "rm",
    "setpriv", "sh", "sleep", "sysctl", "timeout", "touch", "true", "unshare",
];

/// What they read. A client of an API server wants to know some authorities, even if it needs none.
const FILES: [&str; 7] = [
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// Directories that are links to those below /usr, as in Debian.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The parts of a kernel's modules that a world may need, diagnostics of sockets included.
const MODULES: [&str; 8] =
    ["net/802", "net/llc", "net/bridge", "net/ipv4", "net/ipv6", "net/mptcp", "drivers/net/veth.ko", "drivers/net/veth.ko.xz"];

/// Packs the ramdisk for these kernels, with these suites.
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

/// The root directory of the machines, as a directory of this one.
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
        // Suites put their own in its place.
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
            let path = program::find(name).with_context(|| format!("there is no {name}"))?;
            self.add_program(&path, &Path::new("/usr/bin").join(name))?;
        }
        // What the kernel starts to load a module.
        self.link(Path::new("/usr/bin/kmod"), Path::new("/usr/sbin/modprobe"))?;
        python::add(self)?;
        go_client::add(self)
    }

    /// With the libraries that it is linked with.
    fn add_program(&self, path: &Path, place: &Path) -> Result<()> {
        self.copy(path, place)?;
        libraries::of(path)?.iter().try_for_each(|library| self.copy(library, library))
    }

    /// A file, following links, with its permissions; not again if it is there.
    fn copy(&self, path: &Path, place: &Path) -> Result<()> {
        let to = self.inside(place);
        if to.exists() {
            return Ok(());
        }
        make_room(&to)?;
        fs::copy(path, &to).with_context(|| format!("failed to copy {} to {}", path.display(), to.display()))?;
        Ok(())
    }

    fn link(&self, to: &Path, place: &Path) -> Result<()> {
        let link = self.inside(place);
        symlink(to, &link).with_context(|| format!("failed to link {}", link.display()))
    }

    /// A directory with all that is in it and wanted.
    fn copy_tree(&self, path: &Path, place: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
        let entries = fs::read_dir(path).with_context(|| format!("failed to list {}", path.display()))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_wanted(path)) {
            let place = place.join(path.file_name().unwrap_or_default());
            if path.is_dir() { self.copy_tree(&path, &place, is_wanted)? } else { self.copy(&path, &place)? }
        }
        Ok(())
    }

    fn add_modules(&self, kernel: &Kernel) -> Result<()> {
        let place = Path::new("/lib/modules").join(&kernel.release);
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let file = kernel.modules.join(name);
            if file.exists() { self.copy(&file, &place.join(name))? } else { self.write(&place.join(name), "")? }
        }
        for part in MODULES {
            let (from, to) = (kernel.modules.join("kernel").join(part), place.join("kernel").join(part));
            if from.is_dir() {
                self.copy_tree(&from, &to, &|_| true)?;
            } else if from.exists() {
                self.copy(&from, &to)?;
            }
        }
        program::run(program::command("depmod").arg("-b").arg(&self.0).arg(&kernel.release))
    }

    fn write(&self, place: &Path, text: &str) -> Result<()> {
        let to = self.inside(place);
        make_room(&to)?;
        fs::write(&to, text).with_context(|| format!("failed to write {}", to.display()))
    }

    /// The path here of what is at a place there.
    fn inside(&self, place: &Path) -> PathBuf {
        self.0.join(place.strip_prefix("/").unwrap_or(place))
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

fn make_room(path: &Path) -> Result<()> {
    let above = path.parent().unwrap_or(path);
    fs::create_dir_all(above).with_context(|| format!("failed to create {}", above.display()))
}
