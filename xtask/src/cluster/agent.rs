//! portmap as the Service proxy of the cluster, deployed with `deploy/portmap.yaml`.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::addresses::{API_PORT, CONTROL_PLANE};
use super::control_plane::{apply, kubectl};
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

/// Creates the objects of the manifest. Gives the agent an address of the API server that works without a Service proxy.
///
/// No node may exist yet. Otherwise the agents would be started and then replaced.
pub fn deploy(enclosure: &Enclosure) -> Result<()> {
    apply(enclosure, &manifest()?)?;
    let variables = [format!("KUBERNETES_SERVICE_HOST={CONTROL_PLANE}"), format!("KUBERNETES_SERVICE_PORT={API_PORT}")];
    program::output(kubectl(enclosure).args(NAMESPACE).args(["set", "env", DAEMON_SET]).args(variables)).map(drop)
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
