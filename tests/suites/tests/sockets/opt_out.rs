//! Services and clients that are not translated: Services of other proxies, pods with `--only-host`, and processes of excluded
//! cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context as _, Result};
use portmap_harness::kernel::Features;
use portmap_harness::process::{Met, Process};
use portmap_harness::say;
use portmap_harness::world::{Group, World, program};
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, left_alone, refused, who};
use serde_json::json;

const LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The result of each address family and transport at Service 1.
fn met(process: &Process) -> Vec<Met<String>> {
    let ways = Via::ALL.iter().flat_map(|via| Transport::ALL.map(|transport| (*via, transport)));
    ways.map(|(via, transport)| who(process, transport, cluster_ip(1).at(via, PORT))).collect()
}

fn translated() -> Vec<Met<String>> {
    Via::ALL.iter().flat_map(|_| Transport::ALL.map(|transport| Ok(answer("a", transport)))).collect()
}

fn untouched() -> Vec<Met<String>> {
    translated().iter().map(|_| left_alone()).collect()
}

/// portmap does not translate the ClusterIP of another proxy's Service. It neither drops the address as unallocated nor refuses
/// undefined ports.
#[test]
fn the_service_of_another_proxy_is_left_alone() -> Result<()> {
    let mut stage = Stage::new("other-proxy", &["a"], &["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"])?;
    let web = Service::new("web", 1).endpoints(endpoints(&stage.pods));
    let labelled = web.clone().labels(json!({LABEL: "other"}));
    let process = stage.process()?;
    for _ in 0..2 {
        stage.apply(slice::from_ref(&labelled))?;
        assert_eq!(met(&process), untouched());
        assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, 81)), left_alone(), "an undefined port");
        assert_eq!(who(&process, Transport::Tcp, cluster_ip(2).at(Via::V4, PORT)), dropped(), "an address without a Service");
        // Without the label portmap serves the Service. The loop adds and removes the label twice.
        stage.apply(slice::from_ref(&web))?;
        assert_eq!(met(&process), translated());
        assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, 81)), refused(Transport::Tcp), "an undefined port");
    }
    Ok(())
}

#[test]
fn a_service_proxy_name_selects_services() -> Result<()> {
    let arguments = ["--service-proxy-name", "mine", "--service-cidr", "10.96.0.0/24", "--service-cidr", "fd00:10:96::/112"];
    let mut stage = Stage::new("named-proxy", &["a"], &arguments)?;
    stage.mark_labels = json!({LABEL: "mine"});
    let web = Service::new("web", 1).endpoints(endpoints(&stage.pods));
    let process = stage.process()?;
    for (labels, expected) in [
        (json!({LABEL: "mine"}), translated()),
        (json!({}), untouched()),
        (json!({LABEL: "other"}), untouched()),
        (json!({LABEL: "mine"}), translated()),
    ] {
        stage.apply(&[web.clone().labels(labels.clone())])?;
        assert_eq!(met(&process), expected, "{labels}");
    }
    Ok(())
}

#[test]
fn only_host_translates_only_the_hosts_processes() -> Result<()> {
    if !Features::here().tells_namespaces {
        say::skipped("--only-host", "before 5.14 only the kernel's initial network namespace is known as the host's");
        return Ok(());
    }
    let mut stage = Stage::new("only-host", &["a"], &["--only-host"])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    assert_eq!(met(&Process::on_node(&stage.world)?), translated());
    assert_eq!(met(&stage.process()?), untouched());
    Ok(())
}

/// Starts a process in this cgroup, which is created if it is missing.
fn process_in(stage: &Stage, cgroup: &Path) -> Result<Process> {
    const STEPS: &str = r#"echo 0 > "$1/cgroup.procs" && shift && exec "$@""#;
    fs::create_dir_all(cgroup).with_context(|| format!("failed to create the cgroup {}", cgroup.display()))?;
    let mut command = stage.client.command("sh");
    command.args(["-c", STEPS, "sh"]).arg(cgroup).arg(program::find("portmap-pod")?);
    Process::start(command)
}

fn below(world: &World, path: &str) -> PathBuf {
    world.cgroup(Group::Clients).join(path)
}

#[test]
fn excluded_cgroups_are_left_alone() -> Result<()> {
    let world = World::new("excluded")?;
    let [mesh, vm] = ["mesh", "machines/vm"].map(|path| below(&world, path));
    for cgroup in [&mesh, &vm] {
        fs::create_dir_all(cgroup)?;
    }
    let arguments = ["--exclude-cgroup", &mesh.to_string_lossy(), "--exclude-cgroup", &vm.to_string_lossy()].map(str::to_owned);
    let mut stage = Stage::in_world(world, &["a"], &arguments.each_ref().map(String::as_str), Vec::new())?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    for (path, expected) in [
        ("mesh", untouched()),
        ("mesh/sidecar/deep", untouched()),
        ("machines/vm", untouched()),
        ("machines", translated()),
        ("machines/vm-2", translated()),
        ("mesh-2/mesh", translated()),
    ] {
        let process = process_in(&stage, &below(&stage.world, path))?;
        assert_eq!(met(&process), expected, "{path}");
        // A process of an excluded cgroup is not refused at a Service without endpoints either.
        let empty = if expected == untouched() { left_alone() } else { refused(Transport::UdpUnconnected) };
        assert_eq!(who(&process, Transport::UdpUnconnected, cluster_ip(2).at(Via::V6, PORT)), empty, "{path}");
    }
    assert_eq!(met(&stage.process()?), translated());
    Ok(())
}
