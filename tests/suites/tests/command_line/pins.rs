//! Directories of pins that contain pins of other programs, or that other users can change.
//!
//! This file has the helpers, and tests of cleanup, of the lock and of the root of a mount. The submodules test pins of other
//! programs and the permissions of directories.

mod foreign;
mod permissions;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use portmap_common::{ABI_VERSION, SOCKETS_VERSION};
use portmap_harness::world::Group;
use portmap_suites::command::{Outcome, finish, in_time, portmap};
use tempfile::TempDir;

use crate::site::{Agent, Site, service};

/// A BPF file system of one test, writable for every user. Some distributions mount it this way.
struct Shared(TempDir);

impl Shared {
    fn mount() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), Some("mode=1777"))?;
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("warning: failed to unmount {}: {error}", self.0.path().display());
        }
    }
}

/// Creates a directory of root with this mode.
fn make(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("failed to create {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn bpftool(arguments: &[&str]) -> Result<()> {
    let output = Command::new("bpftool").args(arguments).output().context("failed to run bpftool")?;
    ensure!(output.status.success(), "bpftool {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Pins a map that is not portmap's.
fn pin_map(path: &Path) -> Result<()> {
    bpftool(&["map", "create", &text(path), "type", "array", "key", "4", "value", "4", "entries", "1", "name", "other"])
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// All paths below a directory, sorted. For a symbolic link, the list has its target instead of its path.
fn everything(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            found.extend(everything(&path)?);
        }
        found.push(if metadata.is_symlink() { fs::read_link(&path)? } else { path });
    }
    found.sort();
    Ok(found)
}

/// Name of the directory with the pinned maps that hold the programs' notes on sockets.
fn notes() -> String {
    format!("sockets-{SOCKETS_VERSION}")
}

fn cleanup(directory: &Path) -> Result<Outcome> {
    portmap(&["cleanup", "--bpffs", &text(directory)])
}

/// Runs `portmap run` on the manifests of a site with this directory of pins. The agent ends by itself, or is killed.
fn run(site: &Site, bpffs: &Path) -> Result<Outcome> {
    let mut command = in_time(site.world.command("timeout"))?;
    command.arg("run").arg("--manifests").arg(site.manifests()).arg("--bpffs").arg(bpffs);
    finish(command.arg("--cgroup").arg(site.world.cgroup(Group::Clients)))
}

/// Expects that each subcommand refuses the directory, with all parts in its error. The tree `whole` must stay unchanged.
fn expect_refusal(site: &Site, bpffs: &Path, whole: &Path, parts: &[&str]) -> Result<()> {
    let before = everything(whole)?;
    run(site, bpffs)?.expect_error(parts)?;
    for subcommand in ["status", "services", "flows", "verify", "cleanup"] {
        portmap(&[subcommand, "--bpffs", &text(bpffs)])?.expect_error(parts)?;
    }
    assert_eq!(everything(whole)?, before, "{} was changed", bpffs.display());
    Ok(())
}

/// Starts and stops an agent, and returns its directory of pins.
fn leave_pins(site: &Site) -> Result<PathBuf> {
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    site.start()?.stop(Signal::SIGTERM)?;
    Ok(site.world.bpffs().to_owned())
}

#[test]
fn cleanup_touches_nothing_in_an_ordinary_directory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let outside = directory.path().join("outside");
    fs::write(&outside, "precious")?;
    let given = directory.path().join("given");
    let set = given.join(ABI_VERSION.to_string()).join("0");
    fs::create_dir_all(&set)?;
    for name in ["STATE", "link_connect4", "document"] {
        fs::write(set.join(name), name)?;
    }
    symlink(&outside, set.join("SERVICES"))?;
    symlink(directory.path(), given.join(notes()))?;
    let before = everything(directory.path())?;
    for path in [given.as_path(), &given.join(ABI_VERSION.to_string())] {
        cleanup(path)?.expect_error(&[&text(path), "not on a BPF file system", "--bpffs"])?;
    }
    assert_eq!(everything(directory.path())?, before);
    assert_eq!(fs::read_to_string(outside)?, "precious");
    Ok(())
}

/// The first agent removes the directory at its end. The waiting agent must then lock the new directory, so that it excludes a
/// third agent.
#[test]
fn a_waiting_agent_locks_the_directory_in_use() -> Result<()> {
    let site = Site::new("lock")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let mut first = Agent::start(site.run(&["--cleanup-on-exit", "--manifests"])?.arg(site.manifests()))?;
    first.await_log("synced: ")?;
    let mut second = Agent::start(site.run(&["--wait", "--manifests"])?.arg(site.manifests()))?;
    second.await_log("waiting for its end")?;
    first.stop(Signal::SIGTERM)?;
    second.await_log("synced: ")?;
    let parts = [&*format!("process {}", second.pid()), "another agent"];
    site.run_in_time(&["--manifests", &text(&site.manifests())])?.expect_error(&parts)?;
    site.await_services(&[("10.96.0.10", "web")])
}

/// The root of a BPF file system may be the directory of pins. Cleanup keeps the mount.
#[test]
fn the_root_of_a_mount_can_hold_the_pins() -> Result<()> {
    let site = Site::new("mount-root")?;
    let shared = Shared::mount()?;
    let root = shared.0.path();
    expect_refusal(&site, root, root, &[&text(root), "1777", "chmod 0700"])?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    let mut command = site.world.command(portmap_suites::command::binary()?);
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--bpffs"]).arg(root);
    let mut agent =
        Agent::start(command.arg("--cgroup").arg(site.world.cgroup(Group::Clients)).arg("--manifests").arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    agent.stop(Signal::SIGTERM)?;
    let outcome = cleanup(root)?.expect(0)?;
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    assert!(!root.join(ABI_VERSION.to_string()).exists() && root.exists());
    Ok(())
}
