//! Helm installs, upgrades and uninstalls the chart with a real API server, which checks the objects.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::ListParams;
use kube::{Api, Client};
use portmap_harness::control_plane::ControlPlane;
use serde_json::Value;

use crate::helm::{CHART, helm};
use crate::render::{cases, values_of};

/// The API server has no types of the Prometheus Operator. Helm creates the namespace.
const WITHOUT: &str =
    "serviceMonitor.enabled=false,podMonitor.enabled=false,prometheusRule.enabled=false,namespace.create=false";

#[tokio::test]
async fn the_cases_are_installed_upgraded_and_uninstalled() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let client = plane.admin()?;
    let kubeconfig = plane.admin_kubeconfig().to_str().context("the path is no text")?;
    for case in cases()? {
        let name = case.file_name().and_then(|name| name.to_str()).context("the name is no text")?;
        let values = values_of(&case)?;
        let run = |action: &str, arguments: &[&str]| {
            let arguments = [&[action, name, "--namespace", name, "--kubeconfig", kubeconfig], arguments].concat();
            helm(&arguments)?.expect(0).with_context(|| format!("helm {action} of the case {name}"))
        };
        run("install", &[CHART, "--create-namespace", "--values", &values, "--set", WITHOUT])?;
        ensure!(!arguments(&client, name).await?.contains("--cleanup-on-exit"), "{name}");
        run("upgrade", &[CHART, "--reuse-values", "--set", "extraArgs={--cleanup-on-exit}"])?;
        ensure!(arguments(&client, name).await?.contains("--cleanup-on-exit"), "{name}");
        run("uninstall", &[])?;
        ensure!(owned(&client, name).await? == 0, "helm uninstall left objects of {name}");
    }
    Ok(())
}

/// The arguments of the agent in the only `DaemonSet` of a release.
async fn arguments(client: &Client, release: &str) -> Result<String> {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), release).list(&labels(release)).await?.items;
    let [set] = &sets[..] else { anyhow::bail!("{} DaemonSets", sets.len()) };
    let set: Value = serde_json::to_value(set)?;
    Ok(set["spec"]["template"]["spec"]["containers"][0]["args"].to_string())
}

/// The number of `DaemonSets`, roles and bindings of a release.
async fn owned(client: &Client, release: &str) -> Result<usize> {
    let labels = labels(release);
    let sets = Api::<DaemonSet>::namespaced(client.clone(), release).list(&labels).await?.items.len();
    let roles = Api::<ClusterRole>::all(client.clone()).list(&labels).await?.items.len();
    let bindings = Api::<ClusterRoleBinding>::all(client.clone()).list(&labels).await?.items.len();
    Ok(sets + roles + bindings)
}

fn labels(release: &str) -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/instance={release}"))
}
