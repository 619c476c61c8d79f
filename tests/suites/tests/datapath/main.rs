//! Basic translation: connections of processes on the real kernel, with an agent that reads manifests.
//!
//! Needs: root and BPF.
#![expect(clippy::unwrap_used, reason = "a test reports an error by a panic")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use nix::sys::signal::Signal;
use portmap::{datapath::attach::PROGRAMS, maps::pin::Pins};
use portmap_harness::{
    agent::Agent,
    kernel::Features,
    links::Link,
    listen::{Listen, Protocol},
    pod_client::Answers,
    world::{Group, Pod, World},
};

const SERVICE_V4: &str = "10.96.0.10";
const SERVICE_V6: &str = "fd00:10:96::10";

/// Three pods behind one Service of both families: TCP 80 → 8080, and TCP and UDP 53 → 5353.
struct Stage {
    world: World,
    client: Pod,
    pods: Vec<Pod>,
    agent: Agent,
}

impl Stage {
    fn new(name: &str) -> Self {
        let world = World::new(name).unwrap();
        let pods: Vec<Pod> = ["a", "b", "c"]
            .map(|name| {
                let mut pod = world.pod(name).unwrap();
                pod.serve(&[Listen::tcp(8080), Listen::tcp(5353), Listen::udp(5353)]).unwrap();
                pod
            })
            .into();
        let client = world.client("client").unwrap();
        Agent::write(&world, "web.yaml", &manifest(&pods)).unwrap();
        let agent = Agent::start(&world, &[]).unwrap();
        Self { world, client, pods, agent }
    }

    fn connect(&self, address: &str, protocol: Protocol, count: u32) -> Answers {
        self.client.connect(address.parse().unwrap(), protocol, count).unwrap()
    }
}

fn manifest(pods: &[Pod]) -> String {
    let slice = |family: &str, addresses: Vec<IpAddr>| {
        let endpoints: Vec<String> = addresses.iter().map(|address| format!("  - addresses: ['{address}']\n")).collect();
        let endpoints =
            if endpoints.is_empty() { "endpoints: []\n".to_owned() } else { format!("endpoints:\n{}", endpoints.concat()) };
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-{}, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\n\
             ports:\n  - {{name: http, port: 8080}}\n  - {{name: dns-tcp, port: 5353}}\n  - {{name: dns, port: 5353, protocol: UDP}}\n{endpoints}",
            family.to_lowercase()
        )
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: {SERVICE_V4}\n  \
         clusterIPs: ['{SERVICE_V4}', '{SERVICE_V6}']\n  ipFamilies: [IPv4, IPv6]\n  ports:\n  - {{name: http, port: 80}}\n  \
         - {{name: dns-tcp, port: 53}}\n  - {{name: dns, port: 53, protocol: UDP}}\n{}{}",
        slice("IPv4", pods.iter().map(|pod| pod.ipv4().into()).collect()),
        slice("IPv6", pods.iter().map(|pod| pod.ipv6().into()).collect()),
    )
}

fn replies(answers: &[(&str, u32)]) -> BTreeMap<String, u32> {
    answers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_connection_lands_on_the_target_port_and_spreads_evenly() {
    let stage = Stage::new("forward");
    for (address, protocol, port) in [
        (format!("{SERVICE_V4}:80"), Protocol::Tcp, "8080/TCP"),
        (format!("{SERVICE_V4}:53"), Protocol::Tcp, "5353/TCP"),
        (format!("{SERVICE_V4}:53"), Protocol::Udp, "5353/UDP"),
        (format!("[{SERVICE_V6}]:80"), Protocol::Tcp, "8080/TCP"),
        (format!("[{SERVICE_V6}]:53"), Protocol::Udp, "5353/UDP"),
        (format!("[::ffff:{SERVICE_V4}]:80"), Protocol::Tcp, "8080/TCP"),
    ] {
        let answers = stage.connect(&address, protocol, 600);
        assert!(answers.errors.is_empty(), "{address} {protocol}: {answers}");
        let expected: Vec<String> = ["a", "b", "c"].iter().map(|pod| format!("{pod} {port}")).collect();
        assert_eq!(answers.replies.keys().cloned().collect::<Vec<_>>(), expected, "{address} {protocol}");
        assert_uniform(&answers.replies.values().copied().collect::<Vec<_>>());
    }
}

/// Pearson's chi-square test with two degrees of freedom. A value of 27.6 or more has a probability of one in a million.
fn assert_uniform(counts: &[u32]) {
    assert_eq!(counts.len(), 3);
    let expected = f64::from(counts.iter().sum::<u32>()) / 3.0;
    let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    assert!(chi_square < 27.6, "{counts:?}: chi-square {chi_square}");
}

#[test]
fn without_an_endpoint_the_connection_is_refused() {
    let mut stage = Stage::new("refuse");
    Agent::write(&stage.world, "web.yaml", &manifest(&[])).unwrap();
    stage.agent.await_backends(&format!("{SERVICE_V4}:80/TCP"), &[]).unwrap();
    for (address, protocol) in [
        (format!("{SERVICE_V4}:80"), Protocol::Tcp),
        (format!("{SERVICE_V4}:53"), Protocol::Udp),
        (format!("[{SERVICE_V6}]:80"), Protocol::Tcp),
    ] {
        let answers = stage.connect(&address, protocol, 3);
        let refused = match protocol {
            Protocol::Tcp => "ECONNREFUSED",
            Protocol::Udp => Features::here().chosen("ECONNREFUSED"),
        };
        assert_eq!(answers.errors, replies(&[(refused, 3)]), "{address} {protocol}");
    }
}

#[test]
fn other_addresses_are_left_alone() {
    let stage = Stage::new("leave");
    let pod = SocketAddr::new(stage.pods[0].ipv4().into(), 8080).to_string();
    assert_eq!(stage.connect(&pod, Protocol::Tcp, 3).replies, replies(&[("a 8080/TCP", 3)]));
    let unused = stage.connect("10.96.0.11:80", Protocol::Tcp, 1);
    assert_eq!(unused.errors, replies(&[("ENETUNREACH", 1)]), "an address without a Service must be left alone");
}

#[test]
fn only_processes_of_the_cgroup_are_served() {
    let stage = Stage::new("cgroup");
    let pod = portmap_harness::world::program::find("portmap-pod").unwrap();
    let output =
        stage.client.command_in(Group::Clean, pod).args(["connect", "--json", &format!("{SERVICE_V4}:80")]).output().unwrap();
    let answers: Answers = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.errors, replies(&[("ENETUNREACH", 1)]));
}

#[test]
fn a_change_of_the_file_affects_the_next_connection() {
    let mut stage = Stage::new("change");
    Agent::write(&stage.world, "web.yaml", &manifest(&stage.pods[1..2])).unwrap();
    let backend = format!("{}:8080", stage.pods[1].ipv4());
    stage.agent.await_backends(&format!("{SERVICE_V4}:80/TCP"), &[&backend]).unwrap();
    let answers = stage.connect(&format!("{SERVICE_V4}:80"), Protocol::Tcp, 20);
    assert_eq!(answers.replies, replies(&[("b 8080/TCP", 20)]));
}

#[test]
fn the_next_agent_writes_nothing_if_nothing_changed() {
    let stage = Stage::new("outlive");
    let Stage { world, client, pods: _pods, agent } = stage;
    agent.end(Signal::SIGKILL).unwrap();
    let address: SocketAddr = format!("{SERVICE_V4}:80").parse().unwrap();
    let answers = client.connect(address, Protocol::Tcp, 30).unwrap();
    assert!(answers.errors.is_empty() && answers.replies.len() == 3, "{answers}");
    let mut next = Agent::start(&world, &["-v"]).unwrap();
    next.wait_until("it is synced", |agent| Ok(agent.log().matches("synced:").count() == 2)).unwrap();
    let log = next.log();
    let second = log.rsplit_once("took over").expect("it takes over").1;
    assert!(!second.contains("writes in"), "nothing changed, but the agent wrote:\n{second}");
    let answers = client.connect(address, Protocol::Tcp, 30).unwrap();
    assert!(answers.errors.is_empty() && answers.replies.len() == 3, "{answers}");
}

#[test]
fn bpftool_shows_named_fields() {
    let stage = Stage::new("bpftool");
    let pinned = Pins::new(stage.world.bpffs()).map("FRONTENDS_V4");
    let output = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pinned).output().unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ports: Vec<u64> =
        entries.as_array().unwrap().iter().filter_map(|entry| entry["formatted"]["key"]["port"].as_u64()).collect();
    assert_eq!(ports.iter().sum::<u64>(), 80 + 53 + 53, "{entries}");
}

#[test]
fn cleanup_detaches_and_removes_everything() {
    let Stage { world, client, pods: _pods, agent } = Stage::new("cleanup");
    let pins = world.bpffs().to_owned();
    assert_eq!(attached(&world), PROGRAMS.len());
    let refused = agent.portmap(&["cleanup"]).unwrap();
    assert_eq!(refused.status.code(), Some(3), "cleanup should refuse while an agent runs");
    assert_eq!(agent.end(Signal::SIGTERM).unwrap().code(), Some(0));
    assert_eq!(attached(&world), PROGRAMS.len(), "the programs should stay attached after the agent");
    let portmap = portmap_harness::world::program::find("portmap").unwrap();
    let output = Command::new(portmap).args(["cleanup", "--bpffs"]).arg(&pins).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!pins.exists());
    assert_eq!(attached(&world), 0);
    let answers = client.connect(format!("{SERVICE_V4}:80").parse().unwrap(), Protocol::Tcp, 1).unwrap();
    assert_eq!(answers.errors, replies(&[("ENETUNREACH", 1)]));
}

/// Number of programs that are attached to the clients' cgroup.
fn attached(world: &World) -> usize {
    Link::to(&world.cgroup(Group::Clients)).unwrap().len()
}
