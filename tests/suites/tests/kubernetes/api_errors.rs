//! The API server rejects requests, connections are reset, or the agent's clock jumps. The agent reports watches that fail for
//! long, and recovers. Connections to Services are not affected.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use portmap_harness::clock::Clock;
use portmap_harness::control_plane::detour::{Detour, Refusal};
use portmap_harness::control_plane::gate::{Gate, Mode};

use crate::agent::Agent;
use crate::cluster::{COMMON_PORT, Cluster, rows};
use crate::traffic::Traffic;
use crate::wait::{MINUTES, within};

const SILENT: &str = "the watch of";
const METRIC: &str = "portmap_watch_failing{kind=\"EndpointSlices\"}";

/// A cluster with the Services `web` and `old`. Tests delete `old`, often while the agent cannot see it. Most tests create it
/// again.
struct Shop {
    cluster: Cluster,
    web: [SocketAddr; 2],
}

#[tokio::test]
async fn errors_of_the_api_server_are_reported_and_overcome() -> Result<()> {
    let shop = Shop::open("api-errors").await?;
    let detour = Detour::start(shop.cluster.plane.anonymous()?).await?;
    let agent = shop.cluster.agent_by(&detour.url()).await?;
    shop.expect_in_time(&agent, &["web", "old"]).await?;
    let traffic = Traffic::start(&shop.cluster.world, shop.web)?;
    overload_is_waited_out(&shop, &detour, &agent).await.context("429")?;
    a_forgotten_version_is_listed_anew(&shop, &detour, &agent).await.context("410")?;
    a_load_balancer_without_servers_is_told_of(&shop, &detour, &agent).await.context("503")?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during the test")
}

#[tokio::test]
async fn a_broken_connection_is_reported_and_overcome() -> Result<()> {
    let shop = Shop::open("broken").await?;
    let gate = Gate::start(shop.cluster.plane.address()).await?;
    let agent = shop.cluster.agent_by(&gate.url()).await?;
    shop.expect_in_time(&agent, &["web", "old"]).await?;
    let traffic = Traffic::start(&shop.cluster.world, shop.web)?;
    // Three short interruptions must not make portmap unhealthy.
    for _ in 0..3 {
        gate.set(Mode::Reset);
        gate.set(Mode::Open);
        shop.delete_and_make_again(&agent).await.context("connections reset")?;
    }
    ensure!(shop.cluster.status()?.healthy, "a short interruption should not make portmap unhealthy");

    gate.set(Mode::Reset);
    shop.expect_said(&agent).await.context("a closed gate")?;
    shop.cluster.delete_service("old").await?;
    gate.set(Mode::Open);
    shop.expect_in_time(&agent, &["web"]).await.context("an open gate")?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during the test")
}

/// Existing watches do not depend on the clock. A new connection does, because certificates have a period of validity.
#[tokio::test]
async fn a_jump_of_the_clock_is_overcome() -> Result<()> {
    let shop = Shop::open("clock").await?;
    let gate = Gate::start(shop.cluster.plane.address()).await?;
    let clock = Clock::new(shop.cluster.world.directory())?;
    let agent = shop.cluster.spawn_by_clock(&gate.url(), &clock).await?;
    agent.await_start(&shop.cluster.world).await?;
    shop.expect_in_time(&agent, &["web", "old"]).await?;
    let traffic = Traffic::start(&shop.cluster.world, shop.web)?;
    clock.set("+20y")?;
    shop.delete_and_make_again(&agent).await.context("existing watches")?;
    gate.set(Mode::Reset);
    gate.set(Mode::Open);
    shop.expect_said(&agent).await?;
    agent.await_log("certificate expired").await?;
    shop.cluster.delete_service("old").await?;
    clock.set("+0")?;
    shop.expect_in_time(&agent, &["web"]).await.context("after the clock was ahead")?;
    shop.make_again(&agent).await?;
    agent.terminate()?;

    // Some machines start with a wrong clock, before they synchronise the time.
    clock.set("-20y")?;
    let agent = shop.cluster.spawn_by_clock(&gate.url(), &clock).await?;
    agent.await_log("certificate not valid yet").await?;
    shop.cluster.delete_service("old").await?;
    clock.set("+0")?;
    shop.expect_in_time(&agent, &["web"]).await.context("after the clock was behind")?;
    agent.terminate()?;
    traffic.expect_no_errors().context("connections during the test")
}

/// The agent sends no request before the end of `Retry-After`.
async fn overload_is_waited_out(shop: &Shop, detour: &Detour, agent: &Agent) -> Result<()> {
    detour.refuse(Some(Refusal { of: "/", status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(20) }));
    shop.restart_watches(detour).await?;
    shop.expect_said(agent).await?;
    agent.await_log("429").await?;
    // Each of the five watches may have sent two requests: one before the wait, and one after it.
    let asked = detour.refused();
    ensure!(asked <= 10, "{asked} requests were sent to a server that asked for none in 20 seconds");
    shop.cluster.delete_service("old").await?;
    detour.refuse(None);
    shop.expect_in_time(agent, &["web"]).await?;
    shop.make_again(agent).await
}

/// An API server usually reports 410 by an event of an open watch. Here the answer to the request for a watch has this status,
/// which a client must handle too.
async fn a_forgotten_version_is_listed_anew(shop: &Shop, detour: &Detour, agent: &Agent) -> Result<()> {
    detour.refuse(Some(Refusal { of: "watch=true", status: StatusCode::GONE, retry_after: None }));
    shop.restart_watches(detour).await?;
    shop.cluster.delete_service("old").await?;
    // The change arrives by lists alone, because every watch is rejected.
    shop.expect_rows(&["web"]).await?;
    detour.refuse(None);
    shop.expect_in_time(agent, &["web"]).await?;
    shop.make_again(agent).await
}

async fn a_load_balancer_without_servers_is_told_of(shop: &Shop, detour: &Detour, agent: &Agent) -> Result<()> {
    detour.refuse(Some(Refusal { of: "/", status: StatusCode::SERVICE_UNAVAILABLE, retry_after: None }));
    shop.restart_watches(detour).await?;
    shop.expect_said(agent).await?;
    detour.refuse(None);
    shop.expect_in_time(agent, &["web", "old"]).await
}

impl Shop {
    async fn open(name: &str) -> Result<Self> {
        let cluster = Cluster::start(name).await?;
        cluster.apply_service("web", "http", &COMMON_PORT.to_string()).await?;
        cluster.apply_service("old", "http", &COMMON_PORT.to_string()).await?;
        let web = cluster.frontends("web").await?;
        Ok(Self { cluster, web })
    }

    /// Ends all open answers of the proxy before the API server, so that watches start again. Waits until it has refused a
    /// request.
    async fn restart_watches(&self, detour: &Detour) -> Result<()> {
        detour.break_off();
        within(MINUTES, async || Ok(detour.refused()), |refused| *refused > 0).await.context("no request arrives")?;
        Ok(())
    }

    /// Expects the failing watch in the status, `/readyz` and the metric, but not in `/healthz` and `/livez`. Connections to
    /// `web` must still reach both pods.
    async fn expect_said(&self, agent: &Agent) -> Result<()> {
        let status = within(MINUTES, async || self.cluster.status(), |status| !status.is_fine("source")).await?;
        ensure!(status.text("source").starts_with(SILENT) && !status.healthy && status.synced(), "{status:?}");
        let ready = agent.health("readyz")?;
        ensure!(ready.status == 503 && ready.body.starts_with(SILENT), "{ready:?}");
        // The last watch may fail later than the others.
        within(MINUTES, async || agent.metric(METRIC), |value| *value > 0.0)
            .await
            .context("the metric does not show the failing watch")?;
        for path in ["healthz", "livez"] {
            let answer = agent.health(path)?;
            ensure!(answer.status == 200, "a failing watch should not make the node unhealthy: {answer:?}");
        }
        self.cluster.expect_landings(&self.web, &[(&self.cluster.a, COMMON_PORT), (&self.cluster.b, COMMON_PORT)])
    }

    /// Waits for exactly these Services in the tables, and for a healthy status, `/readyz` and metric.
    async fn expect_in_time(&self, agent: &Agent, names: &[&str]) -> Result<()> {
        self.expect_rows(names).await?;
        within(MINUTES, async || self.cluster.status(), |status| status.healthy).await?;
        within(MINUTES, async || agent.health("readyz"), |answer| answer.status == 200).await?;
        within(MINUTES, async || agent.metric(METRIC), |value| *value < 1.0)
            .await
            .context("the metric still shows a failing watch")?;
        Ok(())
    }

    async fn expect_rows(&self, names: &[&str]) -> Result<()> {
        let landings = [(&self.cluster.a, COMMON_PORT), (&self.cluster.b, COMMON_PORT)];
        let mut expected = std::collections::BTreeSet::new();
        for name in names {
            expected.extend(rows(name, "http", &self.cluster.frontends(name).await?, &landings));
        }
        within(MINUTES, async || self.cluster.table(), |rows| *rows == expected).await?;
        Ok(())
    }

    async fn make_again(&self, agent: &Agent) -> Result<()> {
        self.cluster.apply_service("old", "http", &COMMON_PORT.to_string()).await?;
        self.expect_in_time(agent, &["web", "old"]).await
    }

    async fn delete_and_make_again(&self, agent: &Agent) -> Result<()> {
        self.cluster.delete_service("old").await?;
        self.expect_in_time(agent, &["web"]).await?;
        self.make_again(agent).await
    }
}
