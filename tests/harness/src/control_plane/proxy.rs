//! The real kube-proxy, in its nftables mode.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::binaries::{Program, binary};
use super::process::Process;

/// A running kube-proxy, killed when dropped. What it wrote goes with its network namespace.
#[derive(Debug)]
pub struct Proxy(Process);

impl Proxy {
    /// Starts one, and builds it if need be. It is not waited for: what it does shows in the packet filter.
    pub(super) fn start(home: &Path, kubeconfig: &Path, node: &str) -> Result<Self> {
        let program = binary(Program::Proxy)?;
        let path = home.join("kube-proxy.yaml");
        fs::write(&path, configuration(kubeconfig, node)).with_context(|| format!("failed to write {}", path.display()))?;
        Process::spawn("kube-proxy", &program, &[format!("--config={}", path.display())], home).map(Self)
    }

    /// Fails with the end of its log if it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.0.check_alive()
    }
}

/// JSON, which is YAML as well.
fn configuration(kubeconfig: &Path, node: &str) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": node,
        "mode": "nftables",
        // It need not spare the processor: who waits for it waits for every change.
        "nftables": {"minSyncPeriod": "10ms"},
        // Which clients are pods of the node: those behind the interfaces that a world makes.
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "pod"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // Settings of the whole machine, which are not to be changed.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
    .to_string()
}
