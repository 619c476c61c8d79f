//! The cgroup that programs are attached to: detection of the node's cgroup, and a cgroup that is removed and created again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::links::Link;
use portmap_harness::world::Group;
use portmap_suites::command::{PATIENCE, binary, finish, in_time};

use crate::site::{Agent, Site, service};

/// Number of programs that the agent attaches to a cgroup.
const ALL: usize = 8;

/// Error of a connection to a Service without endpoints, from a cgroup that the agent serves. [`LEFT_ALONE`] is the error in
/// excluded and other cgroups.
const SERVED: &str = "Connection refused";
const LEFT_ALONE: &str = "Network is unreachable";

/// Mounts the root of the shell's cgroup namespace at `$1`. First unmounts all other cgroup v2 hierarchies, so that an agent
/// cannot attach to the machine's.
const CONTAINER: &str = r#"while dir=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts) && [ -n "$dir" ]; do
        umount --lazy "$dir" || exit 99
    done
    mount -t cgroup2 none "$1" && [ "$(stat -c %i "$1")" != 1 ] || exit 99
    shift; exec "$@""#;

/// A command in a private mount and cgroup namespace, as container runtimes make them. The root of the cgroup namespace is the
/// cgroup of the world's clients. The caller appends a program and its arguments.
fn container(site: &Site, mounted: &Path) -> Result<Command> {
    fs::create_dir_all(mounted)?;
    let mut command = site.world.command_in(Group::Clients, "unshare");
    command.args(["--mount", "--cgroup", "sh", "-c", CONTAINER, "sh"]).arg(mounted);
    Ok(command)
}

/// Adds the arguments of `portmap run`, without `--cgroup`.
fn run(site: &Site, command: &mut Command) {
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--manifests"]).arg(site.manifests());
    command.arg("--bpffs").arg(site.world.bpffs());
}

/// Polls until the condition is true. Fails after [`PATIENCE`], or if the check fails.
fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A command for an agent in a container, run by `timeout`. The agent ends by itself, or is killed after the time limit.
fn agent_in_time(site: &Site, mounted: &Path) -> Result<Command> {
    let mut command = container(site, mounted)?;
    command.arg("timeout");
    let mut command = in_time(command)?;
    run(site, &mut command);
    Ok(command)
}

/// Standard error of a connection to the Service, from a process in the given cgroup.
fn connect(site: &Site, cgroup: &Path) -> Result<String> {
    let script = format!("echo $$ > {}/cgroup.procs && exec 3<>/dev/tcp/10.96.0.10/80", cgroup.display());
    let mut command = site.world.command("bash");
    Ok(finish(command.args(["-c", &script]))?.stderr)
}

#[test]
fn a_containers_private_cgroup_is_refused() -> Result<()> {
    let site = Site::new("private-cgroups")?;
    let mounted = site.world.directory().join("cgroup");
    let mut command = agent_in_time(&site, &mounted)?;
    finish(&mut command)?.expect_error(&[&mounted.to_string_lossy(), "private cgroup namespace", "hostPath", "--cgroup"])?;
    assert!(Link::to(&site.world.cgroup(Group::Clients))?.is_empty(), "programs are attached");
    assert!(!site.world.bpffs().exists(), "something is pinned");
    Ok(())
}

/// A private cgroup namespace is accepted if `--cgroup` names its root, or if it contains the cgroup of a kubelet, as with
/// kind.
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
    // The depth of a cgroup counts from the machine's root, which is invisible in a cgroup namespace.
    let mut command = agent_in_time(&site, &mounted)?;
    command.arg("--exclude-cgroup").arg(mounted.join("kubelet.slice"));
    finish(&mut command)?.expect_error(&["exclude", "not the root of the node's cgroups"])
}

/// The node's cgroups are mounted beside the container's private ones, and are accepted. Then the agent fails, because it
/// cannot pin here.
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

/// Whether all programs are attached. False if the links cannot be listed, as while links appear and disappear.
fn is_attached(cgroup: &Path) -> bool {
    Link::to(cgroup).is_ok_and(|links| links.len() == ALL)
}

#[test]
fn a_recreated_cgroup_is_attached_again() -> Result<()> {
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
        // The process of the last connection may still be in the cgroup.
        eventually("the cgroup is removed", || Ok(fs::remove_dir(&cgroup).is_ok()))?;
        if round == 0 {
            // The agent logs the error at most once in some seconds.
            agent.await_log("failed to keep the programs attached")?;
        }
        let is_bad = |line: &str| line.starts_with("programs") && line.contains("NOT OK");
        eventually("status reports the programs", || Ok(site.ask(&["status"])?.stdout.lines().any(is_bad)))?;
        site.ask(&["status"])?.expect(1)?;
        fs::create_dir(&cgroup)?;
        let began = Instant::now();
        eventually("the programs are attached again", || Ok(is_attached(&cgroup)))?;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(Link::to(&cgroup)?.len(), ALL);
        site.ask(&["status"])?.expect(0)?;
    }
    // The cgroup is created again at once, so that the agent probably does not see it missing.
    eventually("the cgroup is removed", || Ok(fs::remove_dir(&cgroup).is_ok()))?;
    fs::create_dir(&cgroup)?;
    eventually("the programs are attached again", || Ok(is_attached(&cgroup)))?;
    assert!(connect(&site, &cgroup)?.contains(SERVED));
    let (status, log) = agent.stop(Signal::SIGTERM)?;
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("failed to keep the programs attached")).collect();
    assert!(status.success() && log.contains("removed and created again"), "{log}");
    assert!((1..=3).contains(&errors.len()), "{log}");
    assert!(errors.iter().all(|line| line.contains("ERROR") && line.contains(&*cgroup.to_string_lossy())), "{log}");
    Ok(())
}

#[test]
fn a_recreated_excluded_cgroup_is_excluded_again() -> Result<()> {
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
    site.ask(&["status"])?.expect(0).context("all programs are attached").map(drop)
}
