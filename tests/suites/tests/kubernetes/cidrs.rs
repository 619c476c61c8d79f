//! The ranges of ClusterIPs: ServiceCIDR objects in the version that the API server has, else `--service-cidr`. Addresses in a
//! range that no Service has are dropped. Other addresses are left alone.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use portmap_harness::control_plane::objects::await_objects;

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::manifest;
use crate::permissions::{Permission, apply_role, await_access, role_without};
use crate::wait::PATIENCE;

/// An address in the range of ClusterIPs of the API server, which creates a ServiceCIDR for this range.
const OF_THE_CLUSTER: &str = "10.96.99.99:80";
const FLAG: &str = "10.97.0.0/16";
const OF_THE_FLAG: &str = "10.97.99.99:80";
const OLD_RANGE: &str = "10.98.0.0/16";
const OF_THE_OLD_VERSION: &str = "10.98.99.99:80";

/// The error at an address that is not translated and has no route.
const LEFT_ALONE: &str = "ENETUNREACH";
const DROPPED: &str = "ETIMEDOUT";

/// Switches off networking.k8s.io/v1. The API server then allocates no ClusterIPs and never becomes ready, but serves all other
/// requests.
const WITHOUT: &str = "--runtime-config=networking.k8s.io/v1=false";

#[tokio::test]
async fn service_cidrs_come_from_objects_or_from_the_flag() -> Result<()> {
    let mut cluster = Cluster::start("cidrs").await?;
    cluster.apply_service("web", "http", "http").await?;
    let agent = agent(&cluster).await?;
    expect(&cluster, [DROPPED, LEFT_ALONE, LEFT_ALONE]).await.context("networking.k8s.io/v1")?;

    cluster.plane.restart_api_server_with(&[WITHOUT]).await?;
    expect(&cluster, [LEFT_ALONE, DROPPED, LEFT_ALONE]).await.context("the version is removed while the agent runs")?;
    agent.terminate()?;

    offer_old_version(&cluster).await?;
    let agent = self::agent(&cluster).await?;
    expect(&cluster, [LEFT_ALONE, LEFT_ALONE, DROPPED]).await.context("networking.k8s.io/v1beta1")?;
    agent.terminate()?;

    cluster.plane.restart_api_server_with(&[]).await?;
    without_permission(&cluster).await.context("forbidden")
}

/// Without the permission to list ServiceCIDRs the agent uses the flag if it is set, and is healthy.
async fn without_permission(cluster: &Cluster) -> Result<()> {
    let list = Permission { group: "networking.k8s.io".into(), resource: "servicecidrs".into(), verb: "list".into() };
    apply_role(cluster, &role_without(&list)?).await?;
    await_access(cluster, &list, false).await?;
    let agent = agent(cluster).await?;
    agent.await_log("cannot list resource \"servicecidrs\"").await?;
    expect(cluster, [LEFT_ALONE, DROPPED, LEFT_ALONE]).await?;
    cluster.await_healthy().await?;
    agent.terminate()?;

    let agent = cluster.agent().await?;
    expect(cluster, [LEFT_ALONE; 3]).await.context("without a flag")?;
    agent.terminate()?;

    let agent = self::agent(cluster).await?;
    apply_role(cluster, &manifest::document("ClusterRole")?).await?;
    expect(cluster, [DROPPED, LEFT_ALONE, LEFT_ALONE]).await.context("allowed again")?;
    agent.terminate()
}

async fn agent(cluster: &Cluster) -> Result<Agent> {
    cluster.agent_with(&["--service-cidr", FLAG]).await
}

/// Expects these errors at an address of the API server's range, of the flag's range, and of the range in
/// networking.k8s.io/v1beta1.
async fn expect(cluster: &Cluster, errors: [&str; 3]) -> Result<()> {
    for (address, error) in [OF_THE_CLUSTER, OF_THE_FLAG, OF_THE_OLD_VERSION].into_iter().zip(errors) {
        let address: SocketAddr = address.parse()?;
        cluster.await_error(address, error).await.with_context(|| address.to_string())?;
    }
    Ok(())
}

/// Makes the API server serve ServiceCIDR in v1beta1, by a custom resource of that name. Current API servers do not serve that
/// version by default; to clients both look the same.
async fn offer_old_version(cluster: &Cluster) -> Result<()> {
    cluster.apply(include_str!("service-cidr-v1beta1.yaml")).await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.k8s.io", "v1beta1", "ServiceCIDR"));
    let cidrs: Api<DynamicObject> = Api::all_with(cluster.plane.admin()?, &kind);
    await_objects(cidrs, watcher::Config::default(), PATIENCE, <[_]>::is_empty).await.context("the version is not served")?;
    let old = format!(
        "apiVersion: networking.k8s.io/v1beta1\nkind: ServiceCIDR\nmetadata: {{name: old}}\nspec: {{cidrs: [{OLD_RANGE}]}}\n"
    );
    cluster.apply(&old).await
}
