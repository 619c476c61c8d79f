//! Credentials that change while the agent runs: the token in its file, and the authority of the API server's certificate.

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
async fn an_expired_token_is_read_again() -> Result<()> {
    let cluster = Cluster::start("token").await?;
    let gate = Gate::start(cluster.plane.address()).await?;
    let file = cluster.plane.token_file_kubeconfig(&gate.url(), NAMESPACE, SERVICE_ACCOUNT).await?;
    let agent = Agent::start(&cluster.world, &file.kubeconfig, &[]).await?;
    cluster.await_healthy().await?;

    end_token(&cluster, "first", &file.token()?).await?;
    // Open watches continue, because the API server checks the token only at the start of a request.
    gate.set(Mode::Reset);
    gate.set(Mode::Open);
    agent.await_log("Unauthorized").await?;
    expect_silence(&cluster).await?;

    cluster.plane.renew_token(&file, NAMESPACE, SERVICE_ACCOUNT, "second").await?;
    expect_recovery(&cluster).await?;
    agent.terminate()
}

/// The kubeconfig contains the certificate of the API server's authority. A new authority replaces it in the API server, and
/// then in the file.
#[tokio::test]
async fn a_new_authority_is_read_from_the_kubeconfig() -> Result<()> {
    let mut cluster = Cluster::start("authority").await?;
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;

    cluster.plane.renew_certificate().await?;
    agent.await_log("invalid peer certificate").await?;
    expect_silence(&cluster).await?;

    let renewed = cluster.plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT).await?;
    ensure!(renewed == cluster.kubeconfig(), "this file is not the agent's kubeconfig: {}", renewed.display());
    expect_recovery(&cluster).await?;
    agent.terminate()
}

/// In a pod, token and authority are files that the kubelet replaces together. The old token and authority become invalid.
#[tokio::test]
async fn new_credentials_of_a_pod_are_read_again() -> Result<()> {
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

/// Deletes the Secret that the token is bound to, and waits until the token is invalid.
async fn end_token(cluster: &Cluster, secret: &str, token: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    secrets.delete(secret, &DeleteParams::default()).await.context("failed to delete the Secret of the token")?;
    await_end(cluster, token).await
}

/// Waits for the end of the token. The API server accepts it for some more seconds.
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

/// Expects a healthy status, and waits until a new Service is in the tables.
async fn expect_recovery(cluster: &Cluster) -> Result<()> {
    within(MINUTES, async || cluster.status(), |status| status.healthy).await?;
    cluster.apply("{apiVersion: v1, kind: Service, metadata: {name: new}, spec: {ports: [{port: 80}]}}").await?;
    within(MINUTES, async || cluster.table(), |rows| rows.iter().any(|row| row.service == "default/new")).await?;
    Ok(())
}
