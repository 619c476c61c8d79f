//! A node with a device that has a default route, and an agent.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::world::{Families, World, program};
use serde_json::{Value, json};

use crate::view::{View, Way};

/// The device with the default route. Its other end is a device of the same namespace, so no packet leaves.
const UPLINK: &str = "link add eth0 type veth peer name far0\n\
                      addr add 192.0.2.2/24 dev eth0\n\
                      link set far0 up\n\
                      link set eth0 up\n\
                      route add default via 192.0.2.1 dev eth0";

/// A simulated node with a running agent. Dropping it removes everything.
pub struct Node {
    pub agent: Agent,
    pub view: View,
}

impl Node {
    /// Makes a node with `eth0`, without IPv6. Starts an agent with these arguments that attaches programs in this way.
    pub fn new(name: &str, way: Way, arguments: &[&str]) -> Result<Self> {
        Self::prepared(World::of(name, Families::V4)?, way, "", arguments)
    }

    /// As [`Self::new`], on an existing world, and runs `ip` commands before the agent starts.
    pub fn prepared(world: World, way: Way, script: &str, arguments: &[&str]) -> Result<Self> {
        world.ip(&format!("{UPLINK}\n{script}"))?;
        set_node_address(&world, None)?;
        let agent = start(&world, way, arguments)?;
        Ok(Self { agent, view: View { world, way } })
    }

    /// Stops the agent.
    pub fn stop(&mut self) -> Result<()> {
        self.agent.stop(Signal::SIGTERM).map(drop)
    }

    /// Starts another agent after [`Self::stop`].
    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        self.agent = start(&self.view.world, self.view.way, arguments)?;
        Ok(())
    }

    /// Writes a Node object with this address, or without one.
    pub fn set_node_address(&self, address: Option<&str>) -> Result<()> {
        set_node_address(&self.view.world, address)
    }

    /// The devices that `portmap status` shows, each as `name way clients address,…`.
    pub fn devices(&self) -> Result<Vec<String>> {
        devices(&self.view.world)
    }

    /// Waits until `portmap status` shows exactly these devices, in the order of their indexes.
    pub fn await_devices(&mut self, expected: &[&str]) -> Result<()> {
        let (world, way) = (self.view.world.clone(), self.view.way.name());
        let expected: Vec<String> = expected.iter().map(|line| line.replace("WAY", way)).collect();
        self.agent.wait_until(&format!("the devices are {expected:?}"), |_| Ok(devices(&world)? == expected))
    }

    /// Runs `portmap cleanup` in the node's network namespace.
    pub fn clean_up(&self) -> Result<()> {
        let output = self.portmap(&["cleanup"])?;
        ensure!(output.status.success(), "portmap cleanup failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Runs a subcommand of portmap in the node's network namespace.
    pub fn portmap(&self, arguments: &[&str]) -> Result<Output> {
        portmap(&self.view.world, arguments)
    }
}

fn start(world: &World, way: Way, arguments: &[&str]) -> Result<Agent> {
    Agent::start(world, &[&["--device-attach", way.name()], arguments].concat())
}

fn set_node_address(world: &World, address: Option<&str>) -> Result<()> {
    let addresses: Vec<Value> = address.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": {"addresses": addresses},
    });
    Agent::write(world, "node.json", &node.to_string())
}

fn devices(world: &World) -> Result<Vec<String>> {
    let output = portmap(world, &["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).context("portmap printed invalid JSON")?;
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |device: &Value| {
        let addresses: Vec<String> = device["addresses"].as_array().into_iter().flatten().map(text).collect();
        let [name, way, clients] = ["name", "attached", "clients"].map(|field| text(&device[field]));
        format!("{name} {way} {clients} {}", addresses.join(","))
    };
    Ok(status["devices"].as_array().context("the status has no devices")?.iter().map(line).collect())
}

fn portmap(world: &World, arguments: &[&str]) -> Result<Output> {
    let mut command = world.command(program::find("portmap")?);
    command.args(arguments).arg("--bpffs").arg(world.bpffs()).output().context("failed to run portmap")
}
