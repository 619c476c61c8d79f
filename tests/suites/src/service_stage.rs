//! A world with pods, a client and an agent, whose manifests a test changes as it goes.

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

use crate::service_objects::{LISTENS, Service};

/// How long anything that the agent does by itself may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Dropped in this order.
pub struct Stage {
    /// The agent, on the manifests of the world.
    pub agent: Agent,
    /// The pod that connects.
    pub client: Pod,
    /// The pods that serve.
    pub pods: Vec<Pod>,
    /// The world that all of them are in.
    pub world: World,
    /// The labels of the Service that marks a change.
    pub mark_labels: Value,
    /// Besides Services.
    objects: Vec<Value>,
    changes: u16,
}

impl Stage {
    /// With pods of these names, each of which serves, and an agent with these arguments that knows no Service yet.
    pub fn new(name: &str, pods: &[&str], arguments: &[&str]) -> Result<Self> {
        Self::in_world(World::new(name)?, pods, arguments, Vec::new())
    }

    /// As [`Self::new`], in a world that is there already, with objects that are there all the time.
    pub fn in_world(world: World, pods: &[&str], arguments: &[&str], objects: Vec<Value>) -> Result<Self> {
        let pods = pods.iter().map(|name| serving(&world, name)).collect::<Result<Vec<_>>>()?;
        let client = world.client("client")?;
        write(&world, &objects)?;
        let agent = Agent::start(&world, arguments)?;
        Ok(Self { agent, client, pods, world, mark_labels: json!({}), objects, changes: 0 })
    }

    /// Makes these the only Services, and returns once every table says so.
    ///
    /// A change is applied in several steps. One that comes after it shows that it is complete: hence the second mark.
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

    /// As [`Self::apply`], with these objects besides Services from now on.
    pub fn apply_with(&mut self, objects: Vec<Value>, services: &[Service]) -> Result<()> {
        self.objects = objects;
        self.apply(services)
    }

    /// As [`Self::apply`], but does not wait: for an agent that does not run.
    pub fn write_only(&mut self, services: &[Service]) -> Result<()> {
        self.changes += 1;
        self.write(services).map(drop)
    }

    /// Writes the Services without waiting. Returns the frontend that marks them.
    fn write(&self, services: &[Service]) -> Result<String> {
        let [high, low] = self.changes.to_be_bytes();
        let address = format!("10.97.{high}.{low}");
        let mark = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "mark", "labels": self.mark_labels},
            "spec": {"clusterIP": address, "ports": [{"port": 1}]},
        });
        let mut objects = self.objects.clone();
        objects.extend(services.iter().flat_map(Service::objects));
        objects.push(mark);
        write(&self.world, &objects)?;
        Ok(format!("{address}:1/TCP"))
    }

    /// A process in the client's pod.
    pub fn process(&self) -> Result<Process> {
        Process::in_pod(&self.client)
    }
}

/// A pod that serves what [`Service`]s lead to.
pub fn serving(world: &World, name: &str) -> Result<Pod> {
    let mut pod = world.pod(name)?;
    pod.serve(&LISTENS)?;
    Ok(pod)
}

fn write(world: &World, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Agent::write(world, "objects.json", &list.to_string())
}

/// How a client speaks to an address.
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::UdpConnected, Self::UdpUnconnected];

    /// The protocol of the socket.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::UdpConnected | Self::UdpUnconnected => Protocol::Udp,
        }
    }
}

/// What a client sees of whom it reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// As in `a 8080/TCP`.
    pub who: String,
    /// What getpeername, or recvfrom, said.
    pub shown: SocketAddr,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, shown as {}", self.who, self.shown)
    }
}

/// Asks the address through a new socket who is there.
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
    // A receive agrees with getpeername, where it tells at all.
    let shown = datagram.source.filter(|source| *source != address).unwrap_or(shown);
    Ok(Reached { who: datagram.text, shown })
}

/// Who answers at the address, through a new socket.
pub fn who(process: &Process, transport: Transport, address: SocketAddr) -> Met<String> {
    Ok(reach(process, transport, address)?.who)
}

/// The answer of a pod of [`serving`].
pub fn answer(pod: &str, transport: Transport) -> String {
    format!("{pod} 8080/{}", transport.protocol())
}

/// What comes of an address without an endpoint. Of TCP, every kernel refuses it so.
pub fn refused<T>(transport: Transport) -> Met<T> {
    Err(match transport {
        Transport::Tcp => Failure::named("ECONNREFUSED"),
        Transport::UdpConnected | Transport::UdpUnconnected => Failure::named(Features::here().chosen("ECONNREFUSED")),
    })
}

/// The failure at a Service address that the agent drops: no port, or a source that is not allowed.
pub fn dropped<T>() -> Met<T> {
    Err(Failure::named(Features::here().chosen("ETIMEDOUT")))
}

/// What comes of an address that nobody translates, and that there is no route to.
pub fn left_alone<T>() -> Met<T> {
    Err(Failure::named("ENETUNREACH"))
}

/// Tries until it is so, and returns what made it so.
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
