//! Lines for system calls on the node.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::process::Process;
use portmap_harness::world::{Group, program};
use portmap_suites::service_objects::{Both, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, reach};
use portmap_suites::tracer::{Tracer, expect};
use serde_json::{Value, json};

/// The UID of the pod in whose cgroup a client runs, and the names that the kubelet would give it.
const UID: &str = "0b9ff50d-5a12-4c8e-8d6a-6a1f2c9f8a11";
const CGROUP: &str = "kubepods.slice/kubepods-pod0b9ff50d_5a12_4c8e_8d6a_6a1f2c9f8a11.slice";

/// A Service `web` with the endpoint `a`, and `empty` without endpoints.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &["--service-cidr", "10.96.0.0/16"])?;
    stage.apply(&services(&stage))?;
    Ok(stage)
}

/// A Service with all pods of the stage, and one without endpoints.
pub fn services(stage: &Stage) -> [Service; 2] {
    [Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)]
}

/// The backend of `web`, as text.
fn backend(stage: &Stage, via: Via) -> Value {
    stage.pods.first().map(|pod| Both::of(pod).at(via, TARGET_PORT).to_string()).into()
}

#[test]
fn a_call_has_its_process_service_and_backend() -> Result<()> {
    let stage = stage("trace-calls")?;
    let tracer = Tracer::start(&stage.world, &[])?;
    let process = stage.process()?;
    for via in [Via::V4, Via::V6, Via::Mapped] {
        let family = if via == Via::Mapped { Via::V4 } else { via };
        let frontend = cluster_ip(1).at(via, PORT);
        for (transport, call) in
            [(Transport::Tcp, "connect"), (Transport::UdpConnected, "connect"), (Transport::UdpUnconnected, "sendmsg")]
        {
            reach(&process, transport, frontend)?;
            let protocol = transport.protocol();
            let asked = format!("{}/{protocol}", cluster_ip(1).at(family, PORT));
            expect(
                &tracer.next()?,
                &[
                    ("call", call.into()),
                    ("process", process.id().into()),
                    ("command", "portmap-pod".into()),
                    ("frontend", asked.into()),
                    ("service", "default/web".into()),
                    ("port", protocol.to_string().to_lowercase().into()),
                    ("result", "forwarded".into()),
                    ("backend", backend(&stage, family)),
                    ("pod", Value::Null),
                    ("client", Value::Null),
                ],
            )?;
        }
    }
    Ok(())
}

#[test]
fn only_the_first_datagram_to_a_backend_has_a_line() -> Result<()> {
    let stage = stage("trace-datagrams")?;
    let tracer = Tracer::start(&stage.world, &["--count", "2"])?;
    let process = stage.process()?;
    let frontend = cluster_ip(1).at(Via::V4, PORT);
    for _ in 0..2 {
        let socket = process.open_for(frontend, Transport::UdpUnconnected.protocol())?;
        for _ in 0..3 {
            socket.ask_at(frontend)?;
        }
        expect(&tracer.next()?, &[("call", "sendmsg".into()), ("backend", backend(&stage, Via::V4))])?;
    }
    let (status, rest) = tracer.end()?;
    ensure!(status.success() && rest.is_empty(), "{status}: {rest}");
    Ok(())
}

#[test]
fn failures_have_their_reason() -> Result<()> {
    let stage = stage("trace-failures")?;
    let tracer = Tracer::start(&stage.world, &["--refused"])?;
    let process = stage.process()?;
    let cases = [
        (1, PORT, None, Value::Null),
        (2, PORT, Some("refused"), "default/empty".into()),
        (1, 81, Some("no-such-port"), "default/web".into()),
        (99, PORT, Some("no-service"), Value::Null),
    ];
    for (number, port, result, service) in cases {
        let asked = cluster_ip(number).at(Via::V4, port);
        let outcome = reach(&process, Transport::Tcp, asked);
        let Some(result) = result else {
            outcome?;
            continue;
        };
        ensure!(outcome.is_err(), "{asked} should be refused or dropped");
        let asked = format!("{asked}/TCP");
        let port = if result == "refused" { "tcp" } else { "" };
        let expected = [
            ("frontend", asked.into()),
            ("service", service),
            ("port", port.into()),
            ("result", result.into()),
            ("backend", Value::Null),
        ];
        expect(&tracer.next()?, &expected)?;
    }
    Ok(())
}

#[test]
fn a_pod_is_known_by_the_cgroup_of_its_process() -> Result<()> {
    let stage = stage("trace-pod")?;
    let logs = stage.world.directory().join("logs");
    let pod_logs = ["--pod-logs", &logs.display().to_string()].map(str::to_owned);
    let pod_logs: Vec<&str> = pod_logs.iter().map(String::as_str).collect();
    let frontend = cluster_ip(1).at(Via::V4, PORT);
    let process = process_in(&stage, CGROUP)?;
    let by_uid = Tracer::start(&stage.world, &[&pod_logs[..], &["--count", "1"]].concat())?;
    reach(&process, Transport::Tcp, frontend)?;
    expect(&by_uid.next()?, &[("pod", Value::Null), ("podUid", UID.into())])?;
    by_uid.end()?;
    fs::create_dir_all(logs.join(format!("shop_client-1_{UID}")))?;
    for name in ["client-1", "shop/client-1", UID] {
        let by_name = Tracer::start(&stage.world, &[&pod_logs[..], &["--pod", name, "--count", "1"]].concat())?;
        reach(&stage.process()?, Transport::Tcp, frontend)?;
        reach(&process, Transport::Tcp, frontend)?;
        expect(
            &by_name.next()?,
            &[("pod", "shop/client-1".into()), ("podUid", Value::Null), ("process", process.id().into())],
        )?;
        by_name.end()?;
    }
    Ok(())
}

/// The Pod of the endpoint `a`, in the namespace of its Service.
pub fn pod_of(stage: &Stage) -> Value {
    let addresses: Vec<Value> = Both::of(&stage.pods[0]).texts().map(|ip| json!({"ip": ip})).into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1"}, "status": {"podIPs": addresses}})
}

#[test]
fn a_backend_has_the_name_of_its_pod() -> Result<()> {
    let mut stage = stage("trace-backend")?;
    let manifests = Agent::manifests(&stage.world).display().to_string();
    let process = stage.process()?;
    let frontend = cluster_ip(1).at(Via::V4, PORT);
    let backend = backend(&stage, Via::V4);
    let tracer = Tracer::start(&stage.world, &["--manifests", &manifests, "--count", "1"])?;
    reach(&process, Transport::Tcp, frontend)?;
    expect(&tracer.next()?, &[("backend", backend.clone()), ("backendPod", Value::Null)])?;
    let (pod, services) = (pod_of(&stage), services(&stage));
    stage.apply_with(vec![pod], &services)?;
    let tracer = Tracer::start(&stage.world, &["--manifests", &manifests, "--count", "1"])?;
    reach(&process, Transport::Tcp, frontend)?;
    expect(&tracer.next()?, &[("backend", backend.clone()), ("backendPod", "default/web-1".into())])?;
    let tracer = Tracer::start_plain(&stage.world, &["--manifests", &manifests, "--count", "1"])?;
    reach(&process, Transport::Tcp, frontend)?;
    let (_, text) = tracer.end()?;
    let shown = format!("  p/default/web-1:{TARGET_PORT} ({})\n", backend.as_str().unwrap_or_default());
    ensure!(text.ends_with(&shown), "{text:?} should end with {shown:?}");
    Ok(())
}

/// Names are a help: without their source, the lines have addresses, and a warning says why.
#[test]
fn a_missing_source_of_names_is_a_warning() -> Result<()> {
    let stage = stage("trace-no-names")?;
    let tracer = Tracer::start(&stage.world, &["--manifests", "/absent", "--count", "2"])?;
    let process = stage.process()?;
    for _ in 0..2 {
        reach(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
        expect(&tracer.next()?, &[("backend", backend(&stage, Via::V4)), ("backendPod", Value::Null)])?;
    }
    let warning = tracer.message()?;
    ensure!(warning.contains("the pods of backends are not named: failed to read /absent"), "{warning}");
    ensure!(tracer.message().is_err(), "the warning should be printed once");
    Ok(())
}

#[test]
fn filters_select_services_and_processes() -> Result<()> {
    let stage = stage("trace-filters")?;
    let (one, other) = (stage.process()?, stage.process()?);
    let (web, empty) = (cluster_ip(1).at(Via::V4, PORT), cluster_ip(2).at(Via::V4, PORT));
    let of_service = Tracer::start(&stage.world, &["--service", "empty.default", "--count", "1"])?;
    reach(&one, Transport::Tcp, web)?;
    ensure!(reach(&one, Transport::Tcp, empty).is_err(), "a Service without endpoints should refuse");
    expect(&of_service.next()?, &[("service", "default/empty".into())])?;
    of_service.end()?;
    let of_process = Tracer::start(&stage.world, &["--pid", &other.id().to_string(), "--count", "1"])?;
    reach(&one, Transport::Tcp, web)?;
    reach(&other, Transport::Tcp, web)?;
    expect(&of_process.next()?, &[("process", other.id().into())])?;
    Ok(())
}

#[test]
fn text_is_one_line_for_each_connection() -> Result<()> {
    let stage = stage("trace-text")?;
    let tracer = Tracer::start_plain(&stage.world, &["--count", "2"])?;
    let process = stage.process()?;
    reach(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
    ensure!(
        reach(&process, Transport::Tcp, cluster_ip(2).at(Via::V4, PORT)).is_err(),
        "a Service without endpoints should refuse"
    );
    let client = format!("portmap-pod[{}]", process.id());
    let backend = backend(&stage, Via::V4);
    let (_, text) = tracer.end()?;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().skip(1).collect()).collect();
    let expected = [
        format!("{client} 10.96.0.1:80/TCP s/default/web:tcp {}", backend.as_str().unwrap_or_default()),
        format!("{client} 10.96.0.2:80/TCP s/default/empty:tcp refused: no endpoint can be used"),
    ];
    assert_eq!(lines.iter().map(|line| line.join(" ")).collect::<Vec<_>>(), expected, "{text}");
    Ok(())
}

/// Starts a client process in the client's pod, in a cgroup below the one that portmap is attached to.
fn process_in(stage: &Stage, cgroup: &str) -> Result<Process> {
    let directory: PathBuf = stage.world.cgroup(Group::Clients).join(cgroup);
    fs::create_dir_all(&directory)?;
    let mut command = stage.client.command("sh");
    command
        .args(["-c", "echo $$ > \"$0\" && exec \"$1\" \"$2\""])
        .arg(directory.join("cgroup.procs"))
        .arg(program::find("portmap-pod")?);
    Process::start(command)
}

/// JSON lines are complete objects: the fields of a forwarded call.
#[test]
fn json_has_documented_fields() -> Result<()> {
    let stage = stage("trace-json")?;
    let tracer = Tracer::start(&stage.world, &[])?;
    let process = stage.process()?;
    reach(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT))?;
    let line = tracer.next()?;
    let fields: Vec<&String> = line.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(
        json!(fields),
        json!(["backend", "call", "command", "frontend", "port", "process", "result", "service", "time"])
    );
    Ok(())
}
