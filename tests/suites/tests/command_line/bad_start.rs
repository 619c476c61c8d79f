//! `portmap run` that fails at start, and subcommands without pins: one line names the cause, and the kernel is unchanged.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::world::Group;
use portmap_suites::command::{as_nobody, binary, finish, in_time, portmap, public_copy};

use crate::site::{Site, service};

/// Expects no attached program and no pin, after a failed start.
fn nothing_is_left(site: &Site) -> Result<()> {
    site.ask(&["status"])?.expect_error(&["nothing is pinned", &site.world.bpffs().to_string_lossy(), "portmap run"])?;
    let shown = finish(Command::new("bpftool").args(["cgroup", "show"]).arg(site.world.cgroup(Group::Clients)))?.expect(0)?;
    ensure!(!shown.stdout.contains("connect"), "programs are attached: {shown:#?}");
    Ok(())
}

#[test]
fn subcommands_without_pins_end_with_3() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for path in [directory.path(), &directory.path().join("missing")] {
        let path = path.to_string_lossy();
        for subcommand in ["services", "status", "flows", "verify"] {
            portmap(&[subcommand, "--bpffs", &path])?.expect_error(&["nothing is pinned", &path, "portmap run"])?;
        }
    }
    let missing = directory.path().join("missing");
    let outcome = portmap(&["cleanup", "--bpffs", &missing.to_string_lossy()])?.expect(0)?;
    assert!(outcome.stdout.contains("nothing is pinned") && outcome.stderr.is_empty(), "{outcome:#?}");
    Ok(())
}

#[test]
fn missing_manifests_are_named() -> Result<()> {
    let site = Site::new("no-manifests")?;
    let missing = site.manifests().join("missing");
    let missing = missing.to_string_lossy();
    site.run_in_time(&["--manifests", &missing])?.expect_error(&[&missing, "No such file or directory"])?;
    nothing_is_left(&site)
}

#[test]
fn a_missing_kubeconfig_is_named() -> Result<()> {
    let site = Site::new("no-kubeconfig")?;
    let missing = site.manifests().join("kubeconfig");
    let missing = missing.to_string_lossy();
    site.run_in_time(&["--kubeconfig", &missing])?.expect_error(&[&missing, "No such file or directory"])?;
    nothing_is_left(&site)
}

#[test]
fn without_a_cluster_both_sources_are_named() -> Result<()> {
    let site = Site::new("no-cluster")?;
    let command = in_time(site.world.command("timeout"))?;
    let mut command = site.complete(command, &[]);
    command.env("HOME", site.manifests()).env_remove("KUBERNETES_SERVICE_HOST");
    finish(&mut command)?.expect_error(&["found no cluster", "--kubeconfig", "--manifests"])?;
    nothing_is_left(&site)
}

#[test]
fn a_cgroup_must_be_of_version_2() -> Result<()> {
    let site = Site::new("cgroup")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let manifests = site.manifests();
    let run = |cgroup: &str| {
        let mut command = in_time(site.world.command("timeout"))?;
        command.arg("run").arg("--manifests").arg(&manifests).arg("--bpffs").arg(site.world.bpffs());
        finish(command.args(["--cgroup", cgroup]))
    };
    let directory = site.world.directory().to_string_lossy();
    run(&directory)?.expect_error(&[&directory, "not a cgroup v2 directory", "--cgroup"])?;
    let missing = site.world.cgroup(Group::Clients).join("missing");
    run(&missing.to_string_lossy())?.expect_error(&[&missing.to_string_lossy(), "No such file or directory"])?;
    nothing_is_left(&site)
}

/// The command runs in a mount namespace without any cgroup v2. With one, the agent would attach to the machine's cgroup: the
/// shell checks that none is left.
#[test]
fn without_cgroup_v2_the_remedy_is_named() -> Result<()> {
    const UNMOUNT: &str = r#"while dir=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts) && [ -n "$dir" ]; do
            umount --lazy "$dir" || exit 99
        done
        grep -q ' cgroup2 ' /proc/self/mounts && exit 99
        exec "$@""#;
    let site = Site::new("no-cgroup")?;
    let mut command = site.world.command("unshare");
    command.args(["--mount", "sh", "-c", UNMOUNT, "sh"]).arg("timeout").args(["--signal=KILL", "30"]).arg(binary()?);
    // The agent could not pin anything either, because `--bpffs` is not on a BPF file system.
    command.arg("run").arg("--manifests").arg(site.manifests()).arg("--bpffs").arg(site.world.directory());
    finish(&mut command)?.expect_error(&["no cgroup v2", "mount -t cgroup2", "--cgroup"])?;
    nothing_is_left(&site)
}

#[test]
fn pins_must_be_on_a_bpf_file_system() -> Result<()> {
    let site = Site::new("bpffs")?;
    let elsewhere = tempfile::tempdir()?;
    let path = elsewhere.path().to_string_lossy();
    let mut command = in_time(site.world.command("timeout"))?;
    command.arg("run").arg("--manifests").arg(site.manifests()).args(["--bpffs", &path]);
    command.arg("--cgroup").arg(site.world.cgroup(Group::Clients));
    finish(&mut command)?.expect_error(&[&path, "not on a BPF file system", "--bpffs"])?;
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0, "something was left in {path}");
    nothing_is_left(&site)
}

#[test]
fn without_privileges_root_is_named() -> Result<()> {
    let site = Site::new("nobody")?;
    let (_copy, copy) = public_copy()?;
    let web = copy.with_file_name("web.yaml");
    fs::write(&web, service("web", "10.96.0.10"))?;
    let mut command = site.complete(as_nobody(site.world.command("setpriv"), &copy), &["--manifests", &web.to_string_lossy()]);
    finish(&mut command)?.expect_error(&["CAP_BPF", "root"])?;
    nothing_is_left(&site)?;
    let _agent = site.start()?;
    for subcommand in ["services", "status", "flows", "verify", "cleanup"] {
        let mut command = as_nobody(Command::new("setpriv"), &copy);
        finish(command.arg(subcommand).arg("--bpffs").arg(site.world.bpffs()))?.expect_error(&["root", "Permission denied"])?;
    }
    Ok(())
}

/// The agent runs as root without `CAP_BPF` and `CAP_SYS_ADMIN`.
#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let site = Site::new("no-caps")?;
    let manifests = site.manifests();
    let mut command = site.world.command("setpriv");
    command.arg("--bounding-set=-sys_admin,-bpf").arg(binary()?);
    let mut command = site.complete(command, &["--manifests", &manifests.to_string_lossy()]);
    finish(&mut command)?.expect_error(&["CAP_NET_ADMIN", "lacks CAP_BPF"])?;
    nothing_is_left(&site)
}

#[test]
fn a_second_agent_names_the_first() -> Result<()> {
    let site = Site::new("second")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    let first = site.start()?;
    let manifests = site.manifests();
    let second = site.run_in_time(&["--manifests", &manifests.to_string_lossy()])?;
    second.expect_error(&[&format!("process {}", first.pid()), &site.world.bpffs().to_string_lossy()])?;
    // The first agent continues: it applies changes.
    site.write("dns.yaml", &service("dns", "10.96.0.53"))?;
    site.await_services(&[("10.96.0.10", "web"), ("10.96.0.53", "dns")])?;
    let client = site.world.client("client")?;
    let answers = client.connect("10.96.0.53:80".parse()?, Protocol::Tcp, 1)?;
    assert_eq!(answers.errors, [("ECONNREFUSED".to_owned(), 1)].into());
    Ok(())
}
