//! Tests of the harness's worlds: network namespaces and cgroups of a node and its pods, their processes, and their cleanup.
//!
//! Needs: root and BPF.

mod topology;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::pod_bench::{Arm, Report};
use portmap_harness::world::{Client, Group, Pod, World, program};

/// Limit for an answer without a retransmission. The kernel repeats a SYN only after one second.
const AT_ONCE: Duration = Duration::from_millis(900);

fn addresses(pod: &Pod) -> [IpAddr; 2] {
    [pod.ipv4().into(), pod.ipv6().into()]
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("failed to run a program")?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn pods_are_reached_directly() -> Result<()> {
    let world = World::new("direct")?;
    let (mut pod, client) = (world.pod("pod-a")?, world.client("client")?);
    pod.serve(&[Listen::tcp(8080), Listen::udp(53), Listen::tcp(53)])?;
    for address in addresses(&pod) {
        for (port, protocol) in [(8080, Protocol::Tcp), (53, Protocol::Tcp), (53, Protocol::Udp)] {
            let answers = client.connect((address, port).into(), protocol, 5)?;
            assert_eq!(answers.replies, [(format!("pod-a {port}/{protocol}"), 5)].into(), "{address}");
            assert!(answers.errors.is_empty(), "{answers}");
        }
    }
    Ok(())
}

#[test]
fn the_first_packets_of_a_new_pod_arrive() -> Result<()> {
    let start = Instant::now();
    let world = World::new("six")?;
    let client = world.client("client")?;
    for name in ["pod-a", "pod-b", "pod-c", "pod-d", "pod-e", "pod-f"] {
        let mut pod = world.pod(name)?;
        pod.serve(&[Listen::tcp(80), Listen::udp(80)])?;
        for (address, protocol) in addresses(&pod).into_iter().zip([Protocol::Udp, Protocol::Tcp]) {
            let asked = Instant::now();
            let answers = client.connect((address, 80).into(), protocol, 1)?;
            assert!(answers.errors.is_empty() && asked.elapsed() < AT_ONCE, "{address} after {:?}: {answers}", asked.elapsed());
        }
    }
    println!("six pods served and answered after {:?}", start.elapsed());
    Ok(())
}

#[test]
fn an_unused_address_is_unreachable_at_once() -> Result<()> {
    let world = World::new("nobody")?;
    let client = world.client("client")?;
    for address in ["10.96.0.10:80", "[fd00:10:96::10]:80"] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let start = Instant::now();
            let answers = client.connect(address.parse()?, protocol, 10)?;
            assert_eq!(answers.errors, [("ENETUNREACH".to_owned(), 10)].into());
            assert!(answers.replies.is_empty() && start.elapsed() < AT_ONCE, "{address} after {:?}", start.elapsed());
        }
    }
    Ok(())
}

#[test]
fn a_stopped_pod_refuses() -> Result<()> {
    let world = World::new("stopped")?;
    let (mut pod, client) = (world.pod("pod-a")?, world.client("client")?);
    pod.serve(&[Listen::tcp(80), Listen::udp(80)])?;
    pod.stop();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let answers = client.connect((pod.ipv4(), 80).into(), protocol, 2)?;
        assert_eq!(answers.errors, [("ECONNREFUSED".to_owned(), 2)].into());
    }
    pod.serve(&[Listen::tcp(80)])?;
    assert_eq!(client.connect((pod.ipv4(), 80).into(), Protocol::Tcp, 1)?.replies.len(), 1);
    Ok(())
}

#[test]
fn a_server_that_cannot_listen_names_the_error() -> Result<()> {
    let world = World::new("twice")?;
    let mut pod = world.pod("pod-a")?;
    let error = pod.serve(&[Listen::tcp(80), Listen::tcp(80)]).err().context("the same port was opened twice")?;
    let text = format!("{error:#}");
    assert!(text.contains("pod-a") && text.contains("[::]:80/TCP"), "{text}");
    Ok(())
}

#[test]
fn curl_and_an_open_connection_are_answered() -> Result<()> {
    let world = World::new("http")?;
    let mut pod = world.pod("pod-a")?;
    pod.serve(&[Listen::tcp(8080)])?;
    let client = world.client("client")?;
    let url = format!("http://{}:8080/some/path", pod.ipv4());
    let body = output(client.command("curl").args(["--silent", "--show-error", "--fail", "--max-time", "5", &url]))?;
    assert!(body.starts_with("pod-a 8080/TCP from 10.244.0."), "{body}");
    stays_open(&client, (pod.ipv4(), 8080).into())
}

/// A connection stays usable while its client keeps it open.
fn stays_open(client: &Client, address: SocketAddr) -> Result<()> {
    const TALK: &str =
        r#"exec 3<>"/dev/tcp/$1/$2"; while read -r line; do echo "$line" >&3; read -r answer <&3; echo "$answer"; done"#;
    let mut bash = client
        .command("bash")
        .args(["-c", TALK, "bash", &address.ip().to_string(), &address.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut questions = bash.stdin.take().context("no standard input")?;
    let mut answers = BufReader::new(bash.stdout.take().context("no standard output")?).lines();
    let mut ask = || -> Result<String> {
        questions.write_all(b"who\n")?;
        answers.next().context("the connection was closed")?.context("failed to read an answer")
    };
    let first = ask()?;
    assert!(first.starts_with("pod-a 8080/TCP from "), "{first}");
    assert_eq!(ask()?, first);
    drop(questions);
    assert!(bash.wait()?.success());
    Ok(())
}

#[test]
fn commands_run_in_their_cgroup_and_namespace() -> Result<()> {
    let world = World::new("place")?;
    let client = world.client("client")?;
    for group in [Group::Clients, Group::Clean] {
        let cgroup = world.cgroup(group);
        let within_mount: PathBuf = cgroup.components().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
        let shown = output(client.command_in(group, "cat").arg("/proc/self/cgroup"))?;
        assert!(shown.lines().any(|line| line == format!("0::/{}", within_mount.display())), "{shown}");
    }
    let interfaces = output(client.command("cat").arg("/proc/self/net/fib_trie"))?;
    assert!(interfaces.contains(&client.ipv4().to_string()), "{interfaces}");
    let here = output(world.command("readlink").arg("/proc/self/ns/net"))?;
    assert_ne!(here.trim_end(), fs::read_link("/proc/self/ns/net")?.to_string_lossy());
    assert_ne!(here, output(client.command("readlink").arg("/proc/self/ns/net"))?);
    Ok(())
}

#[test]
fn a_client_may_have_a_route_through_the_node() -> Result<()> {
    let world = World::new("routes")?;
    let client = world.client("client")?;
    client.route_through_node()?;
    for (address, node) in [("10.96.0.10", IpAddr::from(world.ipv4())), ("fd00:10:96::10", world.ipv6().into())] {
        let route = output(client.command("ip").args(["route", "get", address]))?;
        assert!(route.contains(&format!("via {node} ")), "{route}");
        // The node itself has no such route.
        assert!(output(world.command("ip").args(["route", "get", address])).is_err());
    }
    Ok(())
}

#[test]
fn connects_are_measured_in_both_cgroups() -> Result<()> {
    let world = World::new("bench")?;
    let (mut pod, client) = (world.pod("pod-a")?, world.client("client")?);
    pod.serve(&[Listen::tcp(80), Listen::udp(80)])?;
    for (address, protocol) in addresses(&pod).into_iter().zip([&[][..], &["--work", "udp-connected"]]) {
        let target = SocketAddr::new(address, 80).to_string();
        let mut bench = client.command_in(Group::Clean, program::find("portmap-pod")?);
        bench.arg("bench").arg("--cgroup-clean").arg(world.cgroup(Group::Clean));
        bench.arg("--cgroup-portmap").arg(world.cgroup(Group::Clients));
        bench.args(["--direct", &target, "--service", &target, "--rounds", "3", "--per-round", "10", "--json"]).args(protocol);
        let report: Report = serde_json::from_str(&output(&mut bench)?)?;
        for arm in [Arm::Clean, Arm::Miss, Arm::Hit] {
            let figures = report.arms.get(&arm).with_context(|| format!("no figures for {arm}"))?;
            assert!(figures.round_p50.len() == 3 && figures.all.p50 > 0 && figures.ratio.p50 > 0.0, "{report}");
        }
    }
    Ok(())
}

#[test]
fn a_dropped_world_leaves_nothing() -> Result<()> {
    let world = World::new("gone")?;
    let mut pod = world.pod("pod-a")?;
    pod.serve(&[Listen::tcp(80)])?;
    let mut forgotten = pod.command("sleep").arg("1000").spawn()?;
    fs::create_dir(world.bpffs())?;
    let cgroup = world.cgroup(Group::Clients).parent().context("a group has a parent")?.to_owned();
    let paths = [world.namespace(), pod.namespace(), world.bpffs(), world.directory(), &cgroup].map(Path::to_owned);
    assert!(paths.iter().all(|path| path.exists()), "{paths:?}");
    // The pod still uses its world, so nothing is removed yet.
    drop(world);
    assert!(paths.iter().all(|path| path.exists()), "{paths:?}");
    drop(pod);
    assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
    assert!(!forgotten.wait()?.success());
    Ok(())
}

#[test]
fn a_sweep_removes_only_worlds_of_ended_processes() -> Result<()> {
    let world = World::new("alive")?;
    let group = world.cgroup(Group::Clean);
    let mount = group.ancestors().nth(2).context("the world is below the mount")?;
    // The number in this name is a pid that no process has: /proc/sys/kernel/pid_max is at most 2^22.
    let dead = "portmap-4194305-0-dead";
    let cgroup = mount.join(dead);
    fs::create_dir_all(cgroup.join("clients"))?;
    let directory = std::env::temp_dir().join(format!("{dead}-x"));
    fs::create_dir_all(directory.join("logs"))?;
    output(Command::new("ip").args(["netns", "add", &format!("{dead}-node")]))?;
    World::sweep();
    for path in [cgroup, directory, Path::new("/run/netns").join(format!("{dead}-node"))] {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(group.exists() && world.namespace().exists() && world.directory().exists());
    Ok(())
}

#[test]
fn invalid_names_are_refused() -> Result<()> {
    assert!(World::new("no/path").is_err());
    let world = World::new("names")?;
    assert!(world.pod("Pod.A").is_err());
    let _pod = world.pod("pod-a")?;
    assert!(world.pod("pod-a").is_err(), "two pods have the same name");
    Ok(())
}
