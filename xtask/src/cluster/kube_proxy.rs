//! kube-proxy as the Service proxy of the cluster, from which portmap takes over.

use std::process::Stdio;

use anyhow::Result;

use super::addresses::{API_PORT, CONTROL_PLANE};
use super::control_plane::{apply, kubectl};
use super::enclosure::Enclosure;
use super::interruption::Interruption;
use crate::program;

const DAEMON_SET: &str = "daemonset/kube-proxy";
const NAMESPACE: [&str; 2] = ["--namespace", "kube-system"];

/// Creates the objects of kube-proxy. Gives it an address of the API server that works without a Service proxy.
pub fn deploy(enclosure: &Enclosure) -> Result<()> {
    apply(enclosure, include_str!("kube_proxy.yaml"))?;
    let variables = [format!("KUBERNETES_SERVICE_HOST={CONTROL_PLANE}"), format!("KUBERNETES_SERVICE_PORT={API_PORT}")];
    program::output(kubectl(enclosure).args(NAMESPACE).args(["set", "env", DAEMON_SET]).args(variables)).map(drop)
}

/// Waits until kube-proxy is ready on all nodes.
pub fn wait(enclosure: &Enclosure, interruption: &Interruption) -> Result<()> {
    let mut rollout = kubectl(enclosure);
    rollout.args(NAMESPACE).args(["rollout", "status", DAEMON_SET, "--timeout=120s"]).stdout(Stdio::null());
    interruption.run("wait for kube-proxy on all nodes", &mut rollout)
}
