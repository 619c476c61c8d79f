//! `--datapath-log`: the programs' decisions in the agent's log.

use anyhow::Result;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, refused, who};

const CIDR: [&str; 2] = ["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"];

fn stage(name: &str, arguments: &[&str]) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &[&CIDR[..], arguments].concat())?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    Ok(stage)
}

/// One connection for each of the actions forward, refuse and drop.
fn connect(stage: &Stage, via: Via) -> Result<()> {
    let process = stage.process()?;
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(via, PORT)), Ok(answer("a", Transport::Tcp)));
    assert_eq!(who(&process, Transport::UdpConnected, cluster_ip(2).at(via, PORT)), refused(Transport::UdpConnected));
    assert_eq!(who(&process, Transport::UdpUnconnected, cluster_ip(9).at(via, PORT)), dropped());
    Ok(())
}

#[test]
fn decisions_are_logged() -> Result<()> {
    let mut stage = stage("log", &["--datapath-log", "debug"])?;
    connect(&stage, Via::V4)?;
    connect(&stage, Via::V6)?;
    let backend = stage.pods[0].ipv4().to_string();
    for parts in [
        &["10.96.0.1", "80", &backend, "8080"][..],
        &["10.96.0.2", "80", "refuse"],
        &["10.96.0.9", "80", "drop"],
        &["fd00:10:96::1", "80", "8080"],
        &["fd00:10:96::2", "80", "refuse"],
        &["fd00:10:96::9", "80", "drop"],
    ] {
        stage.agent.wait_until(&format!("a line of the log has {parts:?}"), |agent| {
            Ok(agent.log().lines().any(|line| parts.iter().all(|part| line.contains(part))))
        })?;
    }
    Ok(())
}

#[test]
fn decisions_are_not_logged_by_default() -> Result<()> {
    let mut stage = stage("no-log", &["-v"])?;
    connect(&stage, Via::V4)?;
    // The log is in order: lines about the connections would precede the lines about this change.
    stage.apply(&[])?;
    let log = stage.agent.log();
    assert!(!log.contains("10.96.0.9"), "{log}");
    Ok(())
}

/// A client that connects in a loop must not fill the disk.
#[test]
fn the_rate_of_log_lines_is_limited() -> Result<()> {
    const CONNECTIONS: u32 = 20_000;
    let stage = stage("flood", &["--datapath-log", "debug"])?;
    let refused = cluster_ip(2).at(Via::V4, PORT);
    let answers = stage.client.connect(refused, portmap_harness::listen::Protocol::Tcp, CONNECTIONS)?;
    assert_eq!(answers.errors, [("ECONNREFUSED".to_owned(), CONNECTIONS)].into());
    let lines = stage.agent.log().lines().filter(|line| line.contains("10.96.0.2")).count();
    assert!(lines > 0 && lines < CONNECTIONS as usize / 4, "{lines} lines for {CONNECTIONS} connections");
    Ok(())
}
