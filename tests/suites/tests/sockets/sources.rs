//! The source address that `loadBalancerSourceRanges` check, for clients with several addresses.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::kernel::Features;
use portmap_harness::listen::Protocol;
use portmap_harness::patience::patience;
use portmap_harness::process::Process;
use portmap_harness::say;
use portmap_harness::world::{World, program};
use portmap_suites::service_objects::{Both, PORT, Service, Via, endpoints, load_balancer_ip, node};
use portmap_suites::service_stage::{PATIENCE, Stage, Transport, answer, dropped, eventually, serving, who};

use crate::source_ranges::{POD, admit, admitted, is_recognised, kept_out, met, only, stage};

/// `ip` commands for routes to the load balancer addresses, with these source addresses (IPv4, IPv6). The verb is `add` or
/// `replace`.
fn route(verb: &str, device: &str, source: Option<[&str; 2]>) -> String {
    let [v4, v6] = source.map_or_else(Default::default, |source| source.map(|source| format!(" src {source}")));
    format!("route {verb} 198.51.100.0/24 dev {device}{v4}\nroute {verb} 2001:db8:33::/64 dev {device}{v6}\n")
}

/// The addresses of a second bridge on the node, such as that of a container runtime.
const OTHER: [&str; 2] = ["172.17.0.1", "fd00:172::1"];

fn other_bridge() -> String {
    let [v4, v6] = OTHER;
    format!("link add docker0 type bridge\naddr add {v4}/16 dev docker0\naddr add {v6}/64 dev docker0 nodad\n")
}

fn of_node(world: &World) -> Vec<String> {
    vec![format!("{}/32", world.ipv4()), format!("{}/128", world.ipv6())]
}

/// For a process on the node, source ranges check the source address that the kernel chooses. The agent notices when routes
/// change the choice.
#[test]
fn the_node_has_the_source_that_the_kernel_chooses() -> Result<()> {
    let mut stage = stage("ranges-route", &[])?;
    let process = Process::on_node(&stage.world)?;
    let own = of_node(&stage.world);
    stage.world.ip(&format!("{}{}link set docker0 up", route("add", "pods", None), other_bridge()))?;
    admit(&mut stage, &own)?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    for via in Via::ALL {
        for transport in Transport::ALL {
            let address = load_balancer_ip(1).at(via, PORT);
            assert_eq!(who(&process, transport, address), Ok(answer(POD, transport)), "{transport:?} {address}");
        }
    }
    stage.world.ip(&route("replace", "pods", Some(OTHER)))?;
    eventually("the other source is noticed", || Ok((met(&process) == kept_out()).then_some(())))?;
    let (v4, v6) = (stage.world.ipv4().to_string(), stage.world.ipv6().to_string());
    stage.world.ip(&route("replace", "pods", Some([&v4, &v6])))?;
    eventually("the first source is noticed", || Ok((met(&process) == admitted()).then_some(())))?;
    // The kernel removes the routes of a removed link without a netlink message for each route.
    stage.world.ip("link del docker0")?;
    stage.apply(&[])?;
    admit(&mut stage, &own)?;
    eventually("the source for the new load balancer is known", || Ok((met(&process) == admitted()).then_some(())))
}

/// For a process in a pod, source ranges check the source address that the kernel chooses, too.
#[test]
fn a_pod_has_the_source_that_the_kernel_chooses() -> Result<()> {
    let mut stage = stage("ranges-pod", &[])?;
    let own = only(&stage.client);
    let second = ["10.244.0.240", "fd00:10:244::f0"];
    stage.client.ip(&format!(
        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n{}",
        second[0],
        second[1],
        route("add", "eth0", Some([&stage.client.ipv4().to_string(), &stage.client.ipv6().to_string()]))
    ))?;
    admit(&mut stage, &own)?;
    let process = stage.process()?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    stage.client.ip(&route("replace", "eth0", Some(second)))?;
    eventually("the other source is noticed", || Ok((met(&process) == kept_out()).then_some(())))
}

/// kube-vip and keepalived add the load balancer address to an interface, and agents of clouds add a local route for it. The
/// node then connects from that address.
#[test]
fn an_admitted_node_may_have_the_load_balancer_address() -> Result<()> {
    let world = World::new("ranges-vip")?;
    let objects = vec![node(&[world.ipv4().into(), world.ipv6().into()])];
    let mut stage = Stage::in_world(world, &[POD], &[], objects)?;
    let process = Process::on_node(&stage.world)?;
    let (node, other) = (of_node(&stage.world), only(&stage.client));
    let Both { v4, v6 } = load_balancer_ip(1);
    let held = [
        ("as an address", format!("addr VERB {v4}/32 dev lo\naddr VERB {v6}/128 dev lo")),
        ("by a route", format!("route VERB local {v4} dev lo\nroute VERB local {v6} dev lo")),
    ];
    for (how, script) in held {
        stage.world.ip(&script.replace("VERB", "add"))?;
        admit(&mut stage, &node)?;
        if !is_recognised(&process)? {
            return Ok(());
        }
        // If the ranges do not admit the node, they do not admit its load balancer address as a source either.
        admit(&mut stage, &other)?;
        eventually(&format!("the node is kept out, with the address {how}"), || {
            Ok((met(&process) == kept_out()).then_some(()))
        })?;
        stage.world.ip(&script.replace("VERB", "del"))?;
    }
    Ok(())
}

/// The programs remember an admitted send in a note on the socket. The note must not admit a send from another source address.
#[test]
fn a_note_of_one_source_admits_no_other() -> Result<()> {
    let mut stage = stage("ranges-noted", &[])?;
    let second = Both { v4: "10.244.0.240".parse()?, v6: "fd00:10:244::f0".parse()? };
    stage.client.ip(&format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad", second.v4, second.v6))?;
    admit(&mut stage, &[format!("{}/32", second.v4), format!("{}/128", second.v6)])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let address = load_balancer_ip(1).at(via, PORT);
        let source = second.at(via, 0).ip();
        let socket = process.open_for(address, Protocol::Udp)?;
        socket.send_from(source, address)?;
        assert_eq!(socket.receive()?.text, answer(POD, Transport::UdpUnconnected), "{address} from {source}");
        assert_eq!(socket.send_to(address), dropped(), "{address} without a source");
        socket.send_from(source, address)?;
        // The note of a connection stays after `connect()` to `AF_UNSPEC`, and must not admit another source address either.
        let socket = process.open_for(address, Protocol::Udp)?;
        socket.bind(second.at(via, 0))?;
        socket.connect(address)?;
        socket.dissolve()?;
        let first = Both::of(&stage.client).at(via, 0).ip();
        assert_eq!(socket.send_from(first, address), dropped(), "{address} from {first}");
    }
    // Changed ranges apply to the next datagram.
    let address = load_balancer_ip(1).at(Via::V4, PORT);
    let socket = process.open_for(address, Protocol::Udp)?;
    socket.bind(second.at(Via::V4, 0))?;
    socket.send_to(address)?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    assert_eq!(socket.send_to(address), dropped());
    Ok(())
}

/// A process can bind its socket to an address of another host (`IP_FREEBIND`). It is not admitted, even if the ranges contain
/// that address.
#[test]
fn an_address_of_another_host_is_not_admitted() -> Result<()> {
    let mut stage = stage("ranges-foreign", &[])?;
    let other = stage.world.client("other")?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let process = stage.process()?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    admit(&mut stage, &only(&other))?;
    assert_eq!(met(&process), kept_out());
    for via in Via::ALL {
        let address = load_balancer_ip(1).at(via, PORT);
        let foreign = Both::of(&other).at(via, 0);
        let socket = process.open_for(address, Protocol::Udp)?;
        assert!(socket.send_from(foreign.ip(), address).is_err(), "{address} from {foreign}");
        assert_eq!(socket.send_to(address), dropped(), "{address} after {foreign}");
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let socket = process.open_for(address, protocol)?;
            socket.bind_freely()?;
            socket.bind(foreign)?;
            assert_eq!(socket.connect(address), dropped(), "{protocol} {address} from {foreign}");
        }
        let socket = process.open_for(address, Protocol::Udp)?;
        socket.bind_freely()?;
        socket.bind(foreign)?;
        assert_eq!(socket.send_to(address), dropped(), "{address} from {foreign}");
    }
    Ok(())
}

/// The agent searches for unknown network namespaces. A call of a known client that the ranges exclude causes no search.
#[test]
fn a_known_client_outside_the_ranges_causes_no_search() -> Result<()> {
    let world = World::new("ranges-denied")?;
    let mut stage = Stage::in_world(world, &[POD], &["-v"], Vec::new())?;
    let (process, own) = (stage.process()?, only(&stage.client));
    admit(&mut stage, &own)?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    admit(&mut stage, &["203.0.113.0/24".into(), "2001:db8:113::/48".into()])?;
    assert_eq!(met(&process), kept_out());
    let looks = |stage: &Stage| stage.agent.log().matches("surveying network namespaces").count();
    let (before, begin) = (looks(&stage), Instant::now());
    // If the calls caused searches, there would be two in a second.
    while begin.elapsed() < Duration::from_secs(4) {
        assert_eq!(met(&process), kept_out());
    }
    let (count, periods) = (looks(&stage) - before, begin.elapsed().as_secs() / 5);
    ensure!(count as u64 <= periods + 2, "{count} looks in {:?}", begin.elapsed());
    Ok(())
}

/// Network namespaces with names. Dropping this removes them.
struct Spare {
    names: Vec<String>,
}

impl Spare {
    fn new(world: &World, count: usize) -> Result<Self> {
        let name = world.namespace().file_name().and_then(|name| name.to_str()).context("a namespace has a name")?;
        let names: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
        let spare = Self { names };
        spare.ip("add")?;
        Ok(spare)
    }

    fn ip(&self, verb: &str) -> Result<()> {
        let script = self.names.iter().map(|name| format!("netns {verb} {name}")).collect::<Vec<_>>().join("\n");
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), script)?;
        let status = Command::new("ip").arg("-batch").arg(file.path()).stdin(Stdio::null()).status();
        ensure!(status.context("failed to run ip")?.success(), "ip netns {verb} failed");
        Ok(())
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Err(error) = self.ip("delete") {
            eprintln!("warning: {error:#}");
        }
    }
}

/// The agent may open 120 file descriptors, and finds more than 150 network namespaces. So it must not keep them all open.
#[test]
fn the_agent_handles_more_namespaces_than_descriptors() -> Result<()> {
    const FILES: u32 = 120;
    let world = World::new("ranges-files")?;
    let spare = Spare::new(&world, 150)?;
    let pods = vec![serving(&world, POD)?];
    let client = world.client("client")?;
    let ranges = serde_json::json!({"loadBalancerSourceRanges": only(&client)});
    let service = Service::new("web", 1).exposed(1).spec(ranges).endpoints(endpoints(&pods));
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": service.objects()});
    Agent::write(&world, "objects.json", &list.to_string())?;
    let mut agent = Agent::spawn_limited(&world, &format!("{FILES}:{FILES}"), &[])?;
    agent.wait_until("the agent is synced", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
    let process = Process::in_pod(&client)?;
    if is_recognised(&process)? {
        // A pod that is created later is found too.
        let late = world.client("late")?;
        let addresses: Vec<IpAddr> = vec![late.ipv4().into(), late.ipv6().into()];
        let ranges = addresses.iter().map(|address| ipnet::IpNet::from(*address).to_string()).collect::<Vec<_>>();
        let ranges = serde_json::json!({"loadBalancerSourceRanges": ranges});
        let service = Service::new("web", 1).exposed(1).spec(ranges).endpoints(endpoints(&pods));
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": service.objects()});
        Agent::write(&world, "objects.json", &list.to_string())?;
        is_recognised(&Process::in_pod(&late)?)?;
    }
    assert!(!agent.log().contains("Too many open files"), "{}", agent.log());
    drop(spare);
    Ok(())
}

/// A process in a new network namespace, with one further address of each family on the loopback interface. It has no routes to
/// other hosts.
fn elsewhere(stage: &Stage) -> Result<Process> {
    let mut command = stage.client.command("unshare");
    let script =
        "ip link set lo up && ip addr add 10.9.9.9/32 dev lo && ip addr add fd00:9::9/128 dev lo && exec \"$0\" \"$@\"";
    command.args(["--net", "sh", "-c", script]).arg(program::find("portmap-pod")?);
    let process = Process::start(command)?;
    // A successful call shows that the process has started in its new namespace.
    drop(process.open_for(load_balancer_ip(1).at(Via::V4, PORT), Protocol::Tcp)?);
    Ok(process)
}

/// The agent logs that it cannot open network namespaces, and logs the end of the problem. A known client stays admitted.
#[test]
fn namespaces_without_a_descriptor_are_reported() -> Result<()> {
    if !Features::here().tells_namespaces {
        say::skipped("source ranges by network namespace", "SO_NETNS_COOKIE exists from 5.14 on");
        return Ok(());
    }
    let mut stage = stage("ranges-emfile", &[])?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let process = stage.process()?;
    is_recognised(&process)?;
    let limit = |files: u32| -> Result<()> {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &stage.agent.id().to_string(), &format!("--nofile={files}:4096")]);
        ensure!(command.status().context("failed to run prlimit")?.success(), "{command:?} failed");
        Ok(())
    };
    // The agent cannot open a descriptor any more.
    limit(0)?;
    let late_process = elsewhere(&stage)?;
    eventually("the agent reports the namespaces", || {
        assert_eq!(met(&late_process), kept_out());
        Ok(stage.agent.log().contains("network namespaces are left out").then_some(()))
    })?;
    assert_eq!(met(&process), admitted(), "a known client stays admitted");
    limit(1024)?;
    let until = Instant::now() + patience(PATIENCE);
    while !stage.agent.log().contains("no network namespace is left out any more") {
        ensure!(Instant::now() < until, "the log does not say that the problem ended:\n{}", stage.agent.log());
        assert_eq!(met(&process), admitted());
    }
    Ok(())
}
