//! The real kube-proxy, in its nftables mode.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::binaries::{Program, binary};
use super::component::Component;

/// A running kube-proxy. Dropping this kills it; its nftables rules stay until its network namespace is removed.
#[derive(Debug)]
pub struct Proxy(Component);

impl Proxy {
    /// Builds kube-proxy if needed and starts it in the network namespace of the calling thread. Does not wait until kube-proxy
    /// has written its rules.
    pub(super) fn start(home: &Path, kubeconfig: &Path, node: &str) -> Result<Self> {
        let program = binary(Program::Proxy)?;
        let path = home.join("kube-proxy.yaml");
        fs::write(&path, configuration(kubeconfig, node)).with_context(|| format!("failed to write {}", path.display()))?;
        Component::spawn("kube-proxy", &program, &[format!("--config={}", path.display())], home).map(Self)
    }

    /// Fails with the end of kube-proxy's log if kube-proxy has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.0.check_alive()
    }
}

/// Removes the rules of kube-proxy from the network namespace of the calling thread: `kube-proxy --cleanup`.
pub fn clean_up() -> Result<()> {
    let mut command = Command::new(binary(Program::Proxy)?);
    let output = command.arg("--cleanup").stdin(Stdio::null()).output().context("failed to run kube-proxy --cleanup")?;
    ensure!(output.status.success(), "kube-proxy --cleanup failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

/// The text of the configuration file. It is JSON, which every YAML parser reads.
fn configuration(kubeconfig: &Path, node: &str) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": node,
        "mode": "nftables",
        // The shortest delay between two synchronizations, because tests wait for every change.
        "nftables": {"minSyncPeriod": "10ms"},
        // The interfaces `pod…` of a test's node lead to its pods. Their connections count as connections of this node's pods.
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "pod"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // These values leave the sysctls and the OOM score of the machine unchanged.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
    .to_string()
}
