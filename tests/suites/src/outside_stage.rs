//! The environment of tests with clients outside the node: a topology with pods, servers, clients and an agent on each node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Listen;
use portmap_harness::process::Process;
use portmap_harness::topology::{Firewall, HOST_PORT, Node, Topology};
use portmap_harness::world::{Pod, Server};
use serde_json::{Value, json};

use crate::service_objects::{
    Endpoint, LISTENS, PORT, Service, cluster_ip, external_ip, load_balancer_ip, marker, node_named, node_port,
};

/// The environment of a test. The fields are dropped in this order.
pub struct Stage {
    /// The agents of node 1 and node 2.
    pub agents: [Agent; 2],
    /// A process of the client behind the router.
    pub client: Process,
    /// A process of the client on the nodes' segment.
    pub neighbour: Process,
    /// Pods of node 1: `a` and `b`.
    pub local: [Pod; 2],
    /// Pods of node 2: `c` and `d`.
    pub remote: [Pod; 2],
    _servers: [Server; 2],
    /// The nodes, the router and the clients.
    pub topology: Topology,
    arguments: Vec<&'static str>,
    services: BTreeMap<u8, Service>,
    last_number: u8,
    changes: u16,
    firewall: Firewall,
    /// Number of invalid packets at the start of the test; `None` if the test sends some.
    invalid_packets: Option<u64>,
}

/// A Service with an address of each kind: see [`Service::exposed`].
#[derive(Clone, Copy, Debug)]
pub struct Published(u8);

impl Published {
    /// The node port on a node.
    pub fn node_port(self, node: &Node, via: Via) -> SocketAddr {
        node.addresses().at(via, node_port(self.0))
    }

    /// The ClusterIP. No packet of a client outside is routed to it.
    pub fn cluster_ip(self, via: Via) -> SocketAddr {
        cluster_ip(self.0).at(via, PORT)
    }

    /// The externalIP. The router sends its packets to node 1.
    pub fn external(self, via: Via) -> SocketAddr {
        external_ip(self.0).at(via, PORT)
    }

    /// The address of the load balancer. The router sends its packets to node 1.
    pub fn load_balancer(self, via: Via) -> SocketAddr {
        load_balancer_ip(self.0).at(via, PORT)
    }
}

impl Stage {
    /// Makes a topology. Starts agents with these arguments and without Services, on `eth0` unless they name devices.
    pub fn new(name: &str, firewall: Firewall, arguments: &[&'static str]) -> Result<Self> {
        let topology = Topology::new(&format!("outside-{}", name.replace('_', "-")), firewall)?;
        let [one, two] = &topology.nodes;
        let host = [Listen::tcp(HOST_PORT), Listen::udp(HOST_PORT)];
        let servers = [one.serve(&host)?, two.serve(&host)?];
        let local = [serving(one, "a")?, serving(one, "b")?];
        let remote = [serving(two, "c")?, serving(two, "d")?];
        let devices: &[&str] = if arguments.contains(&"--devices") { &[] } else { &["--devices", "eth0"] };
        let arguments = [devices, arguments].concat();
        for node in &topology.nodes {
            write(node, &objects(&topology))?;
        }
        let agents = [Agent::start(one, &arguments)?, Agent::start(two, &arguments)?];
        Ok(Self {
            agents,
            client: Process::in_pod(&topology.client)?,
            neighbour: Process::in_pod(&topology.neighbour)?,
            local,
            remote,
            _servers: servers,
            topology,
            arguments,
            services: BTreeMap::new(),
            last_number: 0,
            changes: 0,
            firewall,
            invalid_packets: None,
        })
    }

    /// Forgets the Services of the last test. The next change removes them.
    pub fn begin(&mut self) -> Result<()> {
        self.services.clear();
        self.invalid_packets = Some(self.count_invalid_packets()?);
        Ok(())
    }

    /// Lets the test send packets that belong to no connection.
    pub fn allow_invalid_packets(&mut self) {
        self.invalid_packets = None;
    }

    /// The firewall of both nodes.
    pub fn firewall(&self) -> Firewall {
        self.firewall
    }

    /// Fails if the firewall has met invalid packets since [`Self::begin`].
    pub fn expect_no_invalid_packets(&self) -> Result<()> {
        let Some(before) = self.invalid_packets else { return Ok(()) };
        let count = self.count_invalid_packets()? - before;
        ensure!(count == 0, "the firewalls have dropped {count} packets that belong to no connection");
        Ok(())
    }

    /// The log of each agent, and what `portmap status` says then.
    pub fn logs(&self) -> String {
        let of = |agent: &Agent| {
            let status = match agent.portmap(&["status"]) {
                Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
                Err(error) => format!("{error:#}"),
            };
            format!("the log of an agent:\n{}\n{status}", agent.log())
        };
        self.agents.iter().map(of).collect::<Vec<_>>().join("\n")
    }

    /// Adds a Service with these endpoints. Returns when both nodes serve it.
    pub fn publish(&mut self, endpoints: Vec<Endpoint>) -> Result<Published> {
        self.publish_with(json!({}), endpoints)
    }

    /// As [`Self::publish`], with these fields of the Service's spec.
    pub fn publish_with(&mut self, spec: Value, endpoints: Vec<Endpoint>) -> Result<Published> {
        let service = self.add(spec, endpoints);
        self.apply()?;
        Ok(service)
    }

    /// As [`Self::publish_with`], for several equal Services.
    pub fn publish_all(&mut self, count: u8, spec: &Value, endpoints: &[Endpoint]) -> Result<Vec<Published>> {
        let services = (0..count).map(|_| self.add(spec.clone(), endpoints.to_vec())).collect();
        self.apply()?;
        Ok(services)
    }

    fn add(&mut self, spec: Value, endpoints: Vec<Endpoint>) -> Published {
        self.last_number = self.last_number % 250 + 1;
        let number = self.last_number;
        let service = Service::new(&format!("s{number}"), number).exposed(number).spec(spec).endpoints(endpoints);
        self.services.insert(number, service);
        Published(number)
    }

    /// Replaces the endpoints of a Service.
    pub fn set_endpoints(&mut self, Published(number): Published, endpoints: Vec<Endpoint>) -> Result<()> {
        let service = self.services.remove(&number).context("the test has not published this Service")?;
        self.services.insert(number, service.endpoints(endpoints));
        self.apply()
    }

    /// Writes the Services for both agents, and returns when their maps have the change. Writes them twice: [`marker`] says why.
    fn apply(&mut self) -> Result<()> {
        for _ in 0..2 {
            self.changes += 1;
            let (mark, frontend) = marker(self.changes, &json!({}));
            let mut objects = objects(&self.topology);
            objects.extend(self.services.values().flat_map(Service::objects));
            objects.push(mark);
            for node in &self.topology.nodes {
                write(node, &objects)?;
            }
            for agent in &mut self.agents {
                agent.wait_until(&format!("{frontend} is in the tables"), |agent| {
                    Ok(agent.services()?.iter().any(|row| row["frontend"] == frontend))
                })?;
            }
        }
        Ok(())
    }

    /// Starts an agent in place of one that has ended. `index` is 0 for node 1.
    pub fn start_agent(&mut self, index: usize) -> Result<()> {
        let node = self.topology.nodes.get(index).context("there is no such node")?;
        let agent = Agent::start(node, &self.arguments)?;
        *self.agents.get_mut(index).context("there is no such agent")? = agent;
        Ok(())
    }

    /// Node 1, which the clients use unless the case says otherwise.
    pub fn one(&self) -> &Node {
        &self.topology.nodes[0]
    }

    /// Node 2.
    pub fn two(&self) -> &Node {
        &self.topology.nodes[1]
    }

    /// The pod with this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.local.iter().chain(&self.remote).find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The endpoint of the pod with this name, or of the server in the network namespace of the node with this name.
    pub fn endpoint(&self, name: &str) -> Endpoint {
        let [one, two] = &self.topology.nodes;
        for (node, pods) in [(one, &self.local), (two, &self.remote)] {
            if let Some(pod) = pods.iter().find(|pod| pod.name() == name) {
                return Endpoint::of(pod).node(node.name());
            }
            if node.name() == name {
                return Endpoint::at(node.addresses(), HOST_PORT).node(name);
            }
        }
        unreachable!("no pod and no node has the name {name}")
    }

    /// The endpoints of these names.
    pub fn endpoints(&self, names: &[&str]) -> Vec<Endpoint> {
        names.iter().map(|name| self.endpoint(name)).collect()
    }

    fn count_invalid_packets(&self) -> Result<u64> {
        match self.firewall {
            Firewall::None => Ok(0),
            Firewall::Stateful => self.topology.nodes.iter().map(Node::invalid_packets).sum(),
        }
    }
}

/// A pod of a node that listens on [`LISTENS`].
fn serving(node: &Node, name: &str) -> Result<Pod> {
    let mut pod = node.pod(name)?;
    pod.serve(&LISTENS)?;
    Ok(pod)
}

/// The Nodes.
fn objects(topology: &Topology) -> Vec<Value> {
    topology.nodes.iter().map(|node| node_named(node.name(), &node.addresses().addresses())).collect()
}

fn write(node: &Node, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Agent::write(node, "objects.json", &list.to_string())
}
