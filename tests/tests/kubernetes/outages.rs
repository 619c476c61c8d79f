//! The API server is away, or the agent, or both: connections go on, and nothing that happened meanwhile is missed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portmap_tests::control_plane::objects::{Readiness, await_slices};

use crate::agent::Agent;
use crate::cluster::{Cluster, Landing, NAMESPACE, rows};
use crate::tables::Row;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the agent says, once, when a watch fails.
const TROUBLE: &str = "failed to watch";

/// Two Services of the same pods, of which one will be deleted while nobody looks.
struct Shop {
    cluster: Cluster,
    web: [SocketAddr; 2],
    old: [SocketAddr; 2],
}

#[tokio::test]
async fn connections_go_on_without_the_api_server_and_the_agent() -> Result<()> {
    let mut shop = Shop::open().await?;
    let agent = shop.cluster.agent().await?;
    shop.expect_everything().await.context("at the start")?;

    shop.the_api_server_hangs(&agent).await.context("API server frozen")?;
    shop.the_api_server_dies(&agent).await.context("API server killed")?;
    drop(agent);
    let agent = shop.the_agent_starts_without_an_api_server().await.context("agent started without an API server")?;
    shop.the_api_server_comes_back(&agent).await.context("API server back")?;
    shop.the_agent_misses_deletions(&agent).await.context("deletions that the watch missed")?;
    agent.terminate()?;
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

    /// The rows when both Services lead to these pods.
    fn rows(&self, landings: &[Landing<'_>]) -> Vec<Row> {
        let mut all = rows("web", "http", &self.web, landings);
        all.extend(rows("old", "http", &self.old, landings));
        all.sort_by_key(|row| row.frontend.parse_address());
        all
    }

    async fn expect_everything(&self) -> Result<()> {
        self.cluster.await_table(&self.rows(&self.both())).await?;
        self.expect_connections()
    }

    /// Now, and without waiting for anything.
    fn expect_connections(&self) -> Result<()> {
        let all = [self.web, self.old].concat();
        self.cluster.expect_landings(&all, &self.both())
    }
}
