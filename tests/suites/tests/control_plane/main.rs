//! Tests of the harness: its control plane behaves like a cluster.
//!
//! Needs: root and BPF, control plane.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::objects::{
    PodSpec, Readiness, apply_pod, apply_yaml, await_slices, create_node, delete_pod, set_ready, terminate_pod,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
";

/// All checks share one control plane, because its start takes most of the time.
#[tokio::test]
async fn the_control_plane_behaves_like_a_cluster() -> Result<()> {
    let mut plane = ControlPlane::start().await?;
    let client = plane.admin()?;
    named_ports_differ_between_pods(&client).await.context("named ports")?;
    pods_come_and_go(&client).await.context("pods")?;
    unknown_fields_are_refused(&client).await.context("strictness")?;
    service_accounts_may_do_what_their_role_says(&plane).await.context("service accounts")?;
    the_api_server_comes_back(&mut plane).await.context("restart")?;
    Ok(())
}

async fn named_ports_differ_between_pods(client: &Client) -> Result<()> {
    create_node(client, "node-1", &["192.0.2.11".parse()?]).await?;
    apply_yaml(client, WEB).await?;
    apply_web_pod(client, "old", "10.244.1.1", 8080).await?;
    apply_web_pod(client, "new", "10.244.1.2", 9090).await?;

    let expected = BTreeSet::from(["10.244.1.1:8080".to_owned(), "10.244.1.2:9090".to_owned()]);
    await_slices(client, "shop", "web", PATIENCE, |slices| ready_endpoints(slices) == expected).await?;
    Ok(())
}

async fn pods_come_and_go(client: &Client) -> Result<()> {
    set_ready(client, "shop", "new", Readiness::NotReady).await?;
    await_slices(client, "shop", "web", PATIENCE, |slices| ready_endpoints(slices).len() == 1).await?;
    set_ready(client, "shop", "new", Readiness::Ready).await?;
    await_slices(client, "shop", "web", PATIENCE, |slices| ready_endpoints(slices).len() == 2).await?;
    terminate_pod(client, "shop", "new").await?;
    await_slices(client, "shop", "web", PATIENCE, |slices| terminating(slices) == 1).await?;
    delete_pod(client, "shop", "new").await?;
    await_slices(client, "shop", "web", PATIENCE, |slices| slices.iter().flat_map(endpoints).count() == 1).await?;
    Ok(())
}

async fn unknown_fields_are_refused(client: &Client) -> Result<()> {
    let outcome = apply_yaml(client, &WEB.replace("selector", "selectors")).await;
    let refusal = outcome.err().context("a misspelt field was accepted")?;
    ensure!(format!("{refusal:#}").contains("selectors"), "refused for another reason: {refusal:#}");
    Ok(())
}

async fn service_accounts_may_do_what_their_role_says(plane: &ControlPlane) -> Result<()> {
    apply_yaml(&plane.admin()?, READER).await?;
    let kubeconfig = Kubeconfig::read_from(plane.service_account_kubeconfig("shop", "reader").await?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let reader = Client::try_from(config)?;

    let services: Api<Service> = Api::all(reader.clone());
    let names: Vec<_> = services.list(&ListParams::default()).await?.into_iter().filter_map(|s| s.metadata.name).collect();
    ensure!(names.contains(&"web".to_owned()), "the Services listed are {names:?}");

    let secrets: Api<Secret> = Api::all(reader);
    match secrets.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => bail!("listing Secrets should be forbidden: {other:?}"),
    }
}

async fn the_api_server_comes_back(plane: &mut ControlPlane) -> Result<()> {
    let client = plane.admin()?;
    plane.freeze()?;
    let answer = timeout(Duration::from_millis(200), client.apiserver_version()).await;
    ensure!(answer.is_err(), "a frozen API server answered");
    plane.thaw()?;
    client.apiserver_version().await.context("after the thaw")?;

    plane.kill_api_server()?;
    ensure!(plane.admin()?.apiserver_version().await.is_err(), "a dead API server answered");
    ensure!(plane.freeze().is_err(), "a dead API server was sent a signal");
    plane.restart_api_server().await?;
    apply_web_pod(&plane.admin()?, "newer", "10.244.1.3", 7070).await?;
    let expected = BTreeSet::from(["10.244.1.1:8080".to_owned(), "10.244.1.3:7070".to_owned()]);
    await_slices(&plane.admin()?, "shop", "web", PATIENCE, |slices| ready_endpoints(slices) == expected).await?;
    Ok(())
}

async fn apply_web_pod(client: &Client, name: &str, ip: &str, port: u16) -> Result<()> {
    let pod = PodSpec {
        namespace: "shop",
        name,
        labels: &[("app", "web")],
        node: "node-1",
        ips: &[ip.parse()?],
        ports: &[("http", port, "TCP")],
        ready: Readiness::Ready,
    };
    apply_pod(client, pod).await
}

/// The address and port of every ready endpoint, as `address:port`.
fn ready_endpoints(slices: &[EndpointSlice]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for slice in slices {
        let numbers: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
        for endpoint in endpoints(slice).filter(|endpoint| conditions(endpoint).ready == Some(true)) {
            for address in &endpoint.addresses {
                found.extend(numbers.iter().map(|number| format!("{address}:{number}")));
            }
        }
    }
    found
}

fn terminating(slices: &[EndpointSlice]) -> usize {
    let all = slices.iter().flat_map(endpoints);
    all.filter(|endpoint| conditions(endpoint).terminating == Some(true)).count()
}

fn endpoints(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().flatten()
}

fn conditions(endpoint: &Endpoint) -> EndpointConditions {
    endpoint.conditions.clone().unwrap_or_default()
}
