//! The cgroup that programs are attached to: the node's, found anew when it was removed and made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::links::Link;
use portmap_harness::world::Group;

use crate::harness::{PATIENCE, binary, finish, in_time};
use crate::site::{Agent, Site, service};

/// Programs that are attached.
const ALL: usize = 8;

/// What a connection to a Service without endpoints comes to, and to an address that nobody translates.
const SERVED: &str = "Connection refused";
const LEFT_ALONE: &str = "Network is unreachable";

/// Makes the cgroup that the shell is in the root of a private namespace, and mounts that at `$1`: where it is the only one. It would be the
/// machine's that an agent attaches to otherwise.
const CONTAINER: &str = r#"while dir=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts) && [ -n "$dir" ]; do
        umount --lazy "$dir" || exit 99
    done
    mount -t cgroup2 none "$1" && [ "$(stat -c %i "$1")" != 1 ] || exit 99
    shift; exec "$@""#;

/// A shell in a container as a runtime makes them by default, to which a program and its arguments are added. Its cgroup is that of the
/// world's clients.
fn container(site: &Site, mounted: &Path) -> Result<Command> {
    fs::create_dir_all(mounted)?;
    let mut command = site.world.command_in(Group::Clients, "unshare");
    command.args(["--mount", "--cgroup", "sh", "-c", CONTAINER, "sh"]).arg(mounted);
    Ok(command)
}

/// The arguments of an agent without a cgroup.
fn run(site: &Site, command: &mut Command) {
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--manifests"]).arg(site.manifests());
    command.arg("--bpffs").arg(site.world.bpffs());
}

/// Tries until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// An agent in a container, which is expected to end by itself.
fn agent_in_time(site: &Site, mounted: &Path) -> Result<Command> {
    let mut command = container(site, mounted)?;
    command.arg("timeout");
    let mut command = in_time(command)?;
    run(site, &mut command);
    Ok(command)
}

/// How a connection to the Service fails for a process in a cgroup.
fn connect(site: &Site, cgroup: &Path) -> Result<String> {
    let script = format!("echo $$ > {}/cgroup.procs && exec 3<>/dev/tcp/10.96.0.10/80", cgroup.display());
    let mut command = site.world.command("bash");
    Ok(finish(command.args(["-c", &script]))?.stderr)
}

#[test]
fn a_containers_own_cgroup_is_not_taken_for_the_nodes() -> Result<()> {
    let site = Site::new("private-cgroups")?;
    let mounted = site.world.directory().join("cgroup");
    let mut command = agent_in_time(&site, &mounted)?;
    finish(&mut command)?.expect_error(&[&mounted.to_string_lossy(), "private cgroup namespace", "hostPath", "--cgroup"])?;
    assert!(Link::to(&site.world.cgroup(Group::Clients))?.is_empty(), "programs are attached");
    assert!(!site.world.bpffs().exists(), "something is pinned");
    Ok(())
}

/// As in kind: the node's systemd and kubelet are in the namespace, or somebody says that it is meant.
#[test]
fn a_node_in_a_container_is_served() -> Result<()> {
    let site = Site::new("node-in-container")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let mounted = site.world.directory().join("cgroup");
    let clients = site.world.cgroup(Group::Clients);
    for (below, arguments) in [(None, vec!["--cgroup".into(), mounted.clone()]), (Some("kubelet.slice"), Vec::<PathBuf>::new())]
    {
        if let Some(below) = below {
            fs::create_dir(clients.join(below))?;
        }
        let mut command = container(&site, &mounted)?;
        command.arg(binary()?);
        run(&site, &mut command);
        let mut agent = Agent::start(command.args(arguments))?;
        agent.await_log("synced: ")?;
        assert_eq!(Link::to(&clients)?.len(), ALL);
        assert!(connect(&site, &clients)?.contains(SERVED));
        agent.stop(Signal::SIGTERM)?;
        site.ask(&["cleanup"])?.expect(0)?;
    }
    // The depth of a cgroup counts from the machine's root, which cannot be seen from here.
    let mut command = agent_in_time(&site, &mounted)?;
    command.arg("--exclude-cgroup").arg(mounted.join("kubelet.slice"));
    finish(&mut command)?.expect_error(&["exclude", "not the root of the node's cgroups"])
}

/// The node's hierarchy is mounted beside the container's own. No agent gets as far as to attach: it could pin nothing.
#[test]
fn the_nodes_cgroups_are_found_beside_a_containers_own() -> Result<()> {
    const BESIDE: &str = r#"mount -t cgroup2 none "$1" && [ "$(stat -c %i "$1")" != 1 ] || exit 99
        machine=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts)
        mount --bind "$machine" "$2" && umount --lazy "$machine" || exit 99
        shift 2; exec "$@""#;
    let site = Site::new("beside")?;
    let [own, machine] = ["own", "machine"].map(|name| site.world.directory().join(name));
    fs::create_dir(&own)?;
    fs::create_dir(&machine)?;
    let mut command = site.world.command_in(Group::Clients, "unshare");
    command.args(["--mount", "--cgroup", "sh", "-c", BESIDE, "sh"]).args([&own, &machine]).arg("timeout");
    let mut command = in_time(command)?;
    command.arg("run").arg("--manifests").arg(site.manifests()).arg("--bpffs").arg(site.world.directory());
    finish(&mut command)?.expect_error(&["not on a BPF file system"])
}

/// Whether all programs are. A list that is read while links come and go may fail.
fn is_attached(cgroup: &Path) -> bool {
    Link::to(cgroup).is_ok_and(|links| links.len() == ALL)
}

#[test]
fn a_cgroup_that_is_made_again_is_attached_again() -> Result<()> {
    let site = Site::new("made-again")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let cgroup = site.world.cgroup(Group::Clients).join("again");
    fs::create_dir(&cgroup)?;
    let mut command = site.world.command(binary()?);
    run(&site, &mut command);
    let mut agent = Agent::start(command.arg("--cgroup").arg(&cgroup))?;
    agent.await_log("synced: ")?;
    for round in 0..2 {
        assert!(connect(&site, &cgroup)?.contains(SERVED));
        // The process of before has ended, and may not have left yet.
        eventually("the cgroup is removed", || Ok(fs::remove_dir(&cgroup).is_ok()))?;
        if round == 0 {
            // Within seconds it is not said again.
            agent.await_log("failed to keep the programs attached")?;
        }
        let is_bad = |line: &str| line.starts_with("programs") && line.contains("NOT OK");
        eventually("status says so", || Ok(site.ask(&["status"])?.stdout.lines().any(is_bad)))?;
        site.ask(&["status"])?.expect(1)?;
        fs::create_dir(&cgroup)?;
        let began = Instant::now();
        eventually("the programs are attached again", || Ok(is_attached(&cgroup)))?;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(Link::to(&cgroup)?.len(), ALL);
        site.ask(&["status"])?.expect(0)?;
    }
    // At once, so that the agent never sees it gone.
    eventually("the cgroup is removed", || Ok(fs::remove_dir(&cgroup).is_ok()))?;
    fs::create_dir(&cgroup)?;
    eventually("the programs are attached again", || Ok(is_attached(&cgroup)))?;
    assert!(connect(&site, &cgroup)?.contains(SERVED));
    let (status, said) = agent.stop(Signal::SIGTERM)?;
    let trouble: Vec<&str> = said.lines().filter(|line| line.contains("failed to keep the programs attached")).collect();
    assert!(status.success() && said.contains("removed and made again"), "{said}");
    assert!((1..=3).contains(&trouble.len()), "{said}");
    assert!(trouble.iter().all(|line| line.contains("ERROR") && line.contains(&*cgroup.to_string_lossy())), "{said}");
    Ok(())
}

#[test]
fn an_excluded_cgroup_that_is_made_again_is_excluded_again() -> Result<()> {
    let site = Site::new("excluded-again")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let clients = site.world.cgroup(Group::Clients);
    let mesh = clients.join("mesh");
    fs::create_dir(&mesh)?;
    let mut agent = Agent::start(site.run(&["--exclude-cgroup"])?.arg(&mesh).arg("--manifests").arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    assert!(connect(&site, &mesh)?.contains(LEFT_ALONE));
    eventually("the cgroup is removed", || Ok(fs::remove_dir(&mesh).is_ok()))?;
    fs::create_dir(&mesh)?;
    agent.await_log("excluded again")?;
    assert!(connect(&site, &mesh)?.contains(LEFT_ALONE));
    assert!(connect(&site, &clients)?.contains(SERVED));
    site.ask(&["status"])?.expect(0).context("all are attached").map(drop)
}
