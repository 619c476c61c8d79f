//! Invalid arguments and objects: each is reported in one line, and valid ones are applied.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::patience::seconds;
use portmap_harness::world::{Group, World, program};
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, who};
use serde_json::json;

/// Runs `portmap run` with these arguments, on the network and the cgroup of a world. Kills the command if it does not end by
/// itself.
fn run(world: &World, arguments: &[&str]) -> Result<Output> {
    std::fs::create_dir_all(Agent::manifests(world))?;
    let mut command = world.command("timeout");
    command.args(["--signal=KILL", &seconds(20)]).arg(program::find("portmap")?).args(["run", "--node-name", "node"]);
    command.arg("--manifests").arg(Agent::manifests(world)).arg("--cgroup").arg(world.cgroup(Group::Clients));
    command.arg("--bpffs").arg(world.bpffs()).args(arguments).output().context("failed to run portmap")
}

/// Expects one of these exit codes, an error that contains all parts, and no pins.
fn expect(world: &World, arguments: &[&str], codes: &[i32], parts: &[&str]) -> Result<()> {
    let output = run(world, arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code().is_some_and(|code| codes.contains(&code)),
        "{arguments:?} should end with {codes:?}: {output:?}"
    );
    ensure!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?} should give {parts:?}: {stderr}");
    ensure!(!stderr.contains("panicked"), "{stderr}");
    ensure!(!world.bpffs().exists() || std::fs::read_dir(world.bpffs())?.next().is_none(), "{arguments:?} left pins");
    Ok(())
}

#[test]
fn unparsable_arguments_are_wrong_usage() -> Result<()> {
    let world = World::new("usage")?;
    for (flag, values) in [
        ("--service-cidr", &["10.96.0.0/33", "10.96.0.0", "fd00::/129", "services", "10.96.0.0/16,nonsense", ""][..]),
        ("--nodeport-addresses", &["10.0.0.0/33", "secondary", "primary,", "10.244.0.1-10.244.0.9", ""]),
        ("--max-affinity-clients", &["0", "-1", "many", "99999999999"]),
        ("--datapath-log", &["loud", "trace-everything", ""]),
    ] {
        for value in values {
            expect(&world, &[&format!("{flag}={value}")], &[2], &[flag])?;
        }
    }
    Ok(())
}

/// 10.96.0.1/24 has host bits. The agent uses the network 10.96.0.0/24, as kube-apiserver does.
#[test]
fn a_cidr_with_host_bits_is_its_network() -> Result<()> {
    let mut stage = Stage::new("host-bits", &["a"], &["--service-cidr", "10.96.0.1/24"])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", Transport::Tcp)));
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(9).at(Via::V4, PORT)), dropped());
    Ok(())
}

#[test]
fn a_missing_excluded_cgroup_is_an_error() -> Result<()> {
    let world = World::new("no-exclude")?;
    let missing = world.cgroup(Group::Clients).join("missing");
    expect(&world, &["--exclude-cgroup", &missing.to_string_lossy()], &[3], &[&missing.to_string_lossy()])?;
    let plain = world.directory().to_string_lossy();
    expect(&world, &["--exclude-cgroup", &plain], &[3], &[&plain])
}

/// `--exclude-cgroup` must not name the served cgroup or a parent of it.
#[test]
fn excluding_the_served_cgroup_is_an_error() -> Result<()> {
    let world = World::new("exclude-all")?;
    let clients = world.cgroup(Group::Clients);
    for cgroup in [clients.as_path(), clients.parent().context("a group has a parent")?] {
        expect(&world, &["--exclude-cgroup", &cgroup.to_string_lossy()], &[2, 3], &["--exclude-cgroup"])?;
    }
    Ok(())
}

/// An API server does not validate files. The agent reports each invalid timeout once, and serves the Service.
#[test]
fn an_invalid_affinity_timeout_is_reported() -> Result<()> {
    let mut stage = Stage::new("bad-affinity", &["a"], &[])?;
    let sticky = |name: &str, number, seconds: i64| {
        let affinity =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        Service::new(name, number).spec(affinity).endpoints(endpoints(&stage.pods))
    };
    let services = [sticky("good", 1, 86_400), sticky("zero", 2, 0), sticky("negative", 3, -1), sticky("long", 4, 86_401)];
    stage.apply(&services)?;
    let process = stage.process()?;
    for number in [1, 2, 3, 4] {
        let address = cluster_ip(number).at(Via::V4, PORT);
        assert_eq!(who(&process, Transport::Tcp, address), Ok(answer("a", Transport::Tcp)), "{address}");
    }
    let log = stage.agent.log();
    for (name, times) in [("good", 0), ("zero", 1), ("negative", 1), ("long", 1)] {
        let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains(&format!("default/{name}")));
        let warnings: Vec<&str> = warnings.collect();
        assert_eq!(warnings.len(), times, "{name}: {log}");
        assert!(warnings.iter().all(|line| line.contains("timeoutSeconds")), "{warnings:?}");
    }
    Ok(())
}

/// An invalid external IP or source range is left out. The Service's other addresses are served.
#[test]
fn an_invalid_address_is_left_out_alone() -> Result<()> {
    let mut stage = Stage::new("bad-addresses", &["a"], &[])?;
    let spec = json!({"externalIPs": ["192.0.2", "192.0.2.1"], "loadBalancerSourceRanges": ["nonsense", "10.244.0.0/33"]});
    stage.apply(&[Service::new("web", 1).spec(spec).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    for address in ["10.96.0.1:80", "192.0.2.1:80", "[fd00:10:96::1]:80"] {
        assert_eq!(who(&process, Transport::Tcp, address.parse()?), Ok(answer("a", Transport::Tcp)), "{address}");
    }
    let log = stage.agent.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("default/web") && line.contains("192.0.2")), "{log}");
    Ok(())
}
