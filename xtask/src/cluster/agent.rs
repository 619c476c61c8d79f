//! portmap as the Service proxy of the cluster, installed with its Helm chart.

use std::process::Command;

use anyhow::Result;

use super::addresses::{API_PORT, CONTROL_PLANE};
use super::control_plane::KUBECONFIG;
use super::enclosure::Enclosure;
use crate::{program, workspace};

/// The name of the `DaemonSet`, with its kind, and its namespace.
pub const DAEMON_SET: &str = "daemonset/portmap";
pub const NAMESPACE: &str = "portmap-system";

/// Installs the Helm chart. No node may exist yet, so this does not wait.
pub fn deploy(enclosure: &Enclosure) -> Result<()> {
    let mut helm = helm(enclosure);
    helm.args(["install", "portmap", "--namespace", NAMESPACE, "--create-namespace"]).args(chart());
    program::output(&mut helm).map(drop)
}

/// A command of helm with all permissions.
pub fn helm(enclosure: &Enclosure) -> Command {
    let mut helm = enclosure.command("helm");
    helm.env("KUBECONFIG", KUBECONFIG);
    helm
}

/// Arguments of helm: the chart, and the values that it needs here. These are an address of the API server that works without a
/// Service proxy, and an image without a registry.
pub fn chart() -> Vec<String> {
    let values =
        [format!("k8sServiceHost={CONTROL_PLANE}"), format!("k8sServicePort={API_PORT}"), "image.pullPolicy=Never".to_owned()];
    let directory = workspace::root().join("deploy/chart/portmap").display().to_string();
    [directory].into_iter().chain(values.into_iter().flat_map(|value| ["--set".to_owned(), value])).collect()
}
