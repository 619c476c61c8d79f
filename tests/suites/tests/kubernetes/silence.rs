//! Connections on which no data arrives and no error: a firewall has lost its state, or the API server hangs. The agent gives
//! up a watch after 90 seconds without any event or bookmark. These tests take some minutes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::control_plane::gate::{Gate, Mode};

use crate::cluster::{COMMON_PORT, Cluster, rows};
use crate::traffic::Traffic;
use crate::wait::{MINUTES, within};

#[tokio::test]
async fn dead_connections_are_given_up() -> Result<()> {
    let cluster = Cluster::start("silence").await?;
    let gate = Gate::start(cluster.plane.address()).await?;
    let agent = cluster.agent_by(&gate.url()).await?;
    let both = [(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)];
    for name in ["web", "old"] {
        cluster.apply_service(name, "http", &COMMON_PORT.to_string()).await?;
    }
    let (web, old) = (cluster.frontends("web").await?, cluster.frontends("old").await?);
    let everything: BTreeSet<_> =
        rows("web", "http", &web, &both).into_iter().chain(rows("old", "http", &old, &both)).collect();
    cluster.await_table(&everything).await?;
    let traffic = Traffic::start(&cluster.world, web)?;

    gate.set(Mode::Silent);
    cluster.delete_service("old").await?;
    within(MINUTES, async || cluster.status(), |status| !status.is_fine("source"))
        .await
        .context("the status does not show the failing watch")?;
    ensure!(cluster.table()? == everything, "the tables should not change");
    ensure!(agent.health("healthz")?.status == 200, "an unreachable API server should not make the node unhealthy");

    gate.set(Mode::Open);
    within(MINUTES, async || cluster.table(), |found| *found == rows("web", "http", &web, &both)).await?;
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    cluster.await_errors(&old, "ETIMEDOUT").await?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during the test")
}

#[tokio::test]
async fn a_hanging_api_server_is_given_up_and_used_again() -> Result<()> {
    let mut cluster = Cluster::start("hanging").await?;
    let agent = cluster.agent().await?;
    cluster.apply_service("web", "http", &COMMON_PORT.to_string()).await?;
    let web = cluster.frontends("web").await?;
    let table = rows("web", "http", &web, &[(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)]);
    cluster.await_table(&table).await?;

    cluster.plane.freeze()?;
    within(MINUTES, async || cluster.status(), |status| !status.is_fine("source"))
        .await
        .context("the status does not show the failing watch")?;
    ensure!(cluster.table()? == table, "the tables should not change");
    ensure!(agent.health("healthz")?.status == 200, "a hanging API server should not make the node unhealthy");
    cluster.expect_landings(&web, &[(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)])?;

    cluster.plane.thaw()?;
    cluster.delete_service("web").await?;
    within(MINUTES, async || cluster.table(), BTreeSet::is_empty).await?;
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    agent.terminate()
}
