//! A cluster of one node: a control plane, two pods that serve, and a client. Tests create Services for the pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use portmap_harness::clock::Clock;
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::objects::{PodSpec, Readiness, apply_pod, apply_yaml, create_node, delete_pod, set_ready};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::pod_client::Answers;
use portmap_harness::world::{self, World};
use serde_json::Value;

use crate::agent::Agent;
use crate::manifest;
use crate::tables::{self, Row, Status};
use crate::wait::{eventually, eventually_equal};

/// The name of the Node of the agent and the pods.
pub const NODE: &str = "node-1";
/// The namespace of the tests' Services and pods.
pub const NAMESPACE: &str = "shop";
/// Every pod listens on this port, which has no name.
pub const COMMON_PORT: u16 = 9000;
/// Number of connections, so large that each of two pods almost certainly gets at least one.
const CONNECTIONS: u32 = 40;

/// A pod that is a backend of the tests' Services.
pub struct Backend {
    pod: world::Pod,
    /// The number of the container port `http` of this pod.
    pub http: u16,
}

impl Backend {
    /// The pod's name, in Kubernetes and in its answers.
    pub fn name(&self) -> &str {
        self.pod.name()
    }

    pub fn ipv4(&self) -> IpAddr {
        self.pod.ipv4().into()
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4(), self.pod.ipv6().into()]
    }
}

/// A pod and its port number, which connections must reach.
pub type Landing<'a> = (&'a Backend, u16);

/// A control plane, and a node with two serving pods. At first it has no Service of the tests and no agent.
pub struct Cluster {
    pub plane: ControlPlane,
    pub world: World,
    pub a: Backend,
    pub b: Backend,
    client: world::Client,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts a control plane and a node with two pods, and applies the manifest of portmap. `name` is the name of the world.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_on(ControlPlane::start().await?, name).await
    }

    /// As [`Self::start`], on this control plane.
    pub async fn start_on(plane: ControlPlane, name: &str) -> Result<Self> {
        let world = World::new(name)?;
        manifest::apply(&plane).await?;
        let kubeconfig = plane.service_account_kubeconfig(manifest::NAMESPACE, manifest::SERVICE_ACCOUNT).await?;
        create_node(&plane.admin()?, NODE, &[world.ipv4().into(), world.ipv6().into()]).await?;
        let a = serve(&world, "pod-a", 8080)?;
        let b = serve(&world, "pod-b", 9090)?;
        let client = world.client("client")?;
        let cluster = Self { plane, world, a, b, client, kubeconfig };
        cluster.run(&cluster.a).await?;
        cluster.run(&cluster.b).await?;
        Ok(cluster)
    }

    /// Starts the agent with the service account of the manifest.
    pub async fn agent(&self) -> Result<Agent> {
        self.agent_with(&[]).await
    }

    /// As [`Self::agent`], with further arguments.
    pub async fn agent_with(&self, arguments: &[&str]) -> Result<Agent> {
        Agent::start(&self.world, &self.kubeconfig, arguments).await
    }

    /// As [`Self::agent`], with another URL of the API server.
    pub async fn agent_by(&self, url: &str) -> Result<Agent> {
        Agent::start(&self.world, &self.kubeconfig_by(url).await?, &[]).await
    }

    /// As [`Self::agent_by`], with this clock. Returns at once, because the agent may fail before it attaches.
    pub async fn spawn_by_clock(&self, url: &str, clock: &Clock) -> Result<Agent> {
        Agent::spawn_by_clock(&self.world, &self.kubeconfig_by(url).await?, clock)
    }

    /// As [`Self::agent_by`], on the world's node, where the agent's own connections are translated like those of other
    /// processes.
    pub async fn agent_on_node_by(&self, url: &str) -> Result<Agent> {
        let agent = Agent::spawn_on_node(&self.world, &self.kubeconfig_by(url).await?)?;
        agent.await_start(&self.world).await.context("the agent does not start")?;
        Ok(agent)
    }

    async fn kubeconfig_by(&self, url: &str) -> Result<PathBuf> {
        self.plane.service_account_kubeconfig_by(url, manifest::NAMESPACE, manifest::SERVICE_ACCOUNT).await
    }

    /// The path of the agent's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Applies manifests as the administrator.
    pub async fn apply(&self, text: &str) -> Result<()> {
        apply_yaml(&self.plane.admin()?, text).await
    }

    /// Applies a merge patch to a Service.
    pub async fn patch_service(&self, name: &str, patch: &Value) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.plane.admin()?, NAMESPACE);
        let patched = services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("failed to patch Service {name}"))?;
        Ok(())
    }

    /// Waits until the row with this frontend has these backends.
    pub async fn await_backends(&self, frontend: SocketAddr, landings: &[Landing<'_>]) -> Result<()> {
        let expected = (format!("{frontend}/TCP"), backends(&frontend, landings));
        let look = async || {
            let rows = self.table()?.into_iter().map(|row| (row.frontend, row.backends));
            Ok(rows.collect::<Vec<_>>())
        };
        eventually(look, |rows| rows.contains(&expected)).await.with_context(|| format!("expected {expected:?}"))?;
        Ok(())
    }

    /// Creates the Pod object of a backend, ready and on [`NODE`].
    pub async fn run(&self, backend: &Backend) -> Result<()> {
        self.report(backend, NODE).await
    }

    /// As [`Self::run`], on another Node. A pod cannot move, so an existing one is replaced by another of the same name.
    pub async fn run_on(&self, backend: &Backend, node: &str) -> Result<()> {
        self.delete(backend).await?;
        self.report(backend, node).await
    }

    async fn report(&self, backend: &Backend, node: &str) -> Result<()> {
        let pod = PodSpec {
            namespace: NAMESPACE,
            name: backend.name(),
            labels: &[("app", "web")],
            node,
            ips: &backend.addresses(),
            ports: &[("http", backend.http, "TCP")],
            ready: Readiness::Ready,
        };
        apply_pod(&self.plane.admin()?, pod).await
    }

    pub async fn set_ready(&self, backend: &Backend, ready: Readiness) -> Result<()> {
        set_ready(&self.plane.admin()?, NAMESPACE, backend.name(), ready).await
    }

    /// Deletes the Pod object. The server keeps running, so that a test notices further connections to it.
    pub async fn delete(&self, backend: &Backend) -> Result<()> {
        delete_pod(&self.plane.admin()?, NAMESPACE, backend.name()).await
    }

    /// Creates or changes a dual-stack Service. `port` is the name of its port 80, and `target` is the targetPort.
    pub async fn apply_service(&self, name: &str, port: &str, target: &str) -> Result<()> {
        let service = format!(
            "apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec:\n\
            \x20 selector: {{app: web}}\n\
            \x20 ipFamilyPolicy: RequireDualStack\n\
            \x20 ports: [{{name: {port}, port: 80, targetPort: {target}}}]\n"
        );
        apply_yaml(&self.plane.admin()?, &service).await
    }

    /// Deletes a Service of the namespace [`NAMESPACE`].
    pub async fn delete_service(&self, name: &str) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.plane.admin()?, NAMESPACE);
        services.delete(name, &DeleteParams::default()).await.with_context(|| format!("failed to delete Service {name}"))?;
        Ok(())
    }

    /// The ClusterIPs of a dual-stack Service with port 80, IPv4 first.
    pub async fn frontends(&self, service: &str) -> Result<[SocketAddr; 2]> {
        let addresses = self.addresses(service).await?;
        let found = format!("{addresses:?}");
        addresses.try_into().ok().with_context(|| format!("one address of each family was expected, not {found}"))
    }

    /// All ClusterIPs of a Service with port 80, sorted.
    pub async fn addresses(&self, service: &str) -> Result<Vec<SocketAddr>> {
        let services: Api<Service> = Api::namespaced(self.plane.admin()?, NAMESPACE);
        let spec = services.get(service).await?.spec.context("a Service has a spec")?;
        let mut addresses = Vec::new();
        for address in spec.cluster_ips.unwrap_or_default() {
            addresses.push(SocketAddr::new(address.parse()?, 80));
        }
        addresses.sort();
        Ok(addresses)
    }

    /// The rows of `portmap services`, without the API server's own Service.
    pub fn table(&self) -> Result<BTreeSet<Row>> {
        tables::services(&self.world)
    }

    /// The output of `portmap status`.
    pub fn status(&self) -> Result<Status> {
        tables::status(&self.world)
    }

    /// Waits until the tables hold exactly these rows.
    pub async fn await_table(&self, rows: &BTreeSet<Row>) -> Result<()> {
        eventually_equal(async || self.table(), rows).await.context("the tables should have other rows")
    }

    /// Waits until all checks of `portmap status` are fine.
    pub async fn await_healthy(&self) -> Result<()> {
        let outcome = eventually(async || self.status(), |status| status.healthy).await;
        outcome.context("portmap is not healthy")?;
        Ok(())
    }

    /// Connects to each frontend. Fails unless every connection reaches one of the pods, and every pod gets one.
    pub fn expect_landings(&self, frontends: &[SocketAddr], landings: &[Landing<'_>]) -> Result<()> {
        let expected: BTreeSet<_> = landings.iter().map(|(backend, port)| format!("{} {port}/TCP", backend.name())).collect();
        for frontend in frontends {
            let answers = self.connect(*frontend)?;
            let landed: BTreeSet<_> = answers.replies.keys().cloned().collect();
            ensure!(
                answers.errors.is_empty() && landed == expected,
                "connections to {frontend} gave\n{answers}instead of {expected:?}"
            );
        }
        Ok(())
    }

    /// Connects to each frontend. Fails unless every connection fails with this error.
    pub fn expect_error(&self, frontends: &[SocketAddr], error: &str) -> Result<()> {
        let expected = [(error.to_owned(), CONNECTIONS)].into();
        for frontend in frontends {
            let answers = self.connect(*frontend)?;
            ensure!(
                answers.replies.is_empty() && answers.errors == expected,
                "connections to {frontend} gave\n{answers}instead of {error}"
            );
        }
        Ok(())
    }

    /// As [`Self::await_error`], for several frontends. After an outage, addresses without a Service are left alone for some
    /// seconds.
    pub async fn await_errors(&self, frontends: &[SocketAddr], error: &str) -> Result<()> {
        for frontend in frontends {
            self.await_error(*frontend, error).await?;
        }
        Ok(())
    }

    /// Waits until every connection to an address fails with this error.
    pub async fn await_error(&self, frontend: SocketAddr, error: &str) -> Result<()> {
        let is_so = |answers: &Answers| answers.replies.is_empty() && answers.errors.keys().eq([error]);
        eventually(async || self.connect(frontend), is_so).await.with_context(|| format!("expected {error}"))?;
        Ok(())
    }

    /// Waits until the tables have no row for this address and port.
    pub async fn await_no_frontend(&self, frontend: SocketAddr) -> Result<()> {
        let name = format!("{frontend}/TCP");
        eventually(async || self.table(), |rows| rows.iter().all(|row| row.frontend != name)).await?;
        Ok(())
    }

    fn connect(&self, frontend: SocketAddr) -> Result<Answers> {
        self.client.connect(frontend, Protocol::Tcp, CONNECTIONS)
    }
}

fn serve(world: &World, name: &str, http: u16) -> Result<Backend> {
    let mut pod = world.pod(name)?;
    pod.serve(&[Listen::tcp(http), Listen::tcp(COMMON_PORT)])?;
    Ok(Backend { pod, http })
}

/// The rows of a Service with these backends, one row for each family. Without backends the action is refuse.
pub fn rows(service: &str, port: &str, frontends: &[SocketAddr; 2], landings: &[Landing<'_>]) -> BTreeSet<Row> {
    let row = |frontend: &SocketAddr| {
        let backends = backends(frontend, landings);
        Row {
            frontend: format!("{frontend}/TCP"),
            service: format!("{NAMESPACE}/{service}"),
            port: port.to_owned(),
            action: if backends.is_empty() { "refuse" } else { "forward" }.to_owned(),
            backends,
        }
    };
    frontends.iter().map(row).collect()
}

/// The backends in the frontend's family, sorted.
fn backends(frontend: &SocketAddr, landings: &[Landing<'_>]) -> Vec<String> {
    let in_family = |(backend, port): &Landing<'_>| {
        let addresses = backend.addresses().into_iter().filter(|address| address.is_ipv4() == frontend.is_ipv4());
        addresses.map(|address| SocketAddr::new(address, *port).to_string()).collect::<Vec<_>>()
    };
    let mut backends: Vec<_> = landings.iter().flat_map(in_family).collect();
    backends.sort();
    backends
}
