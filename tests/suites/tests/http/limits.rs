//! The HTTP servers with hostile clients, and the agent with few file descriptors.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use portmap::maps::pin::Pins;
use portmap::maps::{Maps as _, bpf::BpfMaps};
use portmap_harness::agent::Agent;
use portmap_harness::patience::patience;
use portmap_harness::world::World;
use procfs::process::Process;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::{HEALTH, ask, endpoint, local, node, start, write};

/// Number of connections that hostile clients open to one server, all from one address.
const MANY: usize = 300;

/// Time limit for the server to end an idle or unfinished connection.
const END: Duration = Duration::from_secs(20);

/// Opens connections from the node to one of its addresses.
fn connect(world: &World, address: &str, count: usize) -> Result<Vec<TcpStream>> {
    let address: SocketAddr = address.parse()?;
    let connect = || {
        world.enter()?;
        (0..count).map(|_| TcpStream::connect(address).context("failed to connect")).collect()
    };
    thread::scope(|scope| scope.spawn(connect).join().map_err(|_| anyhow!("the thread panicked"))?)
}

fn descriptors(agent: &Agent) -> Result<usize> {
    Ok(Process::new(agent.id().cast_signed())?.fd_count()?)
}

fn ready(world: &World) -> Result<bool> {
    Ok(ask(world, &format!("http://{HEALTH}/readyz"))?.is_some_and(|answer| answer.status == 200))
}

/// Waits until the server ends a connection.
fn await_end(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(patience(END)))?;
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error).context("the connection goes on"),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Sends one byte of a request about every 100 ms. Fails unless the server ends the connection.
fn dawdle(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let until = Instant::now() + patience(END);
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(Instant::now() < until, "the connection goes on");
                // An error means that the connection has ended. The next read shows it too.
                drop(stream.write_all(b"a"));
            }
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

#[test]
fn idle_connections_end_and_block_no_other_client() -> Result<()> {
    let objects = [vec![node(json!({}))], local(31_000, &[endpoint("10.244.0.2", "node", true)]).to_vec()].concat();
    let (world, mut agent) = start("http-idle", &objects)?;
    let check = "http://10.244.0.1:31000/";
    agent.wait_until("the health check is answered", |_| Ok(ask(&world, check)?.is_some()))?;
    let before = descriptors(&agent)?;
    let mut held = connect(&world, HEALTH, MANY)?;
    held.extend(connect(&world, "10.244.0.1:31000", MANY)?);
    for _ in 0..10 {
        assert!(ready(&world)?, "no answer; the agent's log:\n{}", agent.log());
        assert!(ask(&world, check)?.is_some_and(|answer| answer.status == 200), "the agent's log:\n{}", agent.log());
    }
    let taken = descriptors(&agent)?.saturating_sub(before);
    assert!((1..150).contains(&taken), "{taken} descriptors");
    let dawdlers: Vec<_> = connect(&world, HEALTH, 3)?.into_iter().map(|stream| thread::spawn(|| dawdle(stream))).collect();
    held.into_iter().try_for_each(await_end)?;
    for dawdler in dawdlers {
        dawdler.join().map_err(|_| anyhow!("the thread panicked"))??;
    }
    agent.wait_until("the descriptors are free", |agent| Ok(descriptors(agent)? <= before + 2))
}

#[test]
fn unfinished_requests_take_little_memory() -> Result<()> {
    let (world, agent) = start("http-memory", &[node(json!({}))])?;
    let before = agent.usage()?.peak;
    let mut held = connect(&world, HEALTH, MANY)?;
    let line = format!("X-Much: {}\r\n", "a".repeat(1_000));
    for stream in &mut held {
        stream.set_write_timeout(Some(patience(END)))?;
        let request = format!("GET /livez HTTP/1.1\r\n{}", line.repeat(380));
        // An error means that the server has ended the connection.
        drop(stream.write_all(request.as_bytes()));
    }
    held.into_iter().try_for_each(await_end)?;
    let grown = agent.usage()?.peak.saturating_sub(before);
    assert!(grown < 16, "{grown} MiB more");
    assert!(ready(&world)?);
    Ok(())
}

#[test]
fn the_limit_of_descriptors_is_raised() -> Result<()> {
    let world = World::new("http-limit")?;
    write(&world, &[node(json!({}))])?;
    let mut agent = Agent::spawn_limited(&world, "200:4000", &[])?;
    agent.wait_until("the agent is synced", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
    let limits = Process::new(agent.id().cast_signed())?.limits()?;
    assert_eq!(format!("{:?}", limits.max_open_files.soft_limit), format!("{:?}", limits.max_open_files.hard_limit));
    Ok(())
}

/// A Service with this address and a node port, as objects of a manifest.
fn service(address: &str, node_port: u16) -> [Value; 2] {
    let name = format!("web-{node_port}");
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": node_port}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "", "port": 8080}], "endpoints": [endpoint("10.244.0.2", "node", true)],
        }),
    ]
}

/// Arguments that put node ports on all addresses of the node except loopback and link-local IPv6 addresses. A new address then
/// shows in the tables.
const EVERYWHERE: [&str; 4] = ["--healthz-bind-address", HEALTH, "--nodeport-addresses", "all"];

/// Adds an address to the node, and a second Service to the manifests.
fn change(world: &World) -> Result<()> {
    world.ip("addr add 10.244.0.99/24 dev pods")?;
    write(world, &[service("10.96.0.1", 30_001), service("10.96.0.2", 30_002)].concat())
}

/// Waits until these frontends are in the kernel's tables. A node port has one frontend on each address.
fn await_frontends(world: &World, agent: &mut Agent, expected: &[&str]) -> Result<()> {
    for frontend in expected {
        agent.wait_until(frontend, |_| {
            let pins = Pins::new(world.bpffs());
            let found = BpfMaps::open(&pins)?.read()?.frontends;
            Ok(found.iter().any(|(it, _)| it.to_string() == *frontend))
        })?;
    }
    Ok(())
}

/// Waits until the new address and the second Service are in the tables, and the agent is healthy. Fails if the log reports a
/// detached program or a removed object.
fn await_change(world: &World, agent: &mut Agent) -> Result<()> {
    await_frontends(world, agent, &["10.96.0.2:80/TCP", "10.244.0.99:30001/TCP", "10.244.0.99:30002/TCP"])?;
    agent.wait_until("the agent is healthy", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
    for misled in ["detached", "removed", "is gone"] {
        ensure!(!agent.log().contains(misled), "{misled}:\n{}", agent.log());
    }
    Ok(())
}

/// The limit of file descriptors falls below the number of open ones, so that the agent cannot open any.
#[test]
fn a_lack_of_descriptors_loses_no_change() -> Result<()> {
    let world = World::new("http-lack")?;
    write(&world, &service("10.96.0.1", 30_001))?;
    let mut agent = Agent::start(&world, &EVERYWHERE)?;
    await_frontends(&world, &mut agent, &["10.244.0.1:30001/TCP"])?;
    let process = Pid::from_raw(agent.id().cast_signed());
    let limit = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
    let before = prlimit(process, Resource::Nofile, limit)?;
    change(&world)?;
    agent.wait_until("several tries have failed", |agent| Ok(agent.log().contains("more shortages were not logged")))?;
    ensure!(agent.log().contains("Too many open files"), "{}", agent.log());
    prlimit(process, Resource::Nofile, before)?;
    await_change(&world, &mut agent)?;
    ensure!(ready(&world)?, "{}", agent.log());
    Ok(())
}

/// The servers accept fewer connections if few descriptors are left. The agent's own work is not affected.
#[test]
fn connections_leave_descriptors_to_the_agent() -> Result<()> {
    let world = World::new("http-reserve")?;
    write(&world, &service("10.96.0.1", 30_001))?;
    let mut agent = Agent::spawn_limited(&world, "160:160", &EVERYWHERE)?;
    agent.wait_until("the agent is synced", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
    await_frontends(&world, &mut agent, &["10.244.0.1:30001/TCP"])?;
    let _held = connect(&world, HEALTH, MANY)?;
    ensure!(ready(&world)?, "{}", agent.log());
    change(&world)?;
    await_change(&world, &mut agent)?;
    ensure!(!agent.log().contains("Too many open files"), "{}", agent.log());
    ensure!(ready(&world)?, "{}", agent.log());
    Ok(())
}

/// The kubelet's probes succeed with the arguments of the agent in `deploy/portmap.yaml`.
#[test]
fn the_probes_of_the_daemon_set_are_answered() -> Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(include_str!("../../../../deploy/portmap.yaml"))?;
    let daemon_set = documents.iter().find(|document| document["kind"] == "DaemonSet").context("no DaemonSet")?;
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let world = World::new("http-probes")?;
    // Another program, such as kube-proxy, listens on the default port of the health server.
    let mut other = world.command("python3").args(["-m", "http.server", "10256"]).spawn()?;
    let everybody = format!("http://{}:10256/healthz", world.ipv4());
    let until = Instant::now() + patience(END);
    while ask(&world, &everybody)?.is_none() {
        ensure!(Instant::now() < until, "the other server does not answer");
    }
    write(&world, &[node(json!({}))])?;
    let mut agent = Agent::start(&world, &arguments.skip(1).collect::<Vec<_>>())?;
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        let asked = &container[probe]["httpGet"];
        ensure!(asked["path"] == path, "the {probe} asks {asked}");
        let url = format!("http://{}:{}{path}", asked["host"].as_str().context("a host")?, asked["port"]);
        agent.wait_until(&url, |_| Ok(ask(&world, &url)?.is_some_and(|answer| answer.status == 200)))?;
    }
    other.kill()?;
    other.wait()?;
    agent.wait_until(&everybody, |_| Ok(ask(&world, &everybody)?.is_some_and(|answer| answer.status == 200)))
}

#[test]
fn both_families_are_served_with_bindv6only() -> Result<()> {
    let world = World::new("http-v6only")?;
    let set = world.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv6/bindv6only"]).status()?;
    ensure!(set.success(), "failed to set net.ipv6.bindv6only");
    write(&world, &[vec![node(json!({}))], local(31_000, &[endpoint("10.244.0.2", "node", true)]).to_vec()].concat())?;
    let mut agent = Agent::start(&world, &["--healthz-bind-address", "[::]:10256"])?;
    for address in ["127.0.0.1", "10.244.0.1", "[::1]", "[fd00:10:244::1]"] {
        for path in ["31000/", "10256/healthz", "10256/livez", "10256/readyz"] {
            let url = format!("http://{address}:{path}");
            agent.wait_until(&url, |_| Ok(ask(&world, &url)?.is_some_and(|answer| answer.status == 200)))?;
        }
    }
    Ok(())
}
