//! The history after a broken watch is compacted: the API server answers 410 Gone, and the agent lists again.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::gate::{Gate, Mode};

use crate::cluster::{COMMON_PORT, Cluster, rows};
use crate::wait::eventually;

/// Arguments of an API server that reads from etcd instead of a cache. etcd keeps the history for at most two of these
/// intervals.
const FORGETFUL: [&str; 2] = ["--watch-cache=false", "--etcd-compaction-interval=1s"];

#[tokio::test]
async fn objects_deleted_before_the_history_are_removed() -> Result<()> {
    let cluster = Cluster::start_on(ControlPlane::start_with(&FORGETFUL).await?, "relist").await?;
    let gate = Gate::start(cluster.plane.address()).await?;
    let agent = cluster.agent_by(&gate.url()).await?;
    let target = COMMON_PORT.to_string();
    for name in ["stays", "goes"] {
        cluster.apply_service(name, "http", &target).await?;
    }
    let (stays, goes) = (cluster.frontends("stays").await?, cluster.frontends("goes").await?);
    let both = [(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)];
    let of = |name: &str, frontends: &[SocketAddr; 2]| rows(name, "http", frontends, &both);
    let everything: BTreeSet<_> = of("stays", &stays).into_iter().chain(of("goes", &goes)).collect();
    cluster.await_table(&everything).await?;

    gate.set(Mode::Reset);
    let before = version(&cluster).await?;
    cluster.delete_service("goes").await?;
    cluster.delete(&cluster.b).await?;
    cluster.apply_service("comes", "http", &target).await?;
    await_compaction(&cluster, &before).await?;
    ensure!(cluster.table()? == everything, "the tables should not change behind the gate");
    cluster.expect_landings(&[stays, goes].concat(), &both)?;

    gate.set(Mode::Open);
    let comes = cluster.frontends("comes").await?;
    let left = [(&cluster.a, COMMON_PORT)];
    let rest: BTreeSet<_> =
        rows("stays", "http", &stays, &left).into_iter().chain(rows("comes", "http", &comes, &left)).collect();
    cluster.await_table(&rest).await?;
    cluster.expect_landings(&[stays, comes].concat(), &left)?;
    cluster.await_errors(&goes, "ETIMEDOUT").await?;
    agent.await_log("too old").await.context("the agent should have listed again")?;
    agent.terminate()
}

async fn version(cluster: &Cluster) -> Result<String> {
    let services: Api<Service> = Api::all(cluster.plane.admin()?);
    services.list(&ListParams::default()).await?.metadata.resource_version.context("a list has a resourceVersion")
}

/// Waits until the API server refuses a watch from this version. etcd compacts only up to a later version, so each attempt
/// makes a change.
async fn await_compaction(cluster: &Cluster, version: &str) -> Result<()> {
    let look = async || {
        cluster.patch_service("stays", &serde_json::json!({"metadata": {"annotations": {"looked-at": now()}}})).await?;
        let services: Api<Service> = Api::all(cluster.plane.admin()?);
        let events = services.watch(&WatchParams::default().timeout(1), version).await?;
        let first = std::pin::pin!(events).try_next().await?;
        Ok(matches!(first, Some(WatchEvent::Error(status)) if status.code == 410))
    };
    eventually(look, |is_gone| *is_gone).await.context("the history is not compacted")?;
    Ok(())
}

fn now() -> String {
    format!("{:?}", std::time::SystemTime::now())
}
