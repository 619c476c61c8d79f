//! Directories of pins that hold somebody else's things, or that somebody else can change.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, chown};
use portmap_common::{ABI_VERSION, SOCKETS_VERSION};
use portmap_harness::links::Link;
use portmap_harness::world::Group;
use tempfile::TempDir;

use crate::harness::{Outcome, finish, in_time, portmap};
use crate::site::{Agent, Site, service};

/// A BPF file system of a test's own, open to everybody as some distributions mount it.
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

/// A directory of root's with these permissions.
fn make(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("failed to create {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Runs a program as a user without any rights.
fn as_nobody(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(arguments);
    let output = command.output().context("failed to run setpriv")?;
    ensure!(output.status.success(), "{arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn bpftool(arguments: &[&str]) -> Result<()> {
    let output = Command::new("bpftool").args(arguments).output().context("failed to run bpftool")?;
    ensure!(output.status.success(), "bpftool {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Pins a map of somebody else's.
fn pin_map(path: &Path) -> Result<()> {
    bpftool(&["map", "create", &text(path), "type", "array", "key", "4", "value", "4", "entries", "1", "name", "other"])
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Every path below a directory, with where links lead to.
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

/// The directory of the notes on sockets.
fn notes() -> String {
    format!("sockets-{SOCKETS_VERSION}")
}

fn cleanup(directory: &Path) -> Result<Outcome> {
    portmap(&["cleanup", "--bpffs", &text(directory)])
}

/// `portmap run` of a site on a directory of pins, which should end by itself.
fn run(site: &Site, bpffs: &Path) -> Result<Outcome> {
    let mut command = in_time(site.world.command("timeout"))?;
    command.arg("run").arg("--manifests").arg(site.manifests()).arg("--bpffs").arg(bpffs);
    finish(command.arg("--cgroup").arg(site.world.cgroup(Group::Clients)))
}

/// Every subcommand that uses pins refuses a directory, says all this, and changes nothing in `whole`.
fn expect_refusal(site: &Site, bpffs: &Path, whole: &Path, parts: &[&str]) -> Result<()> {
    let before = everything(whole)?;
    run(site, bpffs)?.expect_error(parts)?;
    for subcommand in ["status", "services", "cleanup"] {
        portmap(&[subcommand, "--bpffs", &text(bpffs)])?.expect_error(parts)?;
    }
    assert_eq!(everything(whole)?, before, "{} was changed", bpffs.display());
    Ok(())
}

/// A directory of pins as an agent leaves it, and the names in it.
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

/// What is not portmap's is left where it is, whatever it is called.
#[test]
fn cleanup_leaves_and_names_what_others_pinned() -> Result<()> {
    let site = Site::new("others-pins")?;
    let root = leave_pins(&site)?;
    let set = root.join(ABI_VERSION.to_string()).join("0");
    let elsewhere = Shared::mount()?;
    pin_map(&elsewhere.path("STATE"))?;
    let links = Link::to(&site.world.cgroup(Group::Clients))?;
    let program = links.first().context("nothing is attached")?.program.to_string();
    for directory in [root.join("tc"), root.join("03"), root.join("sockets-x"), set.join("GRACE_d"), root.join("7")] {
        make(&directory, 0o700)?;
    }
    make(&root.join("7/0"), 0o700)?;
    let maps = [
        root.join("STATE"),
        root.join("tc/STATE"),
        root.join("03/STATE"),
        set.join("OTHER"),
        set.join("link_other"),
        root.join("7/STATE"),
    ];
    for path in maps.iter().chain([&root.join("7/0/link_connect4"), &root.join(notes()).join("STATE"), &set.join("SOCKETS")]) {
        pin_map(path)?;
    }
    bpftool(&["prog", "pin", "id", &program, &text(&set.join("UDP_SOCKETS"))])?;
    symlink(elsewhere.path("STATE"), root.join("7/0/STATE"))?;
    symlink(elsewhere.0.path(), root.join("8"))?;
    let left =
        ["8", "tc", "03", "sockets-x", "STATE", "7/STATE", "7/0/link_connect4", "7/0/STATE", &format!("{}/STATE", notes())];
    let left: Vec<PathBuf> = left.iter().map(|name| root.join(name)).collect();
    let left = left.into_iter().chain(["GRACE_d", "OTHER", "link_other", "SOCKETS", "UDP_SOCKETS"].map(|name| set.join(name)));
    let outcome = cleanup(&root)?.expect(1)?;
    for path in left {
        let line = format!("error: left {}: ", path.display());
        assert!(outcome.stderr.lines().any(|said| said.starts_with(&line)), "{line} {outcome:#?}");
        assert!(fs::symlink_metadata(&path).is_ok(), "{} is gone", path.display());
    }
    assert_eq!(outcome.stderr.lines().count(), 14, "{outcome:#?}");
    assert!(elsewhere.path("STATE").exists() && root.join("tc/STATE").exists() && root.join("03/STATE").exists());
    // All of portmap's is gone.
    assert_eq!(fs::read_dir(&set)?.count(), 5);
    assert!(Link::to(&site.world.cgroup(Group::Clients))?.is_empty(), "programs are attached");
    // Once more: now nothing is portmap's.
    let before = everything(&root)?;
    cleanup(&root)?.expect_error(&[&text(&root), "nothing was removed", &text(&root.join("tc"))])?;
    assert_eq!(everything(&root)?, before);
    Ok(())
}

/// Also where the old set goes after a take-over, and at the end of `--cleanup-on-exit`.
#[test]
fn an_agent_leaves_and_names_what_others_pinned() -> Result<()> {
    let mut site = Site::new("others-set")?;
    let root = leave_pins(&site)?;
    let version = root.join(ABI_VERSION.to_string());
    pin_map(&version.join("0/OTHER"))?;
    site.max_services = 32;
    let mut agent = Agent::start(site.run(&["--cleanup-on-exit", "--manifests"])?.arg(site.manifests()))?;
    agent.await_log(&format!("left {}: ", version.join("0/OTHER").display()))?;
    assert_eq!(everything(&version.join("0"))?, [version.join("0/OTHER")]);
    let (status, said) = agent.stop(Signal::SIGTERM)?;
    assert_eq!(status.code(), Some(3), "{said}");
    // The same warning within seconds is written once.
    assert!(said.contains("were left") && said.contains("0/OTHER"), "{said}");
    assert_eq!(everything(&root)?, [version.clone(), version.join("0"), version.join("0/OTHER")]);
    Ok(())
}

/// An unprivileged user makes the directory, or a link of its name, before the agent does.
#[test]
fn what_another_user_made_is_refused() -> Result<()> {
    let site = Site::new("planted")?;
    let shared = Shared::mount()?;
    // What a planted link could lead to: root's own pins.
    let real = shared.path("real");
    make(&real, 0o700)?;
    make(&real.join("3"), 0o700)?;
    make(&real.join("3/0"), 0o700)?;
    pin_map(&real.join("3/0/STATE"))?;
    let whole = shared.0.path().to_owned();
    let link = shared.path("link");
    as_nobody(&["ln", "-s", &text(&real), &text(&link)])?;
    expect_refusal(&site, &link, &whole, &[&text(&link), "symbolic link", &text(&real), "--bpffs"])?;
    expect_refusal(&site, &link.join("3"), &whole, &["symbolic link"])?;
    run(&site, &link.join("new"))?.expect_error(&["symbolic link"])?;
    let made = shared.path("portmap");
    as_nobody(&["mkdir", "--mode", "0700", &text(&made)])?;
    expect_refusal(&site, &made, &whole, &[&text(&made), "user 65534", "chown root:root"])?;
    let parent = shared.path("parent");
    as_nobody(&["mkdir", "--mode", "0755", &text(&parent)])?;
    make(&parent.join("portmap"), 0o700)?;
    expect_refusal(&site, &parent.join("portmap"), &whole, &[&text(&parent), "user 65534", "chown root:root"])?;
    run(&site, &parent.join("new/portmap"))?.expect_error(&[&text(&parent), "user 65534"])?;
    assert!(!parent.join("new").exists());
    Ok(())
}

#[test]
fn what_another_user_can_change_is_refused() -> Result<()> {
    let site = Site::new("open")?;
    let shared = Shared::mount()?;
    let whole = shared.0.path().to_owned();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        let open = shared.path(&format!("{mode:o}"));
        make(&open, mode)?;
        expect_refusal(&site, &open, &whole, &[&text(&open), &format!("{mode:04o}"), "chmod 0700"])?;
    }
    // In a sticky directory nobody else removes root's; in others, everybody does.
    let parent = shared.path("parent");
    make(&parent, 0o777)?;
    make(&parent.join("portmap"), 0o700)?;
    expect_refusal(&site, &parent.join("portmap"), &whole, &[&text(&parent), "0777", "chmod"])?;
    as_nobody(&["mv", &text(&parent.join("portmap")), &text(&parent.join("moved"))]).context("refused without need")?;
    // The root of the mount is a parent too.
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o777))?;
    make(&shared.path("below"), 0o700)?;
    expect_refusal(&site, &shared.path("below"), &whole, &[&text(shared.0.path()), "0777"])?;
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o1777))?;
    assert!(
        as_nobody(&["mv", &text(&shared.path("below")), &text(&shared.path("moved"))]).is_err(),
        "a sticky directory is no help"
    );
    // And everything below.
    for (name, mode) in [("3", 0o777), ("3/0", 0o770), ("sockets-2", 0o707)] {
        let root = shared.path(&format!("deep-{mode:o}"));
        make(&root, 0o700)?;
        fs::create_dir_all(root.join(name))?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))?;
        expect_refusal(&site, &root, &whole, &[&text(&root.join(name)), &format!("{mode:04o}"), "chmod 0700"])?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o700))?;
        chown(&root.join(name), Some(Uid::from_raw(65534)), None)?;
        expect_refusal(&site, &root, &whole, &[&text(&root.join(name)), "user 65534", "chown root:root"])?;
    }
    Ok(())
}

/// Who can open the directory can hold its lock, for ever.
#[test]
fn a_directory_that_others_can_read_is_closed_to_them() -> Result<()> {
    let site = Site::new("readable")?;
    make(site.world.bpffs(), 0o755)?;
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(site.manifests()))?;
    agent.await_log("its mode is 0700 now")?;
    agent.await_log("synced: ")?;
    assert_eq!(fs::metadata(site.world.bpffs())?.permissions().mode() & 0o7777, 0o700);
    Ok(())
}

/// In a mount namespace of its own, where no BPF file system is mounted.
#[test]
fn a_bpf_file_system_that_the_agent_mounts_is_for_root_only() -> Result<()> {
    const UNMOUNT: &str = r#"while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done; exec "$@""#;
    let site = Site::new("mounts")?;
    let mut command = site.world.command("unshare");
    command.args(["--mount", "sh", "-c", UNMOUNT, "sh"]).arg(crate::harness::binary()?);
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--bpffs", "/sys/fs/bpf/portmap", "--cgroup"]);
    let mut agent = Agent::start(command.arg(site.world.cgroup(Group::Clients)).arg("--manifests").arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    let mounted = PathBuf::from(format!("/proc/{}/root/sys/fs/bpf", agent.pid()));
    for path in [mounted.clone(), mounted.join("portmap")] {
        // The kernel makes the root of such a mount sticky whatever it is told.
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
    Ok(())
}

/// An agent that waited for the lock of a directory that is gone would not keep a third one out.
#[test]
fn the_lock_is_that_of_the_directory_in_use() -> Result<()> {
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

/// What somebody else has put in the place of a link is neither detached nor removed.
#[test]
fn a_pin_that_is_no_link_of_a_program_is_left() -> Result<()> {
    let site = Site::new("no-link")?;
    let link = leave_pins(&site)?.join(ABI_VERSION.to_string()).join("0/link_connect4");
    fs::remove_file(&link)?;
    pin_map(&link)?;
    site.run_in_time(&["--manifests", &text(&site.manifests())])?.expect_error(&[
        &text(&link),
        "not portmap's",
        "remove it",
    ])?;
    assert!(link.exists());
    Ok(())
}

/// A whole mount may be portmap's: the mount itself stays.
#[test]
fn the_root_of_a_mount_can_hold_the_pins() -> Result<()> {
    let site = Site::new("mount-root")?;
    let shared = Shared::mount()?;
    let root = shared.0.path();
    expect_refusal(&site, root, root, &[&text(root), "1777", "chmod 0700"])?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    let mut command = site.world.command(crate::harness::binary()?);
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
