//! Counters, as bpftool shows them: each forwarded, refused or dropped call counts once, by its outcome.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap::maps::pin::Pins;
use portmap_harness::listen::{Listen, Protocol};
use portmap_suites::service_objects::{
    Both, Endpoint, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints, load_balancer_ip,
};
use portmap_suites::service_stage::{Stage, Transport, dropped, left_alone, refused, who};
use serde_json::{Value, json};

const ARGUMENTS: [&str; 4] = ["--max-services", "64", "--service-cidr", "10.96.0.0/24,fd00:10:96::/112"];

type Counts = BTreeMap<String, u64>;

/// All entries of a map.
fn dump(stage: &Stage, map: &str) -> Result<Vec<Value>> {
    let pin = Pins::new(stage.world.bpffs()).map(map);
    let output =
        Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(pin).output().context("failed to run bpftool")?;
    ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("bpftool prints no list in JSON")
}

/// The number of entries of a hash map.
fn entries(stage: &Stage, map: &str) -> Result<u64> {
    Ok(u64::try_from(dump(stage, map)?.len())?)
}

/// The sums of a map's fields over its entries and processors. Fields with the sum 0 are left out.
fn counts(stage: &Stage, map: &str) -> Result<Counts> {
    let entries = dump(stage, map)?;
    let values = entries.iter().filter_map(|entry| entry["formatted"]["values"].as_array()).flatten();
    let fields = values.filter_map(|value| value["value"].as_object()).flatten();
    let mut counts = Counts::new();
    for (name, count) in fields.filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?))) {
        *counts.entry(name.clone()).or_default() += count;
    }
    Ok(counts)
}

/// The counters in TOTALS that COUNTERS does not have.
fn events(stage: &Stage) -> Result<Counts> {
    let mut totals = counts(stage, "TOTALS")?;
    totals.retain(|name, _| !["forwarded", "refused", "dropped"].contains(&name.as_str()));
    Ok(totals)
}

/// The number of used entries of each map in `portmap status`.
fn used(stage: &Stage) -> Result<Counts> {
    let output = stage.agent.portmap(&["status", "-o", "json"])?;
    let health: Value = serde_json::from_slice(&output.stdout).context("status prints no JSON")?;
    let maps = health["maps"].as_array().into_iter().flatten();
    Ok(maps.filter_map(|map| Some((map["name"].as_str()?.to_owned(), map["used"].as_u64()?))).collect())
}

fn these<const N: usize>(counts: [(&str, u64); N]) -> Counts {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn ask(stage: &Stage, number: u8, via: Via, port: u16, times: usize) -> Result<()> {
    let process = stage.process()?;
    for (_, transport) in (0..times).flat_map(|time| Transport::ALL.map(|transport| (time, transport))) {
        who(&process, transport, cluster_ip(number).at(via, port)).ok();
    }
    Ok(())
}

#[test]
fn every_call_is_counted_by_its_outcome() -> Result<()> {
    let mut stage = Stage::new("counts", &["a"], &ARGUMENTS)?;
    let local = json!({"internalTrafficPolicy": "Local"});
    stage.apply(&[
        Service::new("web", 1).endpoints(endpoints(&stage.pods)),
        Service::new("empty", 2),
        Service::new("elsewhere", 3).spec(local).endpoints([Endpoint::of(&stage.pods[0])]),
    ])?;
    assert_eq!((counts(&stage, "COUNTERS")?, counts(&stage, "TOTALS")?), (Counts::new(), Counts::new()));
    for via in Via::ALL {
        ask(&stage, 1, via, PORT, 5)?;
        ask(&stage, 2, via, PORT, 4)?;
        ask(&stage, 3, via, PORT, 3)?;
    }
    let expected = these([("forwarded", 5 * 9), ("refused", 4 * 9), ("dropped", 3 * 9)]);
    assert_eq!((counts(&stage, "COUNTERS")?, counts(&stage, "TOTALS")?), (expected.clone(), expected.clone()));
    // Connections that are not translated do not count, nor do `getpeername()` and received datagrams.
    let pod = Both::of(&stage.pods[0]);
    for via in Via::ALL {
        let process = stage.process()?;
        who(&process, Transport::Tcp, pod.at(via, TARGET_PORT))?;
        assert_eq!(who(&process, Transport::Tcp, load_balancer_ip(1).at(via, PORT)), left_alone());
    }
    assert_eq!((counts(&stage, "COUNTERS")?, counts(&stage, "TOTALS")?), (expected.clone(), expected));
    Ok(())
}

/// Calls to undefined ports and unallocated addresses count in TOTALS. A UDP `connect()` to an undefined port does not count.
#[test]
fn calls_without_a_frontend_are_counted() -> Result<()> {
    let mut stage = Stage::new("totals", &["a"], &ARGUMENTS)?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    for via in Via::ALL {
        ask(&stage, 1, via, 81, 2)?;
        ask(&stage, 9, via, PORT, 3)?;
    }
    assert_eq!(counts(&stage, "COUNTERS")?, Counts::new());
    assert_eq!(counts(&stage, "TOTALS")?, these([("undefined_port", 2 * 3 * 2), ("unallocated", 3 * 3 * 3)]));
    Ok(())
}

/// Drops are counted for clients whose namespace is unknown or not admitted, and for bound sockets whose address is not
/// admitted.
#[test]
fn clients_outside_the_source_ranges_are_counted() -> Result<()> {
    let mut stage = Stage::new("kept-out", &["a"], &ARGUMENTS)?;
    let ranges = json!({"loadBalancerSourceRanges": ["203.0.113.0/24"]});
    stage.apply(&[Service::new("web", 1).exposed(1).spec(ranges).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    let address = load_balancer_ip(1).at(Via::V4, PORT);
    for _ in 0..4 {
        assert_eq!(who(&process, Transport::Tcp, address), dropped());
    }
    let socket = process.open_for(address, Protocol::Tcp)?;
    socket.bind(Both::of(&stage.client).at(Via::V4, 0))?;
    assert_eq!(socket.connect(address), dropped());
    let totals = events(&stage)?;
    assert!(totals.keys().all(|name| name == "unknown_namespace" || name == "not_admitted"), "{totals:?}");
    assert_eq!(totals.values().sum::<u64>(), 5, "{totals:?}");
    assert_eq!(counts(&stage, "COUNTERS")?, these([("dropped", 5)]));
    Ok(())
}

/// The counter `affinity_clients` includes sessions that later sessions displaced.
#[test]
fn new_sessions_are_counted() -> Result<()> {
    let mut stage = Stage::new("sessions", &["a"], &[&ARGUMENTS[..], &["--max-affinity-clients", "16"]].concat())?;
    let ports = (8000..8020).map(Listen::tcp);
    stage.apply(&[Service::new("web", 1).ports(ports).sticky(600).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    for port in 8000..8020 {
        who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, port))?;
    }
    // Further connections of a session succeed and do not count.
    for _ in 0..5 {
        who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, 8019))?;
    }
    assert_eq!(events(&stage)?, these([("affinity_clients", 20)]));
    let used = used(&stage)?;
    let frontends = u64::try_from(stage.agent.services()?.len())?;
    assert_eq!(used.get("SERVICES"), Some(&frontends), "{used:?}");
    for map in ["FRONTENDS_V4", "FRONTENDS_V6", "ENDPOINTS_V4", "ENDPOINTS_V6", "MEMBERS", "SOURCE_RANGES_V4", "AFFINITY"] {
        assert_eq!(used.get(map), Some(&entries(&stage, map)?), "{map}: {used:?}");
    }
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, 81)), refused(Transport::Tcp));
    Ok(())
}
