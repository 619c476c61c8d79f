//! portmap as the Service proxy of the cluster, installed with its Helm chart.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::addresses::{API_PORT, CONTROL_PLANE};
use super::control_plane::{KUBECONFIG, kubectl};
use super::enclosure::Enclosure;
use super::interruption::Interruption;
use crate::{program, workspace};

const DAEMON_SET: &str = "daemonset/portmap";
const NAMESPACE: [&str; 2] = ["--namespace", "portmap-system"];

/// The name of the agent's image in the manifest.
pub fn image_name() -> Result<String> {
    let manifest = manifest()?;
    let name = manifest.lines().find_map(|line| line.trim().strip_prefix("image: "));
    Ok(name.context("the manifest of the DaemonSet has no image")?.to_owned())
}

/// Installs the Helm chart. No node may exist yet, so this does not wait.
pub fn deploy(enclosure: &Enclosure) -> Result<()> {
    let mut helm = helm(enclosure);
    helm.args(["install", "portmap"]).arg(chart()).args(NAMESPACE).arg("--create-namespace").args(values());
    program::output(&mut helm).map(drop)
}

/// A command of helm with all permissions.
pub fn helm(enclosure: &Enclosure) -> Command {
    let mut helm = enclosure.command("helm");
    helm.env("KUBECONFIG", KUBECONFIG);
    helm
}

/// The directory of the Helm chart.
pub fn chart() -> PathBuf {
    workspace::root().join("deploy/chart/portmap")
}

/// Arguments of helm with the values that the chart needs here: an address of the API server that works without a Service proxy,
/// and an image without a registry.
pub fn values() -> Vec<String> {
    let values =
        [format!("k8sServiceHost={CONTROL_PLANE}"), format!("k8sServicePort={API_PORT}"), "image.pullPolicy=Never".to_owned()];
    values.into_iter().flat_map(|value| ["--set".to_owned(), value]).collect()
}

/// Waits until the agents on all nodes are ready.
pub fn wait(enclosure: &Enclosure, interruption: &Interruption) -> Result<()> {
    let mut rollout = kubectl(enclosure);
    rollout.args(NAMESPACE).args(["rollout", "status", DAEMON_SET, "--timeout=120s"]).stdout(Stdio::null());
    interruption.run("wait for the agents on all nodes", &mut rollout)
}

fn manifest() -> Result<String> {
    let path = workspace::root().join("deploy/portmap.yaml");
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}
