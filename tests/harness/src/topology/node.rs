//! A node of a topology, and its pods.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result};

use super::firewall::{self, Firewall};
use super::{ERROR_LIMITS, REVERSE_PATH, SEGMENT, addresses};
use crate::dual_stack::Both;
use crate::world::{Families, Machine, Pod};

/// The port of servers in the nodes' network namespaces, on TCP and UDP. The firewall admits it.
pub const HOST_PORT: u16 = 8095;

/// A node: a [`Machine`] with the interface `eth0` on the segment. Dropping the last of the node and its pods removes it.
pub struct Node {
    machine: Arc<Machine>,
    number: u8,
    last_pod: AtomicU8,
}

impl Deref for Node {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl Node {
    /// Makes the node `node-<number>`, with a default route through the router.
    pub(super) fn new(name: &str, number: u8, router: &Machine) -> Result<Self> {
        let machine = Machine::new(name, &format!("node-{number}"), Families::Both)?;
        machine.write_sysctls(&REVERSE_PATH, "1")?;
        machine.write_sysctls(&ERROR_LIMITS, "0")?;
        machine.connect_to(router, machine.name())?;
        router.ip(&format!("link set {} master {SEGMENT} up", machine.name()))?;
        let ([v4, v6], [router4, router6]) = (addresses::node(number).texts(), addresses::ROUTER.texts());
        machine.ip(&format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 address 02:00:00:00:00:{number:02x} up\n\
             route add default via {router4}\n\
             route add default via {router6}"
        ))?;
        Ok(Self { machine: Arc::new(machine), number, last_pod: AtomicU8::new(NODE) })
    }

    /// Makes a pod with the next free address of this node. It has no server yet.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.last_pod.fetch_add(1, Ordering::Relaxed).checked_add(1).context("the node has no free address")?;
        let [address, gateway] = [host, NODE].map(|host| addresses::pod(self.number, host));
        let pod = Pod::new(Arc::clone(&self.machine), name, address, gateway)?;
        pod.write_sysctls(&REVERSE_PATH, "1")?;
        pod.write_sysctls(&ERROR_LIMITS, "0")?;
        pod.join_node(&format!("pod{host}"))?;
        Ok(pod)
    }

    /// The addresses of the node: the `InternalIP`s of its Node object.
    #[must_use]
    pub fn addresses(&self) -> Both {
        addresses::node(self.number)
    }

    /// The number of the node: 1, 2, or that of a further node.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The Ethernet address of the node on the segment.
    #[must_use]
    pub fn hardware_address(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.number]
    }

    /// Sets the rules of the firewall.
    pub(super) fn raise(&self, firewall: Firewall) -> Result<()> {
        firewall::raise(&self.machine, firewall)
    }

    /// Number of packets that the firewall has dropped because of their state `invalid`. Fails without a firewall.
    pub fn invalid_packets(&self) -> Result<u64> {
        firewall::invalid_packets(&self.machine)
    }
}

/// The host part of the node's address in the network of its pods.
const NODE: u8 = 1;
