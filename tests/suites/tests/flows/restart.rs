//! Flows outlive the agent, its set of maps, and a change of `--max-flows`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_common::{FLOWS_VERSION, UDP};
use portmap_harness::agent::Agent;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;

use crate::written::{Flow, Table};
use crate::{at, client, numbers};

/// The sizes of the pinned maps of flows, by name.
fn sizes(stage: &Stage) -> Result<Vec<(String, u32)>> {
    let directory = stage.world.bpffs().join(format!("flows-{FLOWS_VERSION}"));
    let mut sizes = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("failed to list {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        sizes.push((name, aya::maps::MapInfo::from_pin(&path)?.max_entries()));
    }
    sizes.sort();
    Ok(sizes)
}

fn expected(flows: u32) -> Vec<(String, u32)> {
    let opening = portmap_common::capacity::OPENING;
    let sizes = [("FLOWS_V4", flows), ("FLOWS_V6", flows), ("OPENING_V4", opening), ("OPENING_V6", opening)];
    sizes.map(|(name, size)| (name.to_owned(), size)).to_vec()
}

#[test]
fn flows_outlive_agents_and_sets_of_maps() -> Result<()> {
    let mut stage = Stage::new("flows-restart", &["a"], &["--max-flows", "2000"])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    assert_eq!(sizes(&stage)?, expected(2000));
    let mut table = Table::v4(stage.world.bpffs())?;
    let (frontend, backend) = (cluster_ip(1).at(Via::V4, PORT), at(stage.pods.first().context("no pod")?));
    let (id, endpoint) = numbers(&stage, "10.96.0.1:80/UDP", backend)?;
    let tcp = Flow::established(client(1), frontend, backend);
    // In another set, the endpoint of this flow has another number.
    let udp = Flow { protocol: UDP, id, endpoint, ..Flow::established(client(2), frontend, backend) };
    for arguments in [&[][..], &["--max-services", "1000"], &["--abi-version", "901"]] {
        stage.agent.stop(Signal::SIGTERM)?;
        let expired = Flow::established(client(3), frontend, backend).expired();
        [tcp, udp, expired].iter().try_for_each(|flow| table.write(flow))?;
        stage.agent = Agent::start(&stage.world, &[&["--max-flows", "2000"], arguments].concat())?;
        // A sweep at the start finds flows that expired meanwhile.
        stage.agent.wait_until("the expired flow is deleted", |_| Ok(table.entries_of(&expired)? == 0))?;
        // The search for ended UDP flows, which the first plan requested, is over when a later one has deleted a flow.
        let ended = Flow { endpoint: u64::MAX, backend: "10.244.0.99:1".parse()?, client: client(4), ..udp };
        table.write(&ended)?;
        stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
        stage.apply(&[
            Service::new("web", 1).endpoints(endpoints(&stage.pods)),
            Service::new("other", 2).endpoints(endpoints(&stage.pods)),
        ])?;
        stage.agent.wait_until("the ended flow is deleted", |_| Ok(!table.has_first_of(&ended)?))?;
        assert_eq!((table.entries_of(&tcp)?, table.entries_of(&udp)?), (2, 2), "{arguments:?}");
        assert_eq!(sizes(&stage)?, expected(2000), "{arguments:?}");
        ensure!(!stage.agent.log().contains("FLOWS keeps its size"), "{}", stage.agent.log());
    }
    Ok(())
}

#[test]
fn another_size_takes_a_cleanup() -> Result<()> {
    let mut stage = Stage::new("flows-size", &[], &["--max-flows", "2000"])?;
    let mut table = Table::v4(stage.world.bpffs())?;
    let flow = Flow::established(client(1), cluster_ip(1).at(Via::V4, PORT), "10.244.0.9:8080".parse()?);
    table.write(&flow)?;
    stage.agent.stop(Signal::SIGTERM)?;
    stage.agent = Agent::start(&stage.world, &["--max-flows", "4000"])?;
    assert_eq!((sizes(&stage)?, table.entries_of(&flow)?), (expected(2000), 2));
    let log = stage.agent.log();
    ensure!(log.contains("FLOWS keeps its size of 2000 entries instead of 4000 (--max-flows)"), "{log}");
    ensure!(log.contains("portmap cleanup"), "{log}");
    stage.agent.stop(Signal::SIGTERM)?;
    let output = stage.agent.portmap(&["cleanup"])?;
    ensure!(output.status.success() && !stage.world.bpffs().exists(), "{}", String::from_utf8_lossy(&output.stderr));
    stage.agent = Agent::start(&stage.world, &["--max-flows", "4000"])?;
    assert_eq!(sizes(&stage)?, expected(4000));
    Ok(())
}
