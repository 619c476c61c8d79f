//! The environment of a test: a simulated node ([`World`]) with pods, a client and an agent. Tests change the agent's
//! manifests.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::kernel::Features;
use portmap_harness::listen::Protocol;
use portmap_harness::patience::patience;
use portmap_harness::process::{Failure, Met, Process};
use portmap_harness::world::{Pod, World};
use serde_json::{Value, json};

use crate::service_objects::{LISTENS, Service, marker};

/// The time limit for reactions of the agent, before scaling by [`patience`].
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The environment of a test. Dropping it removes everything; the fields are dropped in this order.
pub struct Stage {
    /// The agent, which reads the manifests that [`Self::apply`] writes.
    pub agent: Agent,
    /// The pod without a server, in which [`Self::process`] starts clients.
    pub client: Pod,
    /// The pods with servers, in the order in which [`Self::new`] got their names.
    pub pods: Vec<Pod>,
    /// The simulated node of the agent and all pods.
    pub world: World,
    /// The labels of the marker: a Service that every change adds, so that a test can wait until the change is in the maps.
    pub mark_labels: Value,
    /// Objects of the manifests other than Services.
    objects: Vec<Value>,
    changes: u16,
}

impl Stage {
    /// Creates a node with a serving pod for each name. Starts an agent with these arguments and without Services.
    pub fn new(name: &str, pods: &[&str], arguments: &[&str]) -> Result<Self> {
        Self::in_world(World::new(name)?, pods, arguments, Vec::new())
    }

    /// As [`Self::new`], on an existing node. `objects` are in the manifests beside the Services.
    pub fn in_world(world: World, pods: &[&str], arguments: &[&str], objects: Vec<Value>) -> Result<Self> {
        let pods = pods.iter().map(|name| serving(&world, name)).collect::<Result<Vec<_>>>()?;
        let client = world.client("client")?;
        write(&world, &objects)?;
        let agent = Agent::start(&world, arguments)?;
        Ok(Self { agent, client, pods, world, mark_labels: json!({}), objects, changes: 0 })
    }

    /// Replaces all Services, and returns when all maps have the change. Writes them twice: [`marker`] says why.
    pub fn apply(&mut self, services: &[Service]) -> Result<()> {
        for _ in 0..2 {
            self.changes += 1;
            let mark = self.write(services)?;
            self.agent.wait_until(&format!("{mark} is in the tables"), |agent| {
                Ok(agent.services()?.iter().any(|row| row["frontend"] == mark))
            })?;
        }
        Ok(())
    }

    /// As [`Self::apply`], and also replaces the objects other than Services.
    pub fn apply_with(&mut self, objects: Vec<Value>, services: &[Service]) -> Result<()> {
        self.objects = objects;
        self.apply(services)
    }

    /// Writes the Services as [`Self::apply`] does, but does not wait: for tests without a running agent.
    pub fn write_only(&mut self, services: &[Service]) -> Result<()> {
        self.changes += 1;
        self.write(services).map(drop)
    }

    /// Writes the Services and a marker Service without waiting. Returns the frontend of the marker.
    fn write(&self, services: &[Service]) -> Result<String> {
        let (mark, frontend) = marker(self.changes, &self.mark_labels);
        let mut objects = self.objects.clone();
        objects.extend(services.iter().flat_map(Service::objects));
        objects.push(mark);
        write(&self.world, &objects)?;
        Ok(frontend)
    }

    /// Starts a client process in the client's pod, in the cgroup that portmap is attached to.
    pub fn process(&self) -> Result<Process> {
        Process::in_pod(&self.client)
    }
}

/// Creates a pod that listens on [`LISTENS`].
pub fn serving(world: &World, name: &str) -> Result<Pod> {
    let mut pod = world.pod(name)?;
    pod.serve(&LISTENS)?;
    Ok(pod)
}

fn write(world: &World, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Agent::write(world, "objects.json", &list.to_string())
}

/// The system calls by which a client sends to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `connect()`
    Tcp,
    /// `connect()`, then `send()`
    UdpConnected,
    /// `sendto()`
    UdpUnconnected,
}

impl Transport {
    /// All three transports.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::UdpConnected, Self::UdpUnconnected];

    /// TCP for [`Self::Tcp`], UDP for both kinds of UDP sockets.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::UdpConnected | Self::UdpUnconnected => Protocol::Udp,
        }
    }
}

/// The reply to a request, and the address of its sender as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Pod and port of the reply, for example `a 8080/TCP`.
    pub who: String,
    /// The source of the reply by `recvfrom()` if it is not the called address; else the peer by `getpeername()`. An
    /// unconnected socket has the source only.
    pub shown: SocketAddr,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, shown as {}", self.who, self.shown)
    }
}

/// Sends a request to an address through a new socket, and returns the reply of the pod behind the address.
pub fn reach(process: &Process, transport: Transport, address: SocketAddr) -> Met<Reached> {
    let socket = process.open_for(address, transport.protocol())?;
    if transport == Transport::UdpUnconnected {
        let datagram = socket.ask_at(address)?;
        let shown = datagram.source.ok_or_else(|| Failure::named("no source"))?;
        return Ok(Reached { who: datagram.text, shown });
    }
    socket.connect(address)?;
    let shown = socket.peer()?;
    socket.send()?;
    let datagram = socket.receive()?;
    // A source other than the called address replaces the peer, so that tests notice it.
    let shown = datagram.source.filter(|source| *source != address).unwrap_or(shown);
    Ok(Reached { who: datagram.text, shown })
}

/// As [`reach`], but returns only pod and port of the reply.
pub fn who(process: &Process, transport: Transport, address: SocketAddr) -> Met<String> {
    Ok(reach(process, transport, address)?.who)
}

/// The expected reply of a pod that [`serving`] created: its name and port.
pub fn answer(pod: &str, transport: Transport) -> String {
    format!("{pod} 8080/{}", transport.protocol())
}

/// The expected error at a Service without endpoints. On TCP it is `ECONNREFUSED`; on UDP, kernels before 5.18 return `EPERM`.
pub fn refused<T>(transport: Transport) -> Met<T> {
    Err(match transport {
        Transport::Tcp => Failure::named("ECONNREFUSED"),
        Transport::UdpConnected | Transport::UdpUnconnected => Failure::named(Features::here().chosen("ECONNREFUSED")),
    })
}

/// The expected error of a call that portmap drops: a traffic policy admits no endpoint, or the Service does not admit the
/// source. Also at an address inside `--service-cidr` that no Service has.
pub fn dropped<T>() -> Met<T> {
    Err(Failure::named(Features::here().chosen("ETIMEDOUT")))
}

/// The expected error at an address that portmap does not translate and that has no route.
pub fn left_alone<T>() -> Met<T> {
    Err(Failure::named("ENETUNREACH"))
}

/// Repeats `attempt` every 10 ms until it returns a value. Fails after [`PATIENCE`], scaled by [`patience`], or if `attempt`
/// fails.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let patience = patience(PATIENCE);
    let until = Instant::now() + patience;
    loop {
        if let Some(result) = attempt()? {
            return Ok(result);
        }
        ensure!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
