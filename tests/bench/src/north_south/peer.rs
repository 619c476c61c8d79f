//! kube-proxy on a node of its own, with an API server that has only the Services of the node ports.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::control_plane::objects::{apply_yaml, create_node};
use portmap_harness::control_plane::proxy::Proxy;
use portmap_harness::control_plane::{ControlPlane, Program, binaries, binary};
use portmap_harness::topology::Node;
use portmap_harness::world::Pod;
use tokio::time::{Instant, sleep};

use super::NODE_PORTS;
use super::objects::service;
use super::scene::serving;

/// Time limit until kube-proxy has written its rules.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pause between two looks at the rules.
const PAUSE: Duration = Duration::from_millis(100);

/// A node with kube-proxy, an API server and a pod. The fields are dropped in this order.
pub struct KubeProxy {
    proxy: Proxy,
    _plane: ControlPlane,
    _pod: Pod,
    node: Node,
}

impl KubeProxy {
    /// Builds the programs if needed. A build may need downloads, which are not possible from the network of a [`Node`].
    pub fn build() -> Result<()> {
        binaries()?;
        binary(Program::Proxy)?;
        Ok(())
    }

    /// Starts kube-proxy on a node without pods, and waits for its rules. The backends of the node ports are a new pod of the
    /// node, and the pod `remote` with its node. The calling thread enters the network namespace of the node.
    pub async fn start(node: Node, remote: (&Pod, &Node)) -> Result<Self> {
        let pod = serving(&node, "g")?;
        node.enter()?;
        let plane = ControlPlane::start().await?;
        let client = plane.admin()?;
        create_node(&client, node.name(), &node.addresses().addresses()).await?;
        for ((_, port), (pod, home)) in NODE_PORTS.into_iter().zip([(&pod, &node), remote]) {
            for object in service(port, pod, home) {
                apply_yaml(&client, &object.to_string()).await?;
            }
        }
        let proxy = plane.start_proxy(node.name())?;
        let mut started = Self { proxy, _plane: plane, _pod: pod, node };
        started.await_rules().await?;
        Ok(started)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    async fn await_rules(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.has_rules()? {
            self.proxy.check_alive()?;
            ensure!(begin.elapsed() < PATIENCE, "kube-proxy has not written its rules within {PATIENCE:?}");
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether the rules have each node port, of both protocols.
    fn has_rules(&self) -> Result<bool> {
        let mut command = self.node.command("nft");
        command.args(["-n", "list", "map", "ip", "kube-proxy", "service-nodeports"]).stdin(Stdio::null());
        let Output { stdout, .. } = command.output().context("failed to run nft: install nftables")?;
        // Without the map, nft fails and prints nothing.
        let rules = String::from_utf8_lossy(&stdout);
        Ok(NODE_PORTS
            .iter()
            .all(|(_, port)| ["6", "17"].iter().all(|protocol| rules.contains(&format!("{protocol} . {port} ")))))
    }
}
