//! The agent deletes flows that have expired, and reports the entries that are left.

use anyhow::{Context as _, Result};
use portmap_common::{CLIENT_FIN, REPLIED, RESET, SERVER_FIN, UDP};
use portmap_harness::agent::Agent;
use portmap_harness::world::World;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;
use serde_json::Value;

use crate::written::{Flow, Table};
use crate::{at, client, numbers};

const METRICS: &str = "127.0.0.1:10249";

/// The samples of the metrics, as `name value`.
fn samples(world: &World) -> Result<Vec<String>> {
    let url = format!("http://{METRICS}/metrics");
    let output = world.command("curl").args(["--silent", "--max-time", "5", &url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

/// The used entries of a map, as `portmap status` prints them.
fn used(agent: &Agent, map: &str) -> Result<u64> {
    let output = agent.portmap(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).context("status prints no JSON")?;
    let found = status["maps"].as_array().into_iter().flatten().find(|found| found["name"] == map);
    found.and_then(|found| found["used"].as_u64()).with_context(|| format!("no {map} in {status}"))
}

#[test]
fn expired_flows_are_deleted_and_live_ones_stay() -> Result<()> {
    let mut stage = Stage::new("flows-sweep", &["a"], &["--metrics-bind-address", METRICS, "--max-flows", "1000"])?;
    let mut table = Table::v4(stage.world.bpffs())?;
    let mut opening = Table::opening_v4(stage.world.bpffs())?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let (frontend, backend) = (cluster_ip(1).at(Via::V4, PORT), at(stage.pods.first().context("no pod")?));
    // UDP flows whose endpoint does not serve would be deleted for that reason.
    let (id, endpoint) = numbers(&stage, "10.96.0.1:80/UDP", backend)?;
    let flow = |port, more: u32, idle| {
        let flow = Flow::established(client(port), frontend, backend);
        Flow { id, endpoint, state: flow.state | more, idle, age: idle, ..flow }
    };
    let hidden = |flow: Flow| Flow { hidden_behind: Some(([10, 244, 0, 1], flow.client.port()).into()), ..flow };
    let both_fins = CLIENT_FIN | SERVER_FIN;
    let live =
        [hidden(flow(1, 0, 80_000)), flow(2, CLIENT_FIN, 3_000), Flow { protocol: UDP, ..flow(3, 0, 60) }, flow(4, 0, 0)];
    let expired = [
        hidden(flow(5, RESET, 10)),
        flow(6, both_fins, 40),
        flow(7, RESET | CLIENT_FIN, 10),
        Flow { protocol: UDP, state: REPLIED, ..flow(8, 0, 40) },
        hidden(flow(9, 0, 0).expired()),
    ];
    // A flow that programs have copied to FLOWS is left in OPENING.
    let half_open = [Flow { state: 0, ..flow(10, 0, 70) }, Flow { state: 0, idle: 70, ..live[3] }];
    live.iter().chain(&expired).try_for_each(|flow| table.write(flow))?;
    half_open.iter().try_for_each(|flow| opening.write(flow))?;
    stage.agent.wait_until("the expired flows are deleted", |_| {
        let left = expired.iter().map(|flow| table.entries_of(flow)).sum::<Result<usize>>()?;
        Ok(left + half_open.iter().map(|flow| opening.entries_of(flow)).sum::<Result<usize>>()? == 0)
    })?;
    let left = live.iter().map(|flow| table.entries_of(flow)).collect::<Result<Vec<_>>>()?;
    assert_eq!(left, [4, 2, 2, 2]);
    let Stage { agent, world, .. } = &mut stage;
    let expected = [
        "portmap_flows_swept_total 18",
        r#"portmap_flows{ip_family="IPv4",table="FLOWS"} 10"#,
        r#"portmap_flows{ip_family="IPv4",table="OPENING"} 0"#,
        r#"portmap_flows{ip_family="IPv6",table="FLOWS"} 0"#,
        r#"portmap_flows_capacity{ip_family="IPv4",table="FLOWS"} 1000"#,
        r#"portmap_flows_pressure{ip_family="IPv4",table="FLOWS"} 0.01"#,
    ];
    agent.wait_until("the metrics and the status have the numbers", |agent| {
        let samples = samples(world)?;
        let has_samples = expected.iter().all(|expected| samples.iter().any(|sample| sample == expected));
        Ok(has_samples && used(agent, "FLOWS_V4")? == 10 && used(agent, "OPENING_V4")? == 0)
    })
}

/// The node's packet filter drops the packets to port 0, so no RST comes back.
#[test]
fn refused_connections_without_an_answer_are_reported() -> Result<()> {
    let mut stage = Stage::new("flows-unanswered", &[], &[])?;
    let mut table = Table::v4(stage.world.bpffs())?;
    stage.apply(&[Service::new("web", 1)])?;
    let frontend = cluster_ip(1).at(Via::V4, PORT);
    let flow = |port, state| {
        let flow = Flow::established(client(port), frontend, ([10, 244, 0, 1], 0).into());
        Flow { state, age: 5, idle: 5, ..flow }
    };
    let answered = [flow(1, REPLIED), Flow { protocol: UDP, ..flow(2, 0) }];
    let unanswered = [flow(3, 0), flow(4, 0)];
    answered.iter().chain(&unanswered).try_for_each(|flow| table.write(flow))?;
    let note = "2 refused connections of clients outside the node got no answer";
    stage.agent.wait_until("the status has a note", |agent| {
        let output = agent.portmap(&["status"])?;
        Ok(String::from_utf8_lossy(&output.stdout).contains(note))
    })?;
    assert!(stage.agent.log().contains(note), "{}", stage.agent.log());
    Ok(())
}
