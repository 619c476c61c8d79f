//! kube-proxy as the Service proxy of the cluster, from which portmap takes over.

use anyhow::Result;

use super::addresses::{API_PORT, CONTROL_PLANE};
use super::control_plane::{apply, kubectl};
use super::enclosure::Enclosure;
use crate::program;

/// The name of the `DaemonSet`, with its kind, and its namespace.
pub const DAEMON_SET: &str = "daemonset/kube-proxy";
pub const NAMESPACE: &str = "kube-system";

/// Creates the objects of kube-proxy. Gives it an address of the API server that works without a Service proxy.
pub fn deploy(enclosure: &Enclosure) -> Result<()> {
    apply(enclosure, include_str!("kube_proxy.yaml"))?;
    let variables = [format!("KUBERNETES_SERVICE_HOST={CONTROL_PLANE}"), format!("KUBERNETES_SERVICE_PORT={API_PORT}")];
    program::output(kubectl(enclosure).args(["--namespace", NAMESPACE, "set", "env", DAEMON_SET]).args(variables)).map(drop)
}
