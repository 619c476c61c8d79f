//! Unusual sockets and calls, such as TCP Fast Open, Multipath TCP, the error queue, and sockets with the agent's priority.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use portmap::kernel::OWN_PRIORITY;
use portmap_harness::kernel::Features;
use portmap_harness::patience::seconds;
use portmap_harness::say;
use portmap_harness::world::Group;
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;

const PYTHON: &str = include_str!("clients/odd.py");

fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"])?;
    let web = Service::new("web", 1).endpoints(endpoints(&stage.pods[..1]));
    stage.apply(&[web, Service::new("empty", 2)])?;
    fs::write(stage.world.directory().join("odd.py"), PYTHON)?;
    Ok(stage)
}

fn command(stage: &Stage, kind: &str, number: u8, via: Via) -> Command {
    let mut command = stage.client.command("timeout");
    let address = cluster_ip(number).at(via, PORT);
    command.args([&seconds(20), "python3"]).arg(stage.world.directory().join("odd.py"));
    command.args([kind, &address.ip().to_string(), &address.port().to_string()]);
    command
}

fn output(stage: &Stage, kind: &str, number: u8, via: Via) -> Result<String> {
    text_of(&mut command(stage, kind, number, via))
}

fn text_of(command: &mut Command) -> Result<String> {
    let output = command.output().context("failed to run python3")?;
    ensure!(output.status.success(), "python3 failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[test]
fn tcp_fast_open_is_translated() -> Result<()> {
    let stage = stage("fastopen")?;
    for via in Via::ALL {
        let address = cluster_ip(1).at(via, PORT);
        let text = output(&stage, "fastopen", 1, via)?;
        assert!(text.starts_with(&format!("{} {PORT} a 8080/TCP from ", address.ip())), "{text}");
        assert_eq!(output(&stage, "fastopen", 2, via)?, "ECONNREFUSED", "{via:?}");
        assert_eq!(output(&stage, "fastopen", 9, via)?, Features::here().chosen("ETIMEDOUT"), "{via:?}");
    }
    Ok(())
}

/// A Multipath TCP connection reaches the pod. The address that `getpeername()` shows depends on the kernel.
#[test]
fn multipath_tcp_is_translated() -> Result<()> {
    if !Features::here().has_mptcp {
        say::skipped("multipath TCP", "distributions' kernels have it from 5.16 on");
        return Ok(());
    }
    let stage = stage("mptcp")?;
    for via in Via::ALL {
        let text = output(&stage, "mptcp", 1, via)?;
        assert!(text.contains(" a 8080/TCP from "), "{via:?}: {text}");
        assert_eq!(output(&stage, "mptcp", 2, via)?, "ECONNREFUSED", "{via:?}");
        assert_eq!(output(&stage, "mptcp", 9, via)?, Features::here().chosen("ETIMEDOUT"), "{via:?}");
    }
    Ok(())
}

/// Ping, raw and UDP-Lite sockets are not translated. Refusals and drops do not affect them either.
#[test]
fn other_protocols_are_left_alone() -> Result<()> {
    let stage = stage("neither")?;
    let groups = stage.client.command("sysctl").args(["-q", "-w", "net.ipv4.ping_group_range=0 2147483647"]).status()?;
    ensure!(groups.success(), "sysctl failed");
    let kinds = ["ping", "raw"].into_iter().chain(Features::here().has_udplite.then_some("udplite"));
    for (kind, number) in kinds.flat_map(|kind| [1, 2, 9].map(|number| (kind, number))) {
        for via in [Via::V4, Via::V6] {
            assert_eq!(output(&stage, kind, number, via)?, "ENETUNREACH", "{kind} {number} {via:?}");
        }
    }
    Ok(())
}

/// No hook runs when a process reads the error queue, so the Service cannot be shown.
#[test]
fn the_error_queue_shows_the_pod() -> Result<()> {
    const CLOSED: u16 = 8081;
    let mut stage = stage("error-queue")?;
    stage.apply(&[Service::new("web", 1).endpoints([Endpoint::of(&stage.pods[0]).port(CLOSED)])])?;
    for via in [Via::V4, Via::V6] {
        let pod = Both::of(&stage.pods[0]).at(via, CLOSED);
        assert_eq!(output(&stage, "error_queue", 1, via)?, format!("{} {CLOSED} who", pod.ip()), "{via:?}");
    }
    Ok(())
}

/// Two Services have the same pod. Connections from one local port would have the same addresses and ports at both ends, so the
/// kernel refuses the second.
#[test]
fn a_local_port_cannot_connect_to_one_pod_twice() -> Result<()> {
    let mut stage = stage("one-port")?;
    let [web, twin, other] = [("web", 1), ("twin", 3), ("other", 4)].map(|(name, number)| Service::new(name, number));
    let [first, second] = [endpoints(&stage.pods[..1]), endpoints(&stage.pods[1..])];
    stage.apply(&[web.endpoints(first.clone()), twin.endpoints(first), other.endpoints(second)])?;
    for via in [Via::V4, Via::V6] {
        let [twin, other] = [3, 4].map(|number| cluster_ip(number).at(via, PORT).ip().to_string());
        let output = |second: &str| text_of(command(&stage, "one_port", 1, via).arg(second));
        assert_eq!(output(&twin)?, "EADDRNOTAVAIL", "{via:?}");
        assert_eq!(output(&other)?, format!("{other} {PORT}"), "{via:?}");
    }
    Ok(())
}

/// The agent sets `SO_PRIORITY` of its own sockets to [`OWN_PRIORITY`] if they must not be translated. In a pod this priority
/// has no effect.
#[test]
fn sockets_of_the_host_with_the_agents_priority_are_left_alone() -> Result<()> {
    let mut stage = stage("priority")?;
    let address = cluster_ip(1).at(Via::V4, PORT);
    let ask = |command: &mut Command, priority: u32| {
        command.args([
            "python3",
            "-c",
            PYTHON,
            "priority",
            &address.ip().to_string(),
            &PORT.to_string(),
            &priority.to_string(),
        ]);
        text_of(command)
    };
    let world = stage.world.clone();
    let node = |priority| ask(&mut world.command_in(Group::Clients, "env"), priority);
    let translated = |text: &str| text.starts_with(&format!("{} {PORT} a 8080/TCP from ", address.ip()));
    let in_pod = ask(&mut stage.client.command("env"), OWN_PRIORITY)?;
    assert!(translated(&in_pod), "{in_pod}");
    let otherwise = node(OWN_PRIORITY - 1)?;
    assert!(translated(&otherwise), "{otherwise}");
    let mut unprivileged = world.command_in(Group::Clients, "setpriv");
    unprivileged.args(["--bounding-set=-all", "--inh-caps=-all"]);
    assert_eq!(ask(&mut unprivileged, OWN_PRIORITY)?, "EPERM");
    if !Features::here().tells_namespaces {
        say::skipped("the agent's priority", "before 5.14 only the kernel's initial network namespace is known as the host's");
        return Ok(());
    }
    assert_eq!(node(OWN_PRIORITY)?, "ENETUNREACH");
    // A Service without endpoints does not refuse such a socket either.
    stage.apply(&[Service::new("web", 1)])?;
    assert_eq!(node(OWN_PRIORITY)?, "ENETUNREACH");
    Ok(())
}

/// A receive that waits for an answer of a removed backend returns with an error.
#[test]
fn a_waiting_receive_is_woken() -> Result<()> {
    let mut stage = stage("blocked")?;
    for via in Via::ALL {
        stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods[..1]))])?;
        let mut child = command(&stage, "blocked", 1, via).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        assert_eq!(lines.next().transpose()?.as_deref(), Some("connected"));
        stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods[1..]))])?;
        assert_eq!(lines.next().transpose()?.as_deref(), Some("ECONNABORTED"), "{via:?}");
        child.wait()?;
    }
    Ok(())
}
