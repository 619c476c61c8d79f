//! Outages of the API server, of the agent, and of both. Connections continue, and the agent applies changes from the outage.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::control_plane::objects::{Readiness, await_slices};

use crate::agent::Agent;
use crate::cluster::{Cluster, Landing, NAMESPACE, rows};
use crate::tables::{Row, Status};
use crate::traffic::Traffic;
use crate::wait::{PATIENCE, eventually};

/// The agent logs this once for a failing watch.
const TROUBLE: &str = "failed to watch";

/// A cluster with the Services `web` and `old` of the same pods. Tests delete `old` during an outage.
struct Shop {
    cluster: Cluster,
    web: [SocketAddr; 2],
    old: [SocketAddr; 2],
}

#[tokio::test]
async fn connections_survive_outages_of_api_server_and_agent() -> Result<()> {
    let mut shop = Shop::open().await?;
    let agent = shop.cluster.agent().await?;
    shop.expect_everything().await.context("at the start")?;
    let traffic = Traffic::start(&shop.cluster.world, shop.web)?;

    shop.the_api_server_hangs(&agent).await.context("API server frozen")?;
    shop.the_api_server_dies(&agent).await.context("API server killed")?;
    drop(agent);
    let agent = shop.the_agent_starts_without_an_api_server().await.context("agent started without an API server")?;
    shop.the_api_server_comes_back(&agent).await.context("API server back")?;
    shop.the_agent_misses_deletions(&agent).await.context("deletions during an outage of the watch")?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during the test")?;
    shop.the_agent_finds_objects_gone().await.context("deletions while there was no agent")
}

impl Shop {
    async fn open() -> Result<Self> {
        let cluster = Cluster::start("outages").await?;
        cluster.apply_service("web", "http", "http").await?;
        cluster.apply_service("old", "http", "http").await?;
        let (web, old) = (cluster.frontends("web").await?, cluster.frontends("old").await?);
        Ok(Self { cluster, web, old })
    }

    fn both(&self) -> [Landing<'_>; 2] {
        let Cluster { a, b, .. } = &self.cluster;
        [(a, a.http), (b, b.http)]
    }

    /// The rows of the tables while both Services have both pods.
    fn rows(&self) -> BTreeSet<Row> {
        let mut all = rows("web", "http", &self.web, &self.both());
        all.extend(rows("old", "http", &self.old, &self.both()));
        all
    }

    async fn expect_everything(&self) -> Result<()> {
        self.cluster.await_table(&self.rows()).await?;
        self.expect_connections()
    }

    /// Connects to both Services without waiting.
    fn expect_connections(&self) -> Result<()> {
        self.cluster.expect_landings(&[self.web, self.old].concat(), &self.both())
    }

    /// Expects the rows of [`Self::rows`] and working connections, without waiting.
    fn expect_unchanged(&self) -> Result<()> {
        ensure!(self.cluster.table()? == self.rows(), "the tables have changed");
        self.expect_connections()
    }

    async fn the_api_server_hangs(&mut self, agent: &Agent) -> Result<()> {
        self.cluster.plane.freeze()?;
        self.expect_unchanged()?;
        self.cluster.plane.thaw()?;
        self.expect_changes_to_arrive(agent).await
    }

    /// Changes the readiness of a pod, and waits for the tables.
    async fn expect_changes_to_arrive(&self, agent: &Agent) -> Result<()> {
        let Cluster { a, b, .. } = &self.cluster;
        self.cluster.set_ready(b, Readiness::NotReady).await?;
        let mut without_b = rows("web", "http", &self.web, &[(a, a.http)]);
        without_b.extend(rows("old", "http", &self.old, &[(a, a.http)]));
        self.cluster.await_table(&without_b).await?;
        self.cluster.set_ready(b, Readiness::Ready).await?;
        self.expect_everything().await?;
        agent.check_alive()
    }

    async fn the_api_server_dies(&mut self, agent: &Agent) -> Result<()> {
        self.cluster.plane.kill_api_server()?;
        agent.await_log(TROUBLE).await?;
        self.expect_unchanged()?;
        let is_shown = |status: &Status| !status.healthy && !status.is_fine("source") && status.synced();
        eventually(async || self.cluster.status(), is_shown).await.context("the status does not show the failing watch")?;
        // An outage of the API server must not drain the node.
        ensure!(agent.health("healthz")?.status == 200, "an outage of the API server should not make the node unhealthy");
        Ok(())
    }

    async fn the_agent_starts_without_an_api_server(&self) -> Result<Agent> {
        let agent = self.cluster.agent().await?;
        agent.await_log(TROUBLE).await?;
        self.expect_unchanged()?;
        let status = self.cluster.status()?;
        let is_shown = !status.healthy && !status.synced() && status.is_fine("programs") && status.is_fine("agent");
        ensure!(is_shown, "the status does not show the outdated tables: {status:?}");
        Ok(agent)
    }

    async fn the_api_server_comes_back(&mut self, agent: &Agent) -> Result<()> {
        self.cluster.plane.restart_api_server().await?;
        self.cluster.await_healthy().await?;
        self.expect_unchanged()?;
        self.expect_changes_to_arrive(agent).await
    }

    /// The restarted server has no history. The agent finds deletions by comparing lists.
    async fn the_agent_misses_deletions(&mut self, agent: &Agent) -> Result<()> {
        agent.freeze()?;
        self.cluster.plane.restart_api_server().await?;
        self.cluster.delete_service("old").await?;
        self.cluster.delete(&self.cluster.b).await?;
        let admin = self.cluster.plane.admin()?;
        await_slices(&admin, NAMESPACE, "web", PATIENCE, |slices| {
            // One endpoint of each family.
            slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).count() == 2
        })
        .await?;
        self.expect_unchanged()?;
        agent.thaw()?;
        self.expect_the_rest().await
    }

    /// Waits until the tables have only `web`, with one pod, and until addresses of `old` are dropped.
    async fn expect_the_rest(&self) -> Result<()> {
        let landings = [(&self.cluster.a, self.cluster.a.http)];
        self.cluster.await_table(&rows("web", "http", &self.web, &landings)).await?;
        self.cluster.expect_landings(&self.web, &landings)?;
        self.cluster.await_errors(&self.old, "ETIMEDOUT").await
    }

    async fn the_agent_finds_objects_gone(&self) -> Result<()> {
        self.cluster.delete_service("web").await?;
        self.expect_the_rest().await?;
        let status = self.cluster.status()?;
        ensure!(!status.healthy && !status.is_fine("agent"), "the status does not show the missing agent: {status:?}");

        let _agent = self.cluster.agent().await?;
        self.cluster.await_table(&BTreeSet::new()).await?;
        self.cluster.await_errors(&self.web, "ETIMEDOUT").await
    }
}
