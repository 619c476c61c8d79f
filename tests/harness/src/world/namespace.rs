//! Named network namespaces, made and removed with iproute2.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use super::families::Families;
use crate::kernel::Features;

/// Directory of the named network namespaces of iproute2.
pub(super) const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Dropping this removes the name; the kernel frees the namespace when nothing uses it.
pub(super) struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes a namespace whose loopback interface is up. IPv6 is disabled for [`Families::V4`]. Otherwise IPv6 addresses are
    /// usable at once, without duplicate address detection.
    pub(super) fn create(name: String, families: Families) -> Result<Self> {
        ip(&[], &format!("netns add {name}"))?;
        let namespace = Self { path: Path::new(DIRECTORY).join(&name), name };
        if Features::here().has_ipv6 {
            // `default` is for later interfaces. The kernel uses the greater `accept_dad` of `all` and the interface.
            let disable = if families == Families::V4 { "1" } else { "0" };
            namespace.write_sysctls(&["ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"], disable)?;
            namespace.write_sysctls(&["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"], "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `ip` commands in the namespace, one per line. Fails at the first error.
    pub(super) fn ip(&self, script: &str) -> Result<()> {
        ip(&["-netns", &self.name], script)
    }

    /// Removes the path MTUs and other exceptions to routes that the namespace has learnt.
    pub(super) fn forget_exceptions(&self) -> Result<()> {
        ["-4", "-6"].iter().try_for_each(|family| ip(&[family, "-netns", &self.name], "route flush cache"))
    }

    /// Moves the calling thread into the namespace. Its later threads and child processes start there too.
    pub(super) fn enter(&self) -> Result<()> {
        let namespace = File::open(&self.path).with_context(|| format!("failed to open {}", self.path.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("failed to enter the network namespace {}", self.name))
    }

    /// Writes sysctls below `net/` from a thread in the namespace, because `/proc/sys/net` shows the namespace of the thread.
    pub(super) fn write_sysctls(&self, names: &[&str], value: &str) -> Result<()> {
        let write = || {
            self.enter()?;
            for name in names {
                fs::write(Path::new("/proc/sys/net").join(name), value).with_context(|| format!("net/{name}"))?;
            }
            Ok(())
        };
        thread::scope(|scope| scope.spawn(write).join())
            .unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
            .with_context(|| format!("failed to set sysctls in the network namespace {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            eprintln!("warning: {error:#}");
        }
    }
}

pub(super) fn delete(name: &str) -> Result<()> {
    ip(&[], &format!("netns delete {name}"))
}

fn ip(options: &[&str], script: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run `ip`: install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).context("failed to write the commands for `ip`")?;
    }
    let mut errors = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut errors).context("failed to read the errors of `ip`")?;
    }
    let status = child.wait().context("failed to wait for `ip`")?;
    ensure!(status.success(), "failed to run `ip {}` with\n{script}\n{}", options.join(" "), errors.trim_end());
    Ok(())
}
