//! Very large Services in files: bounded time and memory, and no effect on other Services.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::world::World;
use portmap_suites::command::{self, Outcome};
use serde_json::{Value, json};
use tempfile::TempDir;

const PORTS: u32 = 5_000;
const ENDPOINTS: u32 = 100_000;

/// Number of endpoints in a slice. The API server accepts at most this number.
const SLICE: u32 = 1000;

/// Limit of the address space of `portmap resolve`: 512 MiB. The largest input has about 3 MB of text.
const MEMORY: &str = "--as=536870912";

fn service(name: &str, address: &str, ports: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": address, "ports": ports}})
}

fn slice(service: &str, number: u32, ports: &[Value], addresses: impl Iterator<Item = String>) -> Value {
    let endpoints: Vec<Value> = addresses.map(|address| json!({"addresses": [address]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-{number}"), "labels": {"kubernetes.io/service-name": service}},
        "ports": ports, "endpoints": endpoints,
    })
}

fn many_ports() -> Vec<Value> {
    let ports = |number: &dyn Fn(u32) -> u32| -> Vec<Value> {
        (1..=PORTS).map(|port| json!({"name": format!("port-{port}"), "port": number(port)})).collect()
    };
    let one = ["10.1.0.1".to_owned()].into_iter();
    vec![service("many-ports", "10.96.0.10", &ports(&|port| port)), slice("many-ports", 0, &ports(&|_| 8080), one)]
}

fn many_endpoints() -> Vec<Value> {
    let address = |number: u32| format!("10.{}.{}.{}", 64 + number / 65_536, number / 256 % 256, number % 256);
    let slices = (0..ENDPOINTS / SLICE).map(|number| {
        let addresses = (number * SLICE..(number + 1) * SLICE).map(address);
        slice("many-endpoints", number, &[json!({"name": "", "port": 8080})], addresses)
    });
    [service("many-endpoints", "10.96.0.11", &[json!({"port": 80})])].into_iter().chain(slices).collect()
}

/// A small Service with one endpoint, at the address `target`.
fn web(target: &str) -> Vec<Value> {
    let port = [json!({"name": "", "port": 8080})];
    vec![service("web", "10.96.0.12", &[json!({"port": 80})]), slice("web", 0, &port, [target.to_owned()].into_iter())]
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Resolves objects with a memory limit and the time limit of all commands.
fn resolve(objects: &[Value]) -> Result<Outcome> {
    let directory = TempDir::new()?;
    let file = directory.path().join("objects.json");
    fs::write(&file, list(objects))?;
    let mut command = Command::new("prlimit");
    command.args([MEMORY, "--", "timeout"]);
    let mut command = command::in_time(command)?;
    command::finish(command.args(["resolve", "-o", "json", "--node-name", "node", "--manifests"]).arg(&file))
}

fn rows(outcome: &Outcome) -> Result<Vec<Value>> {
    serde_json::from_str(&outcome.stdout).context("failed to read the output of portmap resolve")
}

#[test]
fn large_services_are_resolved_in_bounded_time_and_memory() -> Result<()> {
    let ports = resolve(&many_ports())?.expect(0)?;
    ensure!(rows(&ports)?.len() == PORTS as usize && ports.stderr.is_empty(), "{}", ports.stderr);
    let endpoints = resolve(&many_endpoints())?.expect(0)?;
    let rows = rows(&endpoints)?;
    let backends = rows[0]["backends"].as_array().map_or(0, Vec::len);
    ensure!(rows.len() == 1 && backends == ENDPOINTS as usize && endpoints.stderr.is_empty(), "{}", endpoints.stderr);
    Ok(())
}

#[test]
fn large_services_are_served_beside_small_ones() -> Result<()> {
    let world = World::new("large")?;
    for (file, objects) in [("ports.json", many_ports()), ("endpoints.json", many_endpoints()), ("web.json", web("10.2.0.1"))] {
        Agent::write(&world, file, &list(&objects))?;
    }
    let mut agent = Agent::start(&world, &["--max-backends", "200000"])?;
    let rows = agent.services()?;
    ensure!(rows.len() == PORTS as usize + 2, "{} frontends", rows.len());
    ensure!(rows.iter().any(|row| row["backends"].as_array().is_some_and(|all| all.len() == ENDPOINTS as usize)));
    agent.await_backends("10.96.0.12:80/TCP", &["10.2.0.1:8080"])?;

    Agent::write(&world, "web.json", &list(&web("10.2.0.2")))?;
    agent.await_backends("10.96.0.12:80/TCP", &["10.2.0.2:8080"])?;
    ensure!(!agent.log().contains(" ERROR "), "{}", agent.log());
    Ok(())
}

/// The Service that does not fit is left out and named once.
#[test]
fn a_service_that_does_not_fit_affects_no_other() -> Result<()> {
    let world = World::new("too-large")?;
    Agent::write(&world, "endpoints.json", &list(&many_endpoints()))?;
    Agent::write(&world, "web.json", &list(&web("10.2.0.1")))?;
    let mut agent = Agent::spawn(&world, &["--max-backends", "1000"])?;
    agent.wait_until("the Service is named", |agent| Ok(agent.log().contains("Service default/many-endpoints: ")))?;
    agent.await_backends("10.96.0.12:80/TCP", &["10.2.0.1:8080"])?;
    let log = agent.log();
    ensure!(log.contains("10.96.0.11:80/TCP is left out") && log.contains("--max-backends"), "{log}");

    Agent::write(&world, "web.json", &list(&web("10.2.0.2")))?;
    agent.await_backends("10.96.0.12:80/TCP", &["10.2.0.2:8080"])?;
    ensure!(agent.log().matches("10.96.0.11:80/TCP is left out").count() == 1, "{}", agent.log());
    Ok(())
}
