//! The end of a trace, and other agents and tracers meanwhile.

use std::io;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use nix::sys::signal::Signal;
use portmap::maps::bpf::open;
use portmap::maps::pin::Pins;
use portmap_common::ABI_VERSION;
use portmap_common::trace::Tracing;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, eventually, reach};
use portmap_suites::tracer::{Tracer, expect};

/// More events than TRACE has room for.
const MANY: u32 = 10_000;

/// Enough lines to fill a pipe.
const UNREAD: u32 = 2_000;

fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    Ok(stage)
}

/// The time until which programs write events; 0 without a tracer.
pub fn until(stage: &Stage) -> Result<u64> {
    let map = Map::Array(open(&Pins::of_version(stage.world.bpffs(), ABI_VERSION), "TRACING")?);
    Ok(Array::<MapData, Tracing>::try_from(map)?.get(&0, 0)?.until)
}

#[test]
fn a_signal_ends_the_trace() -> Result<()> {
    let stage = stage("trace-signal")?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let tracer = Tracer::start(&stage.world, &[])?;
        ensure!(until(&stage)? > 0, "the programs should write events");
        tracer.signal(signal)?;
        let (status, _) = tracer.end()?;
        ensure!(status.success(), "{signal}: {status}");
        assert_eq!(until(&stage)?, 0, "{signal}");
    }
    Ok(())
}

/// The reader of the lines keeps the pipe open and does not read, as a pager does.
#[test]
fn a_signal_ends_a_trace_that_waits_for_its_reader() -> Result<()> {
    let stage = stage("trace-unread")?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (_reader, writer) = io::pipe()?;
        let mut tracer = Tracer::start_into(&stage.world, &[], writer)?;
        // Their lines are longer than the pipe.
        stage.client.connect(cluster_ip(2).at(Via::V4, PORT), Protocol::Tcp, UNREAD)?;
        eventually("the tracer waits for its reader", || Ok(tracer.waits_for_reader()?.then_some(())))?;
        tracer.signal(signal)?;
        let status = eventually("the tracer has ended", || tracer.status())?;
        ensure!(status.success(), "{signal}: {status}");
        assert_eq!(until(&stage)?, 0, "{signal}");
    }
    Ok(())
}

/// The programs stop by themselves, at a call some seconds after the last sign of the tracer.
#[test]
fn the_programs_end_the_trace_of_a_killed_tracer() -> Result<()> {
    let stage = stage("trace-killed")?;
    let tracer = Tracer::start(&stage.world, &[])?;
    tracer.signal(Signal::SIGKILL)?;
    tracer.end()?;
    let process = stage.process()?;
    eventually("the programs have ended the trace", || {
        reach(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
        Ok((until(&stage)? == 0).then_some(()))
    })?;
    // The next tracer does not print the events that nobody has read.
    let next = Tracer::start(&stage.world, &[])?;
    let later = stage.process()?;
    reach(&later, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
    expect(&next.next()?, &[("process", later.id().into())])
}

#[test]
fn a_second_tracer_is_refused() -> Result<()> {
    let stage = stage("trace-twice")?;
    let _tracer = Tracer::start(&stage.world, &[])?;
    let output = stage.agent.portmap(&["trace"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && message.contains("another portmap trace is running"), "{message}");
    Ok(())
}

#[test]
fn a_trace_goes_on_with_another_agent_and_other_maps() -> Result<()> {
    let mut stage = stage("trace-takeover")?;
    let tracer = Tracer::start(&stage.world, &[])?;
    let process = stage.process()?;
    for arguments in [&["--max-services", "1000"][..], &[]] {
        stage.agent.stop(Signal::SIGTERM)?;
        stage.agent = Agent::start(&stage.world, arguments)?;
        reach(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
        expect(&tracer.next()?, &[("process", process.id().into()), ("service", "default/web".into())])?;
    }
    Ok(())
}

#[test]
fn lost_events_are_counted() -> Result<()> {
    let stage = stage("trace-lost")?;
    let tracer = Tracer::start(&stage.world, &[])?;
    tracer.signal(Signal::SIGSTOP)?;
    let answers = stage.client.connect(cluster_ip(2).at(Via::V4, PORT), Protocol::Tcp, MANY)?;
    ensure!(answers.errors.values().sum::<u32>() == MANY, "{answers}");
    tracer.signal(Signal::SIGCONT)?;
    let message = tracer.message()?;
    let lost = message.split_whitespace().find_map(|word| word.parse::<u32>().ok()).with_context(|| message.clone())?;
    ensure!(message.starts_with("warning: ") && (1..MANY).contains(&lost), "{message}");
    for _ in 0..MANY - lost {
        expect(&tracer.next()?, &[("result", "refused".into())])?;
    }
    Ok(())
}
