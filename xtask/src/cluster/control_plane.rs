//! The control plane: etcd, the API server, the controllers, the scheduler and the cluster's DNS.
//!
//! They run in the enclosure's network, which the nodes reach. The DNS is a Service without a selector, so that the queries of
//! pods pass the Service proxy under test.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::addresses::{API_PORT, CONTROL_PLANE, DNS, PODS, SERVICES};
use super::component::Component;
use super::enclosure::Enclosure;
use super::interruption::Interruption;
use super::layout::Layout;
use crate::program;

/// The kubeconfig file of a user with all permissions, inside the namespaces.
pub const KUBECONFIG: &str = "/mnt/work/state/kubeconfig";

/// Time limit of [`wait`].
const ROLLOUT_LIMIT: &str = "--timeout=180s";

/// The running programs.
#[derive(Debug)]
pub struct ControlPlane {
    components: Vec<Component>,
}

impl ControlPlane {
    /// Starts all programs, and waits until the API server is ready.
    pub fn start(enclosure: &Enclosure, layout: &Layout, interruption: &Interruption) -> Result<Self> {
        let state = layout.state();
        write(layout, "tokens", &format!("{},admin,admin,system:masters\n", token()?))?;
        write(layout, "Corefile", &corefile())?;
        let spawn = |name: &str, flags: &[String]| Component::spawn(name, enclosure.command(name).args(flags), &layout.logs());
        let etcd = spawn("etcd", &etcd())?;
        let mut api_server = spawn("kube-apiserver", &api_server())?;
        // The API server makes its certificate at its start.
        let certificate = state.join("certificates/apiserver.crt");
        api_server.ready(interruption, || write_access(layout, &fs::read_to_string(&certificate)?))?;
        api_server.ready(interruption, || {
            program::output(kubectl(enclosure).args(["get", "--raw", "/readyz", "--request-timeout=5s"])).map(drop)
        })?;
        let others = [
            ("kube-controller-manager", controller_manager()),
            ("kube-scheduler", scheduler()),
            ("coredns", vec!["-conf".into(), in_state("Corefile")]),
        ];
        let mut components = vec![etcd, api_server];
        for (name, flags) in &others {
            components.push(spawn(name, flags)?);
        }
        apply(enclosure, &dns().to_string())?;
        Ok(Self { components })
    }

    /// Fails if a program has ended.
    pub fn check(&mut self) -> Result<()> {
        self.components.iter_mut().try_for_each(Component::check)
    }
}

/// A command of kubectl with all permissions.
pub fn kubectl(enclosure: &Enclosure) -> Command {
    let mut kubectl = enclosure.command("kubectl");
    kubectl.args(["--kubeconfig", KUBECONFIG]);
    kubectl
}

/// Creates or changes objects, which are YAML or JSON.
pub fn apply(enclosure: &Enclosure, objects: &str) -> Result<()> {
    let mut kubectl = kubectl(enclosure);
    kubectl.args(["apply", "--server-side", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = kubectl.spawn().context("failed to start kubectl")?;
    let mut input = child.stdin.take().context("kubectl has no standard input")?;
    input.write_all(objects.as_bytes()).context("failed to write to kubectl")?;
    drop(input);
    ensure!(child.wait().context("failed to wait for kubectl")?.success(), "failed to create the cluster's objects");
    Ok(())
}

/// Waits until a Deployment or `DaemonSet` has all its pods, and they are ready. `name` has the kind, as in `daemonset/portmap`.
pub fn wait(enclosure: &Enclosure, interruption: &Interruption, namespace: &str, name: &str) -> Result<()> {
    let mut rollout = kubectl(enclosure);
    rollout.args(["--namespace", namespace, "rollout", "status", name, ROLLOUT_LIMIT]).stdout(Stdio::null());
    interruption.run(&format!("wait for {name}"), &mut rollout)
}

/// 128 random bits as hexadecimal digits.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("failed to read random numbers")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Writes the certificate authority of the API server and the kubeconfig file. `chain` has the certificate of the API server,
/// followed by that of its authority.
fn write_access(layout: &Layout, chain: &str) -> Result<()> {
    let start = chain.rfind("-----BEGIN CERTIFICATE-----").context("the API server has no certificate yet")?;
    ensure!(chain.trim_end().ends_with("-----END CERTIFICATE-----"), "the API server writes its certificate");
    write(layout, "authority.crt", &chain[start..])?;
    let tokens = fs::read_to_string(layout.state().join("tokens")).context("failed to read the file of tokens")?;
    let token = tokens.split(',').next().unwrap_or_default();
    let server = format!("https://{CONTROL_PLANE}:{API_PORT}");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": in_state("authority.crt")}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    });
    write(layout, "kubeconfig", &kubeconfig.to_string())
}

fn write(layout: &Layout, name: &str, text: &str) -> Result<()> {
    let path = layout.state().join(name);
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The path of a file of the state, inside the namespaces.
fn in_state(name: &str) -> String {
    format!("/mnt/work/state/{name}")
}

fn etcd() -> Vec<String> {
    let (clients, peers) = (format!("unix://{}", in_state("etcd.sock")), format!("unix://{}", in_state("etcd-peers.sock")));
    vec![
        format!("--data-dir={}", in_state("etcd")),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // The data need not survive a crash of the machine.
        "--unsafe-no-fsync".into(),
    ]
}

fn api_server() -> Vec<String> {
    vec![
        format!("--etcd-servers=unix://{}", in_state("etcd.sock")),
        format!("--advertise-address={CONTROL_PLANE}"),
        format!("--secure-port={API_PORT}"),
        format!("--cert-dir={}", in_state("certificates")),
        format!("--token-auth-file={}", in_state("tokens")),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        // The API server makes this key together with its certificate.
        format!("--service-account-key-file={}", in_state("certificates/apiserver.key")),
        format!("--service-account-signing-key-file={}", in_state("certificates/apiserver.key")),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--kubelet-preferred-address-types=InternalIP".into(),
    ]
}

fn controller_manager() -> Vec<String> {
    vec![
        format!("--kubeconfig={KUBECONFIG}"),
        "--leader-elect=false".into(),
        format!("--cert-dir={}", in_state("controller-manager")),
        format!("--service-account-private-key-file={}", in_state("certificates/apiserver.key")),
        format!("--root-ca-file={}", in_state("authority.crt")),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
    ]
}

fn scheduler() -> Vec<String> {
    let directory = in_state("scheduler");
    vec![format!("--kubeconfig={KUBECONFIG}"), "--leader-elect=false".into(), format!("--cert-dir={directory}")]
}

/// The configuration of `CoreDNS`. Other names than those of the cluster do not exist, because there is no way to the Internet.
fn corefile() -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{\n  errors\n  kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    \
         kubeconfig {KUBECONFIG}\n    ttl 5\n  }}\n}}\n.:53 {{\n  errors\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n"
    )
}

/// The Service of the cluster's DNS, and its endpoint.
fn dns() -> Value {
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    let (name, namespace) = ("kube-dns", "kube-system");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": DNS, "ports": ports},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [CONTROL_PLANE], "conditions": {"ready": true}}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]})
}
