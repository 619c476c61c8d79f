//! A cluster of two nodes, and clients outside of it. The API server and the proxies run on node 1; node 2 has no proxy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::control_plane::objects::{create_node, ensure_namespace};
use portmap_harness::control_plane::proxy::{self, Proxy};
use portmap_harness::control_plane::{ControlPlane, Program, binaries, binary};
use portmap_harness::topology::{Firewall, Node, Topology};
use portmap_harness::world::{Pod, program};
use portmap_suites::service_objects::{LISTENS, Service, node_port};
use serde_json::json;
use tokio::time::sleep;

use crate::apply::Applied;
use crate::drain::Drain;
use crate::model::{Family, Frontend};
use crate::population::{Key, Kind, Object, Objects};
use crate::proxy::read;

/// The namespace of the Services.
const NAMESPACE: &str = "outside";
/// The time limit until kube-proxy has written its rules.
const PATIENCE: Duration = Duration::from_mins(1);
const INTERVAL: Duration = Duration::from_millis(20);
/// The agent has no HTTP servers, because kube-proxy uses their ports. It serves clients on the device `eth0`.
const ARGUMENTS: [&str; 6] = ["--healthz-bind-address", "none", "--metrics-bind-address", "none", "--devices", "eth0"];

/// The cluster. The test's thread is in the network namespace of node 1. Fields are dropped in this order.
pub struct Cluster {
    agent: Option<Agent>,
    proxy: Option<Proxy>,
    applied: Applied,
    numbers: Vec<u8>,
    plane: ControlPlane,
    /// The pods `a` and `b` on node 1, then `c` and `d` on node 2.
    pub pods: [Pod; 4],
    /// The nodes and the client.
    pub topology: Topology,
}

impl Cluster {
    /// Makes the cluster, without Services and without a proxy. `name` helps to debug.
    pub async fn start(name: &str) -> Result<Self> {
        // A build may need downloads, which are not possible from the topology's network.
        binaries()?;
        binary(Program::Proxy)?;
        let topology = Topology::new(name, Firewall::None)?;
        let [one, two] = &topology.nodes;
        let pods = [serving(one, "a")?, serving(one, "b")?, serving(two, "c")?, serving(two, "d")?];
        one.enter()?;
        let plane = ControlPlane::start().await?;
        let client: Client = plane.admin()?;
        for node in &topology.nodes {
            create_node(&client, node.name(), &node.addresses().addresses()).await?;
        }
        ensure_namespace(&client, NAMESPACE).await?;
        Ok(Self { agent: None, proxy: None, applied: Applied::new(client), numbers: Vec::new(), plane, pods, topology })
    }

    /// Node 1, on which the proxies run.
    pub fn one(&self) -> &Node {
        &self.topology.nodes[0]
    }

    /// Writes Services and their slices. Each Service has the node port of its number. No proxy may run.
    pub async fn write(&mut self, services: Vec<(u8, Service)>) -> Result<()> {
        self.numbers = services.iter().map(|(number, _)| *number).collect();
        self.applied.become_objects(services.iter().flat_map(|(_, service)| objects(service)).collect()).await?;
        self.applied.check_all()
    }

    /// Starts kube-proxy on node 1, and waits for its rules.
    pub async fn start_kube_proxy(&mut self) -> Result<()> {
        let mut proxy = self.plane.start_proxy(self.one().name())?;
        let begin = Instant::now();
        while !self.is_in_rules() {
            proxy.check_alive()?;
            ensure!(begin.elapsed() < PATIENCE, "kube-proxy has not written its rules within {PATIENCE:?}");
            sleep(INTERVAL).await;
        }
        self.proxy = Some(proxy);
        Ok(())
    }

    /// Whether kube-proxy's rules have all node ports.
    fn is_in_rules(&self) -> bool {
        let frontends = |number: &u8| {
            let port = node_port(*number);
            Family::ALL.map(|family| ["TCP", "UDP"].map(|protocol| Frontend::NodePort(family, port, protocol.to_owned())))
        };
        let mut wanted = self.numbers.iter().flat_map(frontends).flatten();
        // There are no rules at first.
        read().is_ok_and(|model| wanted.all(|frontend| model.contains_key(&frontend)))
    }

    /// Stops kube-proxy. Its rules stay.
    pub fn stop_kube_proxy(&mut self) {
        self.proxy = None;
    }

    /// Removes kube-proxy's rules: `kube-proxy --cleanup`.
    pub fn clean_up_kube_proxy(&self) -> Result<()> {
        ensure!(self.proxy.is_none(), "kube-proxy still runs");
        proxy::clean_up()?;
        ensure!(read().is_err(), "kube-proxy --cleanup has left a table");
        Ok(())
    }

    /// Starts portmap on node 1. Waits until it serves.
    pub fn start_portmap(&mut self) -> Result<()> {
        let kubeconfig = self.plane.admin_kubeconfig().to_str().context("the path of the kubeconfig is not UTF-8")?;
        let mut agent = Agent::spawn_in_cluster(self.one(), &[&["--kubeconfig", kubeconfig], ARGUMENTS.as_slice()].concat())?;
        agent.wait_until("`portmap status` succeeds", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Stops the agent. Its programs and tables stay.
    pub fn stop_portmap(&mut self) -> Result<()> {
        self.agent.take().context("portmap does not run")?.end(Signal::SIGTERM).map(drop)
    }

    /// Starts `portmap cleanup --drain` with a time limit in seconds. No agent may run.
    pub fn drain(&self, seconds: u32) -> Result<Drain> {
        let mut command = self.one().command(program::find("portmap")?);
        command.args(["cleanup", &format!("--drain={seconds}"), "--bpffs"]).arg(self.one().bpffs());
        Drain::start(command)
    }
}

/// A pod of a node that listens on [`LISTENS`].
fn serving(node: &Node, name: &str) -> Result<Pod> {
    let mut pod = node.pod(name)?;
    pod.serve(&LISTENS)?;
    Ok(pod)
}

/// The manifests of a Service and its slices. The status of the Service is written separately.
fn objects(service: &Service) -> Objects {
    let object = |mut manifest: serde_json::Value| {
        let status = manifest.as_object_mut().and_then(|fields| fields.remove("status"));
        manifest["metadata"]["namespace"] = NAMESPACE.into();
        let kind = if manifest["kind"] == "Service" { Kind::Service } else { Kind::Slice };
        if kind == Kind::Service {
            manifest["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
        }
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let status = status.map(|status| json!({"status": status}));
        (Key { kind, namespace: NAMESPACE, name }, Object { manifest, status })
    };
    service.objects().into_iter().map(object).collect()
}
