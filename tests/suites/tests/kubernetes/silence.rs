//! Nothing comes any more, and nobody says so: a firewall has forgotten the connections, or the API server hangs. After a minute and
//! a half without so much as a bookmark the agent gives the connections up. These tests take some minutes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::control_plane::gate::{Gate, Mode};

use crate::cluster::{COMMON_PORT, Cluster, rows};
use crate::traffic::Traffic;
use crate::wait::{MINUTES, within};

#[tokio::test]
async fn connections_that_lead_nowhere_are_given_up() -> Result<()> {
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
    within(MINUTES, async || cluster.status(), |status| !status.is_fine("source")).await.context("nobody notices")?;
    ensure!(cluster.table()? == everything, "the tables have changed");
    ensure!(agent.health("healthz")?.status == 200, "the API server's trouble is not this node's");

    gate.set(Mode::Open);
    within(MINUTES, async || cluster.table(), |found| *found == rows("web", "http", &web, &both)).await?;
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    cluster.await_errors(&old, "ETIMEDOUT").await?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during all that")
}

#[tokio::test]
async fn an_api_server_that_hangs_is_given_up_and_found_again() -> Result<()> {
    let mut cluster = Cluster::start("hanging").await?;
    let agent = cluster.agent().await?;
    cluster.apply_service("web", "http", &COMMON_PORT.to_string()).await?;
    let web = cluster.frontends("web").await?;
    let table = rows("web", "http", &web, &[(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)]);
    cluster.await_table(&table).await?;

    cluster.plane.freeze()?;
    within(MINUTES, async || cluster.status(), |status| !status.is_fine("source")).await.context("nobody notices")?;
    ensure!(cluster.table()? == table, "the tables have changed");
    ensure!(agent.health("healthz")?.status == 200, "the API server's trouble is not this node's");
    cluster.expect_landings(&web, &[(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)])?;

    cluster.plane.thaw()?;
    cluster.delete_service("web").await?;
    within(MINUTES, async || cluster.table(), BTreeSet::is_empty).await?;
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    agent.terminate()
}
