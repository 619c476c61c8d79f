//! What an operator does, with kubectl and helm.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{AGENT_NAMESPACE, AGNHOST, Cluster, EARLIER, Interruption, PAUSE, chart, image_name};
use crate::{program, workspace};

/// Time limit for draining a node.
const LIMIT: &str = "--timeout=180s";
/// A label that no node has: a `DaemonSet` that selects it has no pods.
const NOWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"without-kube-proxy":"no"}}}}}"#;
const EVERYWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":null}}}}"#;

/// An operator of the cluster.
pub struct Operator<'a> {
    pub cluster: &'a Cluster<'a>,
    pub interruption: &'a Interruption,
}

impl Operator<'_> {
    /// Runs kubectl to its end. Returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        program::output(self.cluster.kubectl().args(arguments))
    }

    /// Creates or changes objects, which are YAML or JSON.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.cluster.apply(objects)
    }

    /// The name of one of Kubernetes' images, with its tag.
    pub fn image(&self, name: &str) -> Result<String> {
        image_name(self.cluster.layout(), name)
    }

    pub fn install_earlier(&self) -> Result<()> {
        self.helm("install", &[&format!("image.tag={EARLIER}")])?;
        self.check_agents()
    }

    /// Runs the tests of the chart.
    pub fn test(&self) -> Result<()> {
        let mut helm = self.cluster.helm();
        program::output(helm.args(["test", "portmap", "--namespace", AGENT_NAMESPACE, "--logs"])).map(drop)
    }

    /// Changes values of the chart, and waits until all agents are replaced. Values of earlier upgrades no longer hold.
    pub fn upgrade(&self, values: &[&str]) -> Result<()> {
        self.helm("upgrade", values)?;
        self.check_agents()
    }

    pub fn stop_kube_proxy(&self) -> Result<()> {
        self.kubectl(&["--namespace", "kube-system", "patch", "daemonset", "kube-proxy", "--patch", NOWHERE])?;
        self.await_end_of_pods("kube-system", "app=kube-proxy")?;
        self.on_all_nodes("kube-proxy-cleanup", "localhost/kube-proxy:test", &["/kube-proxy", "--cleanup"])
    }

    pub fn end_agents(&self) -> Result<()> {
        self.kubectl(&["--namespace", AGENT_NAMESPACE, "delete", "pods", "--all", "--wait", "--grace-period=1"])?;
        self.check_agents()
    }

    pub fn drain(&self) -> Result<()> {
        self.kubectl(&["drain", "node-2", "--ignore-daemonsets", LIMIT])?;
        self.cluster.wait_for("default", "deployment/web")?;
        self.kubectl(&["uncordon", "node-2"])?;
        self.check_agents()
    }

    pub fn uninstall(&self) -> Result<()> {
        self.kubectl(&["--namespace", "kube-system", "patch", "daemonset", "kube-proxy", "--patch", EVERYWHERE])?;
        self.cluster.wait_for("kube-system", "daemonset/kube-proxy")?;
        self.helm("uninstall", &[])?;
        self.await_end_of_pods(AGENT_NAMESPACE, "app.kubernetes.io/name=portmap")?;
        let manifest =
            fs::read_to_string(workspace::root().join("deploy/cleanup.yaml")).context("failed to read a manifest")?;
        let pause = self.image(PAUSE)?;
        self.apply(&manifest.replace("registry.k8s.io/pause:3.10.1", &pause))?;
        self.cluster.wait_for(AGENT_NAMESPACE, "daemonset/portmap-cleanup")?;
        self.kubectl(&["--namespace", AGENT_NAMESPACE, "delete", "daemonset", "portmap-cleanup"]).map(drop)
    }

    /// Fails if an object of the chart, a pin, or a filter is left.
    pub fn finds_nothing(&self) -> Result<()> {
        let kinds = "daemonsets,serviceaccounts,services,configmaps,clusterroles,clusterrolebindings";
        let selector = "app.kubernetes.io/name=portmap";
        let objects = self.kubectl(&["get", kinds, "--all-namespaces", "--selector", selector, "--output", "name"])?;
        ensure!(objects.is_empty(), "helm uninstall has left {objects}");
        let looks = "test ! -e /sys/fs/bpf/portmap && ! tc filter show dev eth0 ingress | grep portmap";
        self.on_all_nodes("look", &self.image(AGNHOST)?, &["bash", "-c", looks])
    }

    /// Waits until the agents on all nodes are ready, and checks that `portmap status` finds no fault on any of them.
    fn check_agents(&self) -> Result<()> {
        self.cluster.wait_for(AGENT_NAMESPACE, "daemonset/portmap")?;
        let pods = self.kubectl(&["--namespace", AGENT_NAMESPACE, "get", "pods", "--output", "name"])?;
        for pod in pods.lines() {
            self.kubectl(&["--namespace", AGENT_NAMESPACE, "exec", pod, "--", "portmap", "status"])
                .with_context(|| format!("portmap is not healthy in {pod}"))?;
        }
        Ok(())
    }

    fn helm(&self, command: &str, values: &[&str]) -> Result<()> {
        let mut helm = self.cluster.helm();
        helm.args([command, "portmap", "--namespace", AGENT_NAMESPACE]);
        if command != "uninstall" {
            helm.args(chart());
            helm.args(values.iter().flat_map(|value| ["--set", value]));
        }
        if command == "install" {
            helm.arg("--create-namespace");
        }
        program::output(&mut helm).map(drop)
    }

    /// Runs a command as root in the network of each node, with the node's BPF file system, and waits until it has succeeded on
    /// each.
    fn on_all_nodes(&self, name: &str, image: &str, command: &[&str]) -> Result<()> {
        let pause = self.image(PAUSE)?;
        let manifest = include_str!("on_all_nodes.yaml").replace("NAME", name).replace("IMAGE", image).replace("PAUSE", &pause);
        self.apply(&manifest.replace("COMMAND", &serde_json::to_string(command)?))?;
        self.cluster.wait_for("kube-system", &format!("daemonset/{name}"))?;
        self.kubectl(&["--namespace", "kube-system", "delete", "daemonset", name]).map(drop)
    }

    fn await_end_of_pods(&self, namespace: &str, selector: &str) -> Result<()> {
        let limit = Duration::from_mins(2);
        self.interruption.until(limit, || {
            let pods = self.kubectl(&["--namespace", namespace, "get", "pods", "--selector", selector, "--output", "name"])?;
            ensure!(pods.is_empty(), "pods do not end: {pods}");
            Ok(())
        })
    }
}
