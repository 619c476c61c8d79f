//! What lets the agent in changes while it runs: the token in its file, and the authority that the API server's certificate is of.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use portmap_harness::control_plane::gate::{Gate, Mode};
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::manifest::{NAMESPACE, SERVICE_ACCOUNT};
use crate::wait::{MINUTES, eventually_equal, within};

#[tokio::test]
async fn a_token_that_ended_is_read_again() -> Result<()> {
    let cluster = Cluster::start("token").await?;
    let gate = Gate::start(cluster.plane.address()).await?;
    let file = cluster.plane.token_file_kubeconfig(&gate.url(), NAMESPACE, SERVICE_ACCOUNT).await?;
    let agent = Agent::start(&cluster.world, &file.kubeconfig, &[]).await?;
    cluster.await_healthy().await?;

    end_token(&cluster, "first", &file.token()?).await?;
    // Watches that have begun go on: nobody looks at a token twice.
    gate.set(Mode::Reset);
    gate.set(Mode::Open);
    agent.await_log("Unauthorized").await?;
    expect_silence(&cluster).await?;

    cluster.plane.renew_token(&file, NAMESPACE, SERVICE_ACCOUNT, "second").await?;
    expect_recovery(&cluster).await?;
    agent.terminate()
}

/// The kubeconfig has the authority in it. The old one is of no use, and another in its place is.
#[tokio::test]
async fn another_authority_is_read_from_the_kubeconfig() -> Result<()> {
    let mut cluster = Cluster::start("authority").await?;
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;

    cluster.plane.renew_certificate().await?;
    agent.await_log("invalid peer certificate").await?;
    expect_silence(&cluster).await?;

    let renewed = cluster.plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT).await?;
    ensure!(renewed == cluster.kubeconfig(), "another file than the agent's: {}", renewed.display());
    expect_recovery(&cluster).await?;
    agent.terminate()
}

/// In a pod, both are in files that the kubelet replaces at once. Neither the old authority nor the old token is of any use then.
#[tokio::test]
async fn what_a_pod_is_given_anew_is_read_again() -> Result<()> {
    let mut cluster = Cluster::start("volume").await?;
    let mut volume = cluster.plane.service_account_volume(NAMESPACE, SERVICE_ACCOUNT, "first").await?;
    let agent = Agent::start_in_pod(&cluster.world, &volume).await?;
    cluster.await_healthy().await?;

    cluster.plane.renew_certificate().await?;
    end_token(&cluster, "first", &volume.token()?).await?;
    agent.await_log("invalid peer certificate").await?;
    expect_silence(&cluster).await?;

    cluster.plane.renew_volume(&mut volume, NAMESPACE, SERVICE_ACCOUNT, "second").await?;
    expect_recovery(&cluster).await?;
    agent.terminate()
}

/// Takes away what a token is bound to.
async fn end_token(cluster: &Cluster, secret: &str, token: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    secrets.delete(secret, &DeleteParams::default()).await.context("failed to end the token")?;
    await_end(cluster, token).await
}

/// The API server takes a token for good some seconds longer.
async fn await_end(cluster: &Cluster, token: &str) -> Result<()> {
    let review: TokenReview = serde_json::from_value(json!({"spec": {"token": token}}))?;
    let reviews: Api<TokenReview> = Api::all(cluster.plane.admin()?);
    let look = async || {
        let answer = reviews.create(&PostParams::default(), &review).await.context("failed to review a token")?;
        Ok(answer.status.is_some_and(|status| status.authenticated == Some(true)))
    };
    eventually_equal(look, &false).await
}

async fn expect_silence(cluster: &Cluster) -> Result<()> {
    let status = within(MINUTES, async || cluster.status(), |status| !status.is_fine("source")).await?;
    ensure!(status.synced() && status.is_fine("programs"), "{status:?}");
    Ok(())
}

/// All is well, and what is new arrives.
async fn expect_recovery(cluster: &Cluster) -> Result<()> {
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    cluster.apply("{apiVersion: v1, kind: Service, metadata: {name: new}, spec: {ports: [{port: 80}]}}").await?;
    within(MINUTES, async || cluster.table(), |rows| rows.iter().any(|row| row.service == "default/new")).await?;
    Ok(())
}
