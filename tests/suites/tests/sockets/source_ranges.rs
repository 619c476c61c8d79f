//! `loadBalancerSourceRanges`: the clients on the node that a load balancer address admits.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::kernel::Features;
use portmap_harness::listen::Protocol;
use portmap_harness::process::{Met, Process};
use portmap_harness::say;
use portmap_harness::world::{Pod, program};
use portmap_suites::service_objects::{
    Both, PORT, Service, Via, cluster_ip, endpoints, external_ip, load_balancer_ip, node_port,
};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, eventually, who};
use serde_json::json;

pub const POD: &str = "a";

/// Starts pods and an agent, with a Service whose load balancer addresses admit these ranges.
pub fn stage(name: &str, ranges: &[String]) -> Result<Stage> {
    let mut stage = Stage::new(name, &[POD], &[])?;
    admit(&mut stage, ranges)?;
    Ok(stage)
}

pub fn admit(stage: &mut Stage, ranges: &[String]) -> Result<()> {
    let ranges = json!({"loadBalancerSourceRanges": ranges});
    stage.apply(&[Service::new("web", 1).exposed(1).spec(ranges).endpoints(endpoints(&stage.pods))])
}

pub fn only(pod: &Pod) -> Vec<String> {
    vec![format!("{}/32", pod.ipv4()), format!("{}/128", pod.ipv6())]
}

/// The answers at the IPv4 and at the IPv6 load balancer address.
pub fn met(process: &Process) -> [Met<String>; 2] {
    [Via::V4, Via::V6].map(|via| who(process, Transport::Tcp, load_balancer_ip(1).at(via, PORT)))
}

pub fn admitted() -> [Met<String>; 2] {
    [Ok(answer(POD, Transport::Tcp)), Ok(answer(POD, Transport::Tcp))]
}

pub fn kept_out() -> [Met<String>; 2] {
    [dropped(), dropped()]
}

/// Waits until the client's namespace is known and admitted, and returns true. Returns false on kernels without
/// `SO_NETNS_COOKIE`, which admit only bound sockets. The caller then skips the rest of its test.
pub fn is_recognised(process: &Process) -> Result<bool> {
    if !Features::here().tells_namespaces {
        assert_eq!(met(process), kept_out());
        say::skipped("source ranges by network namespace", "SO_NETNS_COOKIE exists from 5.14 on");
        return Ok(false);
    }
    eventually("the client's namespace is known", || Ok((met(process) == admitted()).then_some(())))?;
    Ok(true)
}

#[test]
fn a_client_has_the_addresses_of_its_namespace() -> Result<()> {
    let mut stage = stage("ranges", &[])?;
    let other = stage.world.client("other")?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let (inside, outside) = (stage.process()?, Process::in_pod(&other)?);
    if !is_recognised(&inside)? {
        return Ok(());
    }
    for via in Via::ALL {
        let address = load_balancer_ip(1).at(via, PORT);
        for transport in Transport::ALL {
            assert_eq!(who(&inside, transport, address), Ok(answer(POD, transport)), "{transport:?} {address}");
            assert_eq!(who(&outside, transport, address), dropped(), "{transport:?} {address}");
        }
    }
    // A change of the list applies to the next connection.
    admit(&mut stage, &only(&other))?;
    if !is_recognised(&outside)? {
        return Ok(());
    }
    assert_eq!(met(&inside), kept_out());
    Ok(())
}

/// The Service's other addresses have no source ranges.
#[test]
fn source_ranges_apply_to_the_load_balancer_address_only() -> Result<()> {
    let stage = stage("ranges-only", &["203.0.113.0/24".into(), "2001:db8:113::/48".into()])?;
    let process = stage.process()?;
    assert_eq!(met(&process), kept_out());
    let node = Both { v4: stage.world.ipv4(), v6: stage.world.ipv6() };
    for via in Via::ALL {
        for address in [cluster_ip(1).at(via, PORT), external_ip(1).at(via, PORT), node.at(via, node_port(1))] {
            assert_eq!(who(&process, Transport::Tcp, address), Ok(answer(POD, Transport::Tcp)), "{address}");
        }
    }
    Ok(())
}

/// A family without a range has no filter. A range of prefix length 0 also removes the filter of its family, beside other
/// ranges. Blanks around a range are ignored.
#[test]
fn a_family_without_ranges_has_no_filter() -> Result<()> {
    let mut stage = stage("ranges-family", &["203.0.113.0/24".into()])?;
    let process = stage.process()?;
    assert_eq!(met(&process), [dropped(), Ok(answer(POD, Transport::Tcp))]);
    admit(&mut stage, &["203.0.113.0/24".into(), "0.0.0.0/0".into(), " 2001:db8:113::/48 ".into()])?;
    assert_eq!(met(&process), [Ok(answer(POD, Transport::Tcp)), dropped()]);
    admit(&mut stage, &[])?;
    assert_eq!(met(&process), admitted());
    Ok(())
}

#[test]
fn the_node_is_a_client() -> Result<()> {
    let mut stage = stage("ranges-node", &[])?;
    let process = Process::on_node(&stage.world)?;
    let (v4, v6) = (stage.world.ipv4(), stage.world.ipv6());
    admit(&mut stage, &[format!("{v4}/32"), format!("{v6}/128")])?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    assert_eq!(met(&stage.process()?), kept_out());
    Ok(())
}

/// Without a route to the load balancer, each address could be the source: all of them must be admitted.
#[test]
fn an_address_outside_the_ranges_excludes_the_client() -> Result<()> {
    let mut stage = stage("ranges-all", &[])?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let process = stage.process()?;
    if !is_recognised(&process)? {
        return Ok(());
    }
    stage.client.ip("addr add 10.244.0.240/24 dev eth0")?;
    eventually("the second address is noticed", || Ok((met(&process)[0] == dropped()).then_some(())))?;
    assert_eq!(met(&process), [dropped(), Ok(answer(POD, Transport::Tcp))], "the other family is not affected");
    stage.client.ip("addr del 10.244.0.240/24 dev eth0")?;
    eventually("the removal of the second address is noticed", || Ok((met(&process) == admitted()).then_some(())))
}

/// For a bound socket, source ranges check the address that it is bound to, unless that is the unspecified address.
#[test]
fn the_address_of_a_bound_socket_decides() -> Result<()> {
    let mut stage = stage("ranges-bind", &[])?;
    stage.client.ip("addr add 10.244.0.240/24 dev eth0\naddr add fd00:10:244::f0/64 dev eth0 nodad")?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let process = stage.process()?;
    assert_eq!(met(&process), kept_out(), "without a bind, either address could be the source");
    let second = Both { v4: "10.244.0.240".parse()?, v6: "fd00:10:244::f0".parse()? };
    for (via, protocol) in Via::ALL.iter().flat_map(|via| [Protocol::Tcp, Protocol::Udp].map(|protocol| (*via, protocol))) {
        let address = load_balancer_ip(1).at(via, PORT);
        for (own, is_admitted) in [(Both::of(&stage.client), true), (second, false)] {
            let socket = process.open_for(address, protocol)?;
            socket.bind(own.at(via, 0))?;
            let expected = if is_admitted { Ok(()) } else { dropped() };
            assert_eq!(socket.connect(address), expected, "{protocol} {address} from {own:?}");
            if protocol == Protocol::Udp {
                let socket = process.open_for(address, protocol)?;
                socket.bind(own.at(via, 0))?;
                assert_eq!(socket.send_to(address), expected, "{address} from {own:?}");
            }
        }
        // A bind to a port of the unspecified address does not choose the source address.
        let socket = process.open_for(address, protocol)?;
        let unspecified = Both { v4: std::net::Ipv4Addr::UNSPECIFIED, v6: std::net::Ipv6Addr::UNSPECIFIED };
        let any = if via == Via::Mapped { Via::V6 } else { via };
        socket.bind(unspecified.at(any, 5000))?;
        assert_eq!(socket.connect(address), dropped(), "{protocol} {address} from a port");
    }
    Ok(())
}

/// A client with many addresses is admitted if the ranges contain all of them.
#[test]
fn a_client_may_have_many_addresses() -> Result<()> {
    let mut stage = stage("ranges-many", &[])?;
    let more = (200..220)
        .map(|host| format!("addr add 10.244.0.{host}/24 dev eth0\naddr add fd00:10:244::{host}/64 dev eth0 nodad\n"));
    stage.client.ip(&more.collect::<String>())?;
    admit(&mut stage, &["10.244.0.0/24".into(), "fd00:10:244::/64".into()])?;
    let process = stage.process()?;
    is_recognised(&process).map(drop)
}

/// Starts a process in a new network namespace without a name. Moves the client's interface into it, with the client's
/// addresses.
fn nameless(stage: &Stage) -> Result<Process> {
    let mut command = stage.client.command("unshare");
    command.arg("--net").arg(program::find("portmap-pod")?);
    let process = Process::start(command)?;
    // A successful call shows that the process has started in its new namespace.
    drop(process.open_for(load_balancer_ip(1).at(Via::V4, PORT), Protocol::Tcp)?);
    let id = process.id().to_string();
    let (v4, v6) = (stage.client.ipv4(), stage.client.ipv6());
    stage.client.ip(&format!("link set eth0 netns {id}"))?;
    for arguments in [
        "link set lo up",
        "link set eth0 up",
        &format!("addr add {v4}/24 dev eth0"),
        &format!("addr add {v6}/64 dev eth0 nodad"),
    ] {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &id, "ip"]).args(arguments.split(' '));
        let output = command.output().context("failed to run nsenter")?;
        ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(process)
}

/// A client in an unknown network namespace is dropped until the agent finds the namespace.
#[test]
fn a_new_namespace_is_found() -> Result<()> {
    let mut stage = stage("ranges-new", &[])?;
    let own = only(&stage.client);
    admit(&mut stage, &own)?;
    let process = nameless(&stage)?;
    if !Features::here().tells_namespaces {
        return is_recognised(&process).map(drop);
    }
    eventually("the new namespace is known", || {
        let met = met(&process);
        ensure!(met.iter().zip(admitted()).all(|(met, answer)| *met == answer || *met == dropped()), "{met:?}");
        Ok((met == admitted()).then_some(()))
    })
}
