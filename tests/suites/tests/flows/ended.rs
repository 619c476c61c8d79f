//! The agent deletes UDP flows whose endpoint no longer serves, and no others.

use anyhow::{Context as _, Result};
use portmap_common::{TCP, UDP};
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;

use crate::written::{Flow, Table};
use crate::{at, client, numbers};

const DNS: &str = "10.96.0.1:80/UDP";

/// A stage with the pods `a` and `b`, which serve Service 1.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    stage.apply(&[Service::new("dns", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    Ok(stage)
}

/// A flow to the pod with this index.
fn flow(stage: &Stage, protocol: u8, port: u16, pod: usize) -> Result<Flow> {
    let backend = at(stage.pods.get(pod).context("no such pod")?);
    let (id, endpoint) = numbers(stage, DNS, backend)?;
    Ok(Flow { protocol, id, endpoint, ..Flow::established(client(port), cluster_ip(1).at(Via::V4, PORT), backend) })
}

#[test]
fn udp_flows_of_a_removed_endpoint_are_deleted() -> Result<()> {
    let mut stage = stage("flows-ended")?;
    let mut table = Table::v4(stage.world.bpffs())?;
    let hidden_behind = Some("10.244.0.1:1024".parse()?);
    let ended = [flow(&stage, UDP, 1, 0)?, Flow { hidden_behind, ..flow(&stage, UDP, 2, 0)? }];
    let serving = [flow(&stage, UDP, 3, 1)?, flow(&stage, TCP, 4, 0)?, flow(&stage, TCP, 5, 1)?];
    ended.iter().chain(&serving).try_for_each(|flow| table.write(flow))?;
    // The flows stay while other Services change.
    stage.apply(&[
        Service::new("dns", 1).endpoints(endpoints(&stage.pods)),
        Service::new("other", 3).endpoints(endpoints(&stage.pods)),
    ])?;
    let entries = |flows: &[Flow]| flows.iter().map(|flow| table.entries_of(flow)).sum::<Result<usize>>();
    assert_eq!((entries(&ended)?, entries(&serving)?), (6, 6));
    stage.apply(&[Service::new("dns", 1).endpoints(endpoints(&stage.pods[1..]))])?;
    stage.agent.wait_until("the UDP flows are deleted", |_| {
        let left = ended.iter().map(|flow| table.has_first_of(flow)).collect::<Result<Vec<_>>>()?;
        Ok(left == [false, false])
    })?;
    // An answer that is under way reaches its client by the other entries.
    assert_eq!((entries(&ended)?, entries(&serving)?), (4, 6));
    stage.agent.wait_until("the log has the number", |agent| Ok(agent.log().contains("deleted 2 UDP flows")))
}

/// A refused flow would otherwise stay as long as its client sends.
#[test]
fn refused_udp_flows_are_deleted_when_there_is_an_endpoint() -> Result<()> {
    let mut stage = stage("flows-refused")?;
    let mut table = Table::v4(stage.world.bpffs())?;
    let refused = std::net::SocketAddr::new(stage.world.ipv4().into(), 0);
    let flow = Flow { protocol: UDP, ..Flow::established(client(1), cluster_ip(2).at(Via::V4, PORT), refused) };
    table.write(&flow)?;
    stage.apply(&[
        Service::new("dns", 1).endpoints(endpoints(&stage.pods)),
        Service::new("empty", 2).endpoints(endpoints(&stage.pods)),
    ])?;
    stage.agent.wait_until("the refused flow is deleted", |_| Ok(!table.has_first_of(&flow)?))
}
