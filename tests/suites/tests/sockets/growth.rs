//! The agent makes larger maps when the Services need them. Clients are served without interruption, and keep their backends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use portmap_common::capacity::FIRST_SERVICES;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, who};
use serde_json::{Value, json};

/// Services without endpoints, each with one frontend, so many that the first maps have too little room.
fn many(count: u32) -> Vec<Value> {
    let service = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("many-{number}")},
            "spec": {"clusterIP": format!("10.98.{high}.{low}"), "ports": [{"port": PORT}]},
        })
    };
    (0..count).map(service).collect()
}

/// The capacity of SERVICES, and its number of used entries.
fn services(agent: &Agent) -> Result<(u64, u64)> {
    let output = agent.portmap(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).context("`portmap status` printed no JSON")?;
    let maps = status["maps"].as_array().context("`portmap status` lists no maps")?;
    let map = maps.iter().find(|map| map["name"] == "SERVICES").context("`portmap status` does not list SERVICES")?;
    Ok((map["capacity"].as_u64().unwrap_or_default(), map["used"].as_u64().unwrap_or_default()))
}

#[test]
fn larger_maps_take_over_without_interruption() -> Result<()> {
    let mut stage = Stage::new("growth", &["a", "b", "c"], &[])?;
    let web = [
        Service::new("web", 1).endpoints(endpoints(&stage.pods)),
        Service::new("sticky", 2).endpoints(endpoints(&stage.pods)).sticky(10_800),
    ];
    stage.apply(&web)?;
    let process = stage.process()?;
    let sticky = cluster_ip(2).at(Via::V4, PORT);
    let first = who(&process, Transport::Tcp, sticky);
    let open = Via::ALL.iter().flat_map(|via| [Protocol::Tcp, Protocol::Udp].map(|protocol| (*via, protocol)));
    let open = open.map(|(via, protocol)| Ok((via, process.connected(cluster_ip(1).at(via, PORT), protocol)?)));
    let open = open.collect::<Result<Vec<_>>>()?;
    assert_eq!(services(&stage.agent)?.0, u64::from(FIRST_SERVICES));

    let client = stage.process()?;
    let is_over = &AtomicBool::new(false);
    let connections = thread::scope(|scope| -> Result<u32> {
        let requests = scope.spawn(move || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                for transport in Transport::ALL {
                    who(&client, transport, cluster_ip(1).at(Via::V6, PORT))
                        .map_err(|error| anyhow!("{transport:?}: {error:?}"))?;
                    count += 1;
                }
            }
            anyhow::Ok(count)
        });
        let applied = stage.apply_with(many(FIRST_SERVICES), &web);
        is_over.store(true, Ordering::Relaxed);
        applied?;
        requests.join().map_err(|_| anyhow!("the client crashed"))?
    })?;
    ensure!(connections > 10, "only {connections} connections");
    let (capacity, used) = services(&stage.agent)?;
    assert_eq!((capacity, used > u64::from(FIRST_SERVICES)), (u64::from(FIRST_SERVICES) * 4, true));
    let frontends: BTreeSet<String> = stage.agent.services()?.iter().map(|row| row["frontend"].to_string()).collect();
    assert!(frontends.len() > many(FIRST_SERVICES).len());

    for (via, socket) in &open {
        assert_eq!(socket.peer(), Ok(cluster_ip(1).at(*via, PORT)));
        socket.ask()?;
    }
    for _ in 0..20 {
        assert_eq!(who(&process, Transport::Tcp, sticky), first, "the session of a client");
    }

    // The next agent keeps the larger maps, and writes nothing.
    stage.agent.stop(Signal::SIGTERM)?;
    stage.agent = Agent::start(&stage.world, &[])?;
    assert_eq!(services(&stage.agent)?.0, capacity);
    assert_eq!(who(&process, Transport::Tcp, sticky), first, "the session after a restart");
    Ok(())
}

#[test]
fn maps_grow_to_the_limit_only() -> Result<()> {
    let limit = FIRST_SERVICES + 100;
    let mut stage = Stage::new("limit", &["a"], &["--max-services", &limit.to_string()])?;
    let web = [Service::new("web", 1).endpoints(endpoints(&stage.pods))];
    stage.apply(&web)?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": many(FIRST_SERVICES + 200)});
    Agent::write(&stage.world, "many.json", &list.to_string())?;
    let full = (u64::from(limit), u64::from(limit));
    stage.agent.wait_until("the maps are full", |agent| Ok(services(agent)? == full))?;
    stage.agent.wait_until("`portmap status` says so", |agent| {
        let output = agent.portmap(&["status"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.code() == Some(1) && text.contains("frontends are left out") && text.contains("--max-services"))
    })
}
