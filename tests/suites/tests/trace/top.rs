//! `portmap top --once`: rates of connections, and the part of each backend.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_harness::world::program;
use portmap_suites::service_objects::{Both, PORT, TARGET_PORT, Via, cluster_ip};
use portmap_suites::service_stage::{Stage, eventually};
use portmap_suites::tracer::Tracer;
use serde_json::Value;

use crate::calls::{pod_of, services};
use crate::end::until;

/// The connections to each Service while `top` measures.
const COUNT: u32 = 40;

/// The seconds for which `top` measures.
const SECONDS: u32 = 4;

fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    stage.apply(&services(&stage))?;
    Ok(stage)
}

fn start(stage: &Stage, arguments: &[&str]) -> Result<Child> {
    let mut command = stage.world.command(program::find("portmap")?);
    command.args(["top", "--once", "-o", "json", "--interval", &SECONDS.to_string()]).arg("--bpffs").arg(stage.world.bpffs());
    command.args(arguments).stdout(Stdio::piped()).spawn().context("failed to run portmap")
}

/// The row of a Service port. Waits for the end of the command.
fn row(top: Child, service: &str, port: &str) -> Result<Value> {
    let output = top.wait_with_output()?;
    ensure!(output.status.success(), "portmap top ended with {}", output.status);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    rows.into_iter().find(|row| row["service"] == service && row["port"] == port).context("there is no such row")
}

fn number(row: &Value, field: &str) -> Result<f64> {
    row[field].as_f64().with_context(|| format!("{field} is no number: {row}"))
}

#[test]
fn rates_and_shares_are_those_of_the_connections() -> Result<()> {
    let mut stage = stage("top-rates")?;
    let pod = pod_of(&stage);
    stage.apply_with(vec![pod], &services(&stage))?;
    let manifests = Agent::manifests(&stage.world).display().to_string();
    let top = start(&stage, &["--manifests", &manifests])?;
    eventually("portmap top collects events", || Ok((until(&stage)? > 0).then_some(())))?;
    for number in [1, 2] {
        stage.client.connect(cluster_ip(number).at(Via::V4, PORT), Protocol::Tcp, COUNT)?;
    }
    let row = row(top, "default/web", "tcp")?;
    // The command measures a little longer than it was told to.
    let rate = number(&row, "forwardedPerSecond")?;
    let expected = f64::from(COUNT) / f64::from(SECONDS);
    ensure!(rate > expected * 0.5 && rate <= expected, "{row}");
    assert_eq!((number(&row, "refusedPerSecond")?, number(&row, "droppedPerSecond")?), (0.0, 0.0), "{row}");
    let backends = row["backends"].as_array().context("there are no backends")?;
    let connections: u64 = backends.iter().filter_map(|backend| backend["connections"].as_u64()).sum();
    let shares: f64 = backends.iter().filter_map(|backend| backend["share"].as_f64()).sum();
    assert_eq!((connections, (shares * 1000.0).round()), (COUNT.into(), 1000.0), "{row}");
    let mut names: Vec<&str> = backends.iter().filter_map(|backend| backend["backend"].as_str()).collect();
    names.sort_unstable();
    let pods: Vec<String> = stage.pods.iter().map(|pod| Both::of(pod).at(Via::V4, TARGET_PORT).to_string()).collect();
    assert_eq!(names, pods);
    let is_named = |backend: &Value| backend["backend"] == pods[0].as_str();
    let (first, others): (Vec<&Value>, Vec<&Value>) = backends.iter().partition(|backend| is_named(backend));
    assert!(first.iter().all(|backend| backend["pod"] == "default/web-1"), "{row}");
    assert!(others.iter().all(|backend| backend["pod"].is_null()), "{row}");
    Ok(())
}

#[test]
fn refusals_have_a_rate_also_while_another_process_traces() -> Result<()> {
    let stage = stage("top-refusals")?;
    let tracer = Tracer::start(&stage.world, &["--refused"])?;
    let top = start(&stage, &[])?;
    // The command reads the counters at its start. The connections go on until it has ended.
    let empty = cluster_ip(2).at(Via::V4, PORT);
    let reading = std::thread::spawn(move || row(top, "default/empty", "tcp"));
    while !reading.is_finished() {
        stage.client.connect(empty, Protocol::Tcp, 1)?;
        tracer.next()?;
    }
    let row = reading.join().unwrap_or_else(|_| bail!("the thread panicked"))?;
    ensure!(number(&row, "refusedPerSecond")? > 0.0 && row["backends"] == Value::Array(Vec::new()), "{row}");
    Ok(())
}

#[test]
fn without_a_terminal_the_option_once_is_needed() -> Result<()> {
    let stage = stage("top-terminal")?;
    let output = stage.agent.portmap(&["top"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && message.contains("--once"), "{message}");
    let output = stage.agent.portmap(&["top", "-o", "json"])?;
    assert_eq!(output.status.code(), Some(2), "-o needs --once");
    Ok(())
}
