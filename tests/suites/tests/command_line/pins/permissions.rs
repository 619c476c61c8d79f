//! Owners and permissions of directories of pins.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Uid, chown};
use portmap_harness::world::Group;

use super::{Shared, expect_refusal, make, pin_map, run, text};
use crate::site::{Agent, Site};

/// Runs a program as the user 65534, without privileges.
fn as_nobody(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(arguments);
    let output = command.output().context("failed to run setpriv")?;
    ensure!(output.status.success(), "{arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Before the agent starts, an unprivileged user creates the directory, a parent of it, or a symbolic link with its name.
#[test]
fn a_directory_of_another_user_is_refused() -> Result<()> {
    let site = Site::new("planted")?;
    let shared = Shared::mount()?;
    // The target of the planted link: root's own pins.
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
fn a_directory_that_another_user_can_change_is_refused() -> Result<()> {
    let site = Site::new("open")?;
    let shared = Shared::mount()?;
    let whole = shared.0.path().to_owned();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        let open = shared.path(&format!("{mode:o}"));
        make(&open, mode)?;
        expect_refusal(&site, &open, &whole, &[&text(&open), &format!("{mode:04o}"), "chmod 0700"])?;
    }
    // In a sticky directory other users cannot rename root's entries. In other writable directories they can.
    let parent = shared.path("parent");
    make(&parent, 0o777)?;
    make(&parent.join("portmap"), 0o700)?;
    expect_refusal(&site, &parent.join("portmap"), &whole, &[&text(&parent), "0777", "chmod"])?;
    as_nobody(&["mv", &text(&parent.join("portmap")), &text(&parent.join("moved"))])
        .context("the directory was refused, but nobody could change it")?;
    // The root of the mount counts as a parent too.
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o777))?;
    make(&shared.path("below"), 0o700)?;
    expect_refusal(&site, &shared.path("below"), &whole, &[&text(shared.0.path()), "0777"])?;
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o1777))?;
    assert!(
        as_nobody(&["mv", &text(&shared.path("below")), &text(&shared.path("moved"))]).is_err(),
        "another user renamed an entry of a sticky directory"
    );
    // Directories below the given one are checked too.
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

/// Every user who can open the directory can hold its lock. So the agent changes the mode 0755 to 0700.
#[test]
fn a_readable_directory_is_closed_to_other_users() -> Result<()> {
    let site = Site::new("readable")?;
    make(site.world.bpffs(), 0o755)?;
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(site.manifests()))?;
    agent.await_log("its mode is 0700 now")?;
    agent.await_log("synced: ")?;
    assert_eq!(fs::metadata(site.world.bpffs())?.permissions().mode() & 0o7777, 0o700);
    Ok(())
}

/// The mount namespace of the agent has no BPF file system at /sys/fs/bpf, so the agent mounts one there.
#[test]
fn a_bpf_file_system_that_the_agent_mounts_is_for_root_only() -> Result<()> {
    const UNMOUNT: &str = r#"while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done; exec "$@""#;
    let site = Site::new("mounts")?;
    let mut command = site.world.command("unshare");
    command.args(["--mount", "sh", "-c", UNMOUNT, "sh"]).arg(portmap_suites::command::binary()?);
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--bpffs", "/sys/fs/bpf/portmap", "--cgroup"]);
    let mut agent = Agent::start(command.arg(site.world.cgroup(Group::Clients)).arg("--manifests").arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    let mounted = PathBuf::from(format!("/proc/{}/root/sys/fs/bpf", agent.pid()));
    for path in [mounted.clone(), mounted.join("portmap")] {
        // The kernel sets the sticky bit on the root of a mounted BPF file system, independent of the mode option.
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
    Ok(())
}
